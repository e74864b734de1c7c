"""A segmenter over a model file: a `.keras`, `.tflite`, `.onnx` or SavedModel that gives maps of scores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError, UsageError
from visionkit.runtime.steps import float_face
from visionkit.tasks.input_rule import PRESETS, InputRule
from visionkit.tasks.model_files import read_labels
from visionkit.tasks.segment import Segmenter, SegmentOptions
from visionkit.tasks.segment_fit import SizeOptions
from visionkit.tasks.segment_network import SegmentNetwork

if TYPE_CHECKING:
    from visionkit.runtime import Runner, TensorSpec

__all__ = ["segmenter_from_file", "segmenter_over"]

Size = tuple[int, int]

RESIZES = ("stretch", "letterbox")
SMALLEST = 1e-7  # probability
WANTED = "A segmenter's file takes one image (1, H, W, 3) of fixed size and gives a map of scores (1, h, w, classes)"
EXPORTED = (
    "A SavedModel that takes images of any size, without a description, runs in TensorFlow itself: "
    "tf.saved_model.load(PATH).signatures['serving_default'](image=…); here, give the card it was made from"
)


def segmenter_from_file(
    path: str | os.PathLike[str],
    *,
    labels: Sequence[str] | str | os.PathLike[str] = (),
    preset: str = "raw",
    resize: str = "stretch",
    output: str | None = None,
    options: SegmentOptions | None = None,
    trust: bool = False,
    **how: Any,
) -> Segmenter:
    """A segmenter over the network in a model file.

    Args:
        path: the file or folder.
        labels: class names by class id, or a text file with one a line.
        preset: how levels are changed for its input (`InputRule.preset`); `raw` hands over 0 to 255.
        resize: `stretch` or `letterbox`.
        output: which of several outputs to read; None reads `logits`, or the only map of scores.
        options: what is made of the scores; a file has one size, so neither sizes nor tiles.
        trust: the file may run code (SavedModel) or crash (`.tflite`).
        how: runtime, precision and threads.

    Raises:
        ModelError: the file does not load, or is no segmenter (`model-unfit`, `labels-unfit`).
        UsageError: `preset-unknown`, `resize-unknown`, `output-unknown`.
    """
    from visionkit.runtime import compile_model
    from visionkit.runtime.files import ModelFile

    for word, value, known in (("preset", preset, tuple(PRESETS)), ("resize", resize, RESIZES)):
        if value not in known:
            raise UsageError(f"{word}-unknown", f"{word} must be one of {', '.join(known)}. Received: {value!r}.")
    told, name = tuple(read_labels(labels)), Path(path).name
    try:
        runner = float_face(compile_model(path, trust=trust, **how))
    except ModelError as error:
        if error.slug != "model-shape":
            raise
        raise ModelError("model-unfit", f"{name}: {error.message}. {WANTED}. {EXPORTED}") from error
    try:
        chosen = replace(options or SegmentOptions(), size=SizeOptions(max_pixels=1 << 40))  # one pass, however large
        rule = InputRule.preset(preset, _size_of(runner, name), resize=resize)
        read = _output_of(runner, output, name)
        made = segmenter_over(runner, rule, read, chosen, told)
        classes = runner.outputs[read].shape[3]
        if told and classes and len(told) != classes:
            raise ModelError("labels-unfit", f"{name} has {classes} classes, and there are {len(told)} labels.")
    except BaseException:
        runner.close()
        raise
    digest = ModelFile(path).digest()
    made.model = {"name": name, "sha256": digest, "runtime": runner.name, "precision": runner.precision}
    return made


def segmenter_over(
    runner: Runner, rule: InputRule, output: str, options: SegmentOptions, labels: Sequence[str]
) -> Segmenter:
    """A segmenter over a network of one size, whose output is a map of scores or of probabilities."""
    maps: Any = _Maps(runner, output, rule)
    encoded = rule.encoded(next(iter(runner.native.values())))
    network = SegmentNetwork(lambda size_hw, known: [maps], dtype=encoded.dtype)
    network.prepare(rule.size_hw)
    return Segmenter(network, encoded, options, labels=labels)


class _Maps:
    """A file's runner as a network of one output, logits; of probabilities the logarithms."""

    def __init__(self, runner: Runner, output: str, rule: InputRule) -> None:
        self.inputs, self.outputs = runner.inputs, {"logits": runner.outputs[output]}
        self.name, self.precision, self.threads = runner.name, runner.precision, runner.threads
        self._runner, self._output = runner, output
        self._probs = self._gives_probabilities(rule)

    def __call__(self, /, **arrays: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
        found = self._runner(**arrays)[self._output]
        return {"logits": _logs(found) if self._probs else found}

    def close(self) -> None:
        self._runner.close()

    def _gives_probabilities(self, rule: InputRule) -> bool:
        """Whether what it makes of noise is nowhere negative and sums to one everywhere."""
        (name,) = self._runner.inputs
        image = np.random.default_rng(0).integers(0, 256, (*rule.size_hw, 3), np.uint8)
        found = self._runner(**{name: rule(image)[None]})[self._output]
        tolerance = 0.05 if self._output in self._runner.coarse else 1e-3
        return bool(found.min() >= 0 and np.abs(found.sum(axis=-1) - 1).max() <= tolerance)


def _logs(probs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.log(np.maximum(np.ascontiguousarray(probs, np.float32), np.float32(SMALLEST)))


def _size_of(runner: Runner, name: str) -> Size:
    specs = list(runner.inputs.values())
    shape = specs[0].shape
    if len(specs) != 1 or len(shape) != 4 or shape[3] != 3 or None in shape[1:3]:
        raise _unfit(name, "takes", specs)
    return int(shape[1] or 0), int(shape[2] or 0)


def _output_of(runner: Runner, output: str | None, name: str) -> str:
    maps = {key: spec for key, spec in runner.outputs.items() if len(spec.shape) == 4 and (spec.shape[3] or 0) >= 2}
    if output is not None and output not in runner.outputs:
        raise UsageError("output-unknown", f"{name} has no output {output!r}; it has {', '.join(runner.outputs)}")
    if output is None and "logits" not in maps and len(maps) > 1:
        raise UsageError("output-unknown", f"{name} has several maps: name one of {', '.join(maps)} as output")
    wanted = output or ("logits" if "logits" in maps else next(iter(maps), ""))
    if wanted not in maps:
        raise _unfit(name, "gives", list(runner.outputs.values()))
    return wanted


def _unfit(name: str, verb: str, specs: Sequence[TensorSpec]) -> ModelError:
    told = ", ".join(str(spec) for spec in specs)
    return ModelError("model-unfit", f"{name} is no segmenter that VisionKit knows: it {verb} {told}. {WANTED}.")
