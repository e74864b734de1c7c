"""What an exported model is tried on before it gets its name."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.export.plan import ExportPlan
from visionkit.export.signatures import EMBED, EMBEDDING, IMAGE, Signatures
from visionkit.runtime.base import TensorSpec
from visionkit.runtime.convert import DEFAULT
from visionkit.runtime.keras_net import KerasRunner

__all__ = ["NETWORK", "Trial", "network_trials", "read_probes", "rendered", "stored", "trials_of"]

Image = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]

SIZES = ((192, 256), (150, 117))
GRAIN = 4  # pixels
NETWORK = ""  # as a signature: the Keras network itself, its outputs called by their places


@dataclass(frozen=True)
class Trial:
    """A call of a signature, and what Keras says to it.

    Args:
        signature: called, or `NETWORK`.
        inputs, expected: by name.
        probe: number of the image it belongs to.
        task: whether what is expected are the task's results, which are judged by the plan.
    """

    signature: str
    inputs: Mapping[str, Array]
    expected: Mapping[str, Array]
    probe: int
    task: bool = False


def rendered(height: int, width: int) -> Image:
    """A picture of soft colours, edges and a little noise, uint8 (H, W, 3) BGR.

    Colours and noise are in grains of 4 x 4 pixels: with some for each pixel they would not compress, and be a third
    of an exported file.
    """
    random = np.random.default_rng(height * width)
    rows, columns = -(-height // GRAIN), -(-width // GRAIN)
    y, x = np.mgrid[:rows, :columns] * GRAIN
    soft = np.stack([255 * y / height, 255 * x / width, np.full(y.shape, 60)], axis=-1)
    soft += random.normal(0, 4, soft.shape)
    picture = soft.repeat(GRAIN, axis=0).repeat(GRAIN, axis=1)[:height, :width]
    y, x = np.mgrid[:height, :width]
    disc = (y - height / 2) ** 2 + (x - width / 3) ** 2 < (height / 3) ** 2
    picture[disc, 2] += 150
    return np.clip(picture, 0, 255).astype(np.uint8)


def read_probes(given: Sequence[Image | str | os.PathLike[str]]) -> list[Image]:
    """Images uint8 (H, W, 3) BGR, as they are or read from files; two rendered ones without any.

    Raises:
        InputError: a file cannot be read.
    """
    from visionkit.io.images import read_image

    images = [item if isinstance(item, np.ndarray) else read_image(item) for item in given]
    return images or [rendered(*size_hw) for size_hw in SIZES]


def trials_of(signatures: Signatures, images: Sequence[Image]) -> list[Trial]:
    """Every signature on every image, in this order: the images of `serving_default` first."""
    plan, fixed = signatures.plan, signatures.options.fixed
    calls = signatures.calls
    runners = {name: KerasRunner(model, batch=signatures.options.batch, threads=1) for name, model in plan.raw.items()}
    trials: list[Trial] = []
    for place, given in enumerate(images):
        image = plan.fit(given) if fixed else given
        feed = {IMAGE: image[None, ..., ::-1]}
        if plan.serve is not None:
            answer = {name: value[None] for name, value in plan.expected([image], fixed)[0].items()}
            batch = signatures.options.batch if fixed else 1
            trials.append(Trial(DEFAULT, _filled(feed, calls[DEFAULT].inputs), _repeated(answer, batch), place, True))
        told = plan.raw_inputs(image) if plan.raw_inputs is not None else {}
        for name, runner in runners.items():
            inputs = _filled(told.get(name, {}), tuple(runner.inputs.values()), place)
            answers = runner(**inputs)
            trials.append(Trial(name, inputs, answers, place))
            if plan.serve is None and name == plan.default:
                trials.append(Trial(DEFAULT, inputs, answers, place))
        if plan.embed is not None:
            inputs = _filled(feed, calls[EMBED].inputs)
            trials.append(Trial(EMBED, inputs, {EMBEDDING: _embedded(plan, image, inputs[IMAGE], fixed)}, place))
    return trials


def network_trials(signatures: Signatures, images: Sequence[Image]) -> list[Trial]:
    """The whole Keras network on every image, or on noise where it takes none."""
    plan = signatures.plan
    runner = KerasRunner(plan.model, batch=1, threads=1)
    trials = []
    for place, given in enumerate(images):
        told = {} if plan.raw_inputs is None else plan.raw_inputs(given).get(plan.parts.get("", ""), {})
        inputs = _filled(told, tuple(runner.inputs.values()), place)
        answers = {str(number): array for number, array in enumerate(runner(**inputs).values())}
        trials.append(Trial(NETWORK, inputs, answers, place))
    return trials


def _embedded(plan: ExportPlan, image: Image, inputs: Array, fixed: bool) -> Array:
    """The features (B, F) of one image, as often as it is in `inputs`."""
    if plan.embedded is None:
        raise ValueError("`embedded` must be given where `embed` is.")
    return np.repeat(plan.embedded(image, fixed)[None], len(inputs), axis=0)


def stored(trials: Sequence[Trial], images: Sequence[Image], limit: int) -> dict[str, Array]:
    """The arrays that travel with the artifact: images as they are shown to it, the first one's network tensors.

    Args:
        trials: of them.
        images: uint8 (H, W, 3) RGB.
        limit: of bytes of network tensors; signatures that do not fit in are left out.
    """
    found: dict[str, Array] = {f"image_{place}": image for place, image in enumerate(images)}
    for trial in trials:
        if trial.task:
            found |= {f"serving/{name}/{trial.probe}": value[0] for name, value in trial.expected.items()}
        elif trial.probe == 0 and trial.signature != DEFAULT:  # what `embed` takes is among the images
            arrays = {**({} if trial.signature == EMBED else trial.inputs), **trial.expected}
            limit -= (size := sum(array.nbytes for array in arrays.values()))
            if limit < 0:
                limit += size
                continue
            found |= {f"raw/{trial.signature}/{name}/0": array for name, array in arrays.items()}
    return found


def _filled(given: Mapping[str, Array], specs: Sequence[TensorSpec], seed: int = 0) -> dict[str, Array]:
    """An array for each specification: those given, repeated to its batch, or else noise."""
    random = np.random.default_rng(seed)
    found = {}
    for spec in specs:
        array = given.get(spec.name)
        if array is None:
            shape = [1 if size is None else size for size in spec.shape]
            array = random.standard_normal(shape)
        batch = spec.shape[0] if spec.shape else None
        if batch is not None and array.shape[0] == 1:
            array = np.repeat(array, batch, axis=0)
        found[spec.name] = np.ascontiguousarray(array, spec.dtype)
    return found


def _repeated(answer: Mapping[str, Array], batch: int) -> dict[str, Array]:
    return {name: np.repeat(value, batch, axis=0) for name, value in answer.items()}
