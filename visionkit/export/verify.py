"""An artifact checked again, on any machine: its probes, another model on real frames, the layer where they part."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.export.asking import Question, ask_alone
from visionkit.export.box_match import compare_boxes
from visionkit.export.check import EMBED_TOLERANCE, difference
from visionkit.export.divergence import LayerDifference, compare_files, compare_layers, layer_outputs
from visionkit.export.plan import ExportOptions, make_plan
from visionkit.export.probes import NETWORK
from visionkit.export.signatures import EMBED, IMAGE
from visionkit.io.text import safe_text
from visionkit.runtime.convert import DEFAULT
from visionkit.runtime.files import ModelFile, check_archive, load_tflite
from visionkit.runtime.litert import open_litert
from visionkit.runtime.steps import from_steps
from visionkit.runtime.vet import vet_tflite
from visionkit.tasks.artifact_network import described
from visionkit.tasks.detect import DetectOptions
from visionkit.tasks.model_files import is_model_file
from visionkit.weights import card_names
from visionkit.weights.artifact import Artifact, model_bytes, read_artifact

if TYPE_CHECKING:
    from visionkit.weights import Card

__all__ = ["ProbeRow", "check_probes", "layer_differences"]

Array = npt.NDArray[Any]

GRAPHS = ("savedmodel", "litert")  # formats with several signatures
FLOAT_TOLERANCE = 1e-4  # where the artifact does not say its own
MOST_FED = 1 << 30  # bytes of a batch
STEPS = 1  # of integers: kernels of other machines may round the other way
FLIPPED = 1e-3  # of a map's pixels: labels of nearly equal scores
SUPPRESSION = 0.5  # overlap, only to tell ties; the networks' own limits lie near it


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """How far an output is from what the artifact says of its probes.

    Args:
        probes: how many were asked.
        apart: the largest difference, of integers in steps; of a map of labels the share of its pixels.
        tolerance: what it may be.
    """

    signature: str
    output: str
    probes: int
    apart: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.apart <= self.tolerance


@dataclass(frozen=True)
class _Probe:
    question: Question
    expected: Mapping[str, Array]


def check_probes(artifact: Artifact) -> list[ProbeRow]:
    """Runs the artifact by its plain runtime alone on the probes that it carries.

    Raises:
        ModelError: `probes-missing`, there are none in it; `artifact-refused`, the runtime does not run it;
            `verify-impossible`, no runtime for Python does.
    """
    probes = _probes(artifact)
    if not probes:
        name, kind = artifact.path.name, artifact.format
        if artifact.card.task == "track" and kind not in ("litert", "savedmodel"):
            raise ModelError(
                "probes-missing",
                f"{name} carries no probes: of a tracker's two networks {kind} does not hold each by itself. What "
                "`visionkit export --format litert` or savedmodel writes can be verified.",
            )
        raise ModelError("probes-missing", f"{name} carries no probes; export it again, or use --against")
    if foreign := artifact.made.get("select_tf_ops"):
        raise ModelError(
            "verify-impossible",
            f"{artifact.path.name} cannot be verified or run here: {safe_text(', '.join(foreign))} "
            "need TensorFlow's kernels, which no interpreter for Python has. When it was made, the graph that it was "
            "converted from was run in their place. Try it where they are linked in, or export without "
            "--allow-select-tf-ops, or to savedmodel.",
        )
    asked = [probe.question for probe in probes]
    answers, _ = ask_alone(artifact.path, asked, artifact.format)
    rows: dict[tuple[str, str], ProbeRow] = {}
    for probe, answer in zip(probes, answers, strict=True):
        for output in probe.expected:
            key = (probe.question.signature, output)
            apart, tolerance = _apart(artifact, key[0], output, answer, probe.expected)
            last = rows.get(key)
            count, most = (1, apart) if last is None else (last.probes + 1, max(last.apart, apart))
            rows[key] = ProbeRow(*key, count, most, tolerance)
    return list(rows.values())


def layer_differences(artifact: Artifact, against: Card | Artifact) -> dict[str, list[LayerDifference]]:
    """Of each network in a `.tflite`, how far its layers are from those of the model it is compared with.

    Both are asked with the probe that the artifact carries for the network.

    Args:
        artifact: of format `litert`.
        against: a card with the same network, or another `.tflite` of it.

    Raises:
        ModelError: `layers-unknown`; one of the two has no layers that can be told, or other signatures.
    """
    if artifact.format != "litert" or (isinstance(against, Artifact) and against.format != "litert"):
        raise ModelError("layers-unknown", "layers are compared between .tflite files, or of one with its card")
    stored, content = artifact.probes(), model_bytes(artifact.path)
    networks = {} if isinstance(against, Artifact) else _networks(artifact, against)
    found = {}
    for signature in dict.fromkeys(artifact.parts.values()):
        told = _stored(stored, f"raw/{signature}/")
        inputs = {name: told[name] for name in _input_names(artifact, signature, told) if name in told}
        if not inputs:
            continue
        inputs = _as_floats(content, signature, inputs)
        if isinstance(against, Artifact):
            found[signature] = _compared(against, content, signature, inputs)
        else:
            found[signature] = compare_layers(layer_outputs(networks[signature], inputs), content, inputs, signature)
    return found


def _compared(against: Artifact, content: bytes, signature: str, inputs: Mapping[str, Array]) -> list[LayerDifference]:
    """The layers of a `.tflite` next to those of another one."""
    if signature not in against.parts.values():
        raise ModelError("layers-unknown", f"{against.path.name} has no signature {signature!r}")
    try:
        return compare_files(model_bytes(against.path), content, inputs, signature)
    except ModelError as error:
        if error.slug != "model-signature":
            raise
        raise ModelError("layers-unknown", f"{against.path.name} takes other inputs: {error.message}") from error


def _as_floats(content: bytes, signature: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Inputs in the steps of a `.tflite` as what they stand for."""
    with open_litert(content, threads=1, key=signature, label="the artifact") as runner:
        told = {name: runner.inputs[name].quantization for name in inputs}
    return {name: from_steps(array, told[name]) for name, array in inputs.items()}


def _networks(artifact: Artifact, card: Card) -> Mapping[str, Any]:
    """The card's networks by signature, at the artifact's size."""
    if card.network != artifact.card.network:
        raise ModelError(
            "layers-unknown", f"{card.name} is the network {card.network}, {artifact.path.name} {artifact.card.network}"
        )
    twin = dataclasses.replace(artifact.card, weights=card.weights, folder=card.folder)
    plan = make_plan(twin, ExportOptions(format="litert"))
    return plan.raw


def read_described(path: str | os.PathLike[str]) -> Artifact:
    """The artifact at a path.

    Raises:
        ModelError: `not-an-artifact`, the file does not describe itself; `model-missing`, `model-corrupt`.
    """
    found = read_artifact(os.fspath(path))
    if found is None:
        _check_whole(path)
        name = os.fspath(path)
        why = "it is a card: export it, and verify what is written" if name in card_names() else "it has no probes"
        raise ModelError("not-an-artifact", f"{name!r} is no file that `visionkit export` or `quantize` wrote: {why}")
    return found


def _check_whole(path: str | os.PathLike[str]) -> None:
    """Raises ModelError `model-missing`, `model-corrupt` or `model-crashed` of a model file that does not load."""
    if not is_model_file(path):
        return
    file = ModelFile(path)
    if file.kind == "tflite":
        vet_tflite(file.path, file.read(), file.label, None)
        load_tflite(path).close()
    elif file.kind == "keras":
        check_archive(file)
    elif file.path.is_file():
        file.read()


def _probes(artifact: Artifact) -> list[_Probe]:
    """The calls that the stored arrays allow."""
    stored = artifact.probes()
    images = {name.removeprefix("image_"): value for name, value in stored.items() if name.startswith("image_")}
    batch, asked = _batch(artifact), []
    if any(image.nbytes * batch > MOST_FED for image in images.values()):
        raise ModelError("artifact-corrupt", f"{artifact.path.name} asks for probes of more than {MOST_FED >> 20} MiB")
    feeds = {place: {IMAGE: np.repeat(image[None], batch, axis=0)} for place, image in sorted(images.items())}
    for place, feed in feeds.items():
        expected = {
            name.split("/")[1]: value
            for name, value in stored.items()
            if name.startswith("serving/") and name.endswith(f"/{place}")
        }
        if expected and artifact.format != "keras":
            asked.append(_Probe(Question(DEFAULT, feed), expected))
    if artifact.format == "keras" and (told := _stored(stored, f"raw/{NETWORK}/")):
        places = {name: value for name, value in told.items() if name.isdigit()}
        asked.append(_Probe(Question(DEFAULT, {k: v for k, v in told.items() if k not in places}), places))
    features = _stored(stored, f"raw/{EMBED}/")
    if features and "0" in feeds and artifact.format in GRAPHS:
        asked.append(_Probe(Question(EMBED, feeds["0"]), features))
    for signature in dict.fromkeys(artifact.parts.values()):
        told = _stored(stored, f"raw/{signature}/")
        names = _input_names(artifact, signature, told)
        expected = {name: value for name, value in told.items() if name not in names}
        inputs = {name: told[name] for name in names if name in told}
        if not inputs or not expected:
            continue
        if artifact.format == "keras":  # the whole network, its outputs by their places
            if signature == artifact.parts.get(""):
                places = {str(place): value for place, value in enumerate(expected.values())}
                asked.append(_Probe(Question(DEFAULT, inputs), places))
        elif artifact.format in GRAPHS:
            asked.append(_Probe(Question(signature, inputs), expected))
    return asked


def _stored(stored: Mapping[str, Array], start: str) -> dict[str, Array]:
    """Of the first probe, by name."""
    return {
        name[len(start) : -2]: value for name, value in stored.items() if name.startswith(start) and name.endswith("/0")
    }


def _input_names(artifact: Artifact, signature: str, told: Mapping[str, Array]) -> list[str]:
    """Inputs of a signature as the description says them, or the image, or the first of the stored arrays."""
    specs = artifact.made.get("signatures", {}).get(signature)
    if specs:
        return [str(spec).partition(":")[0] for spec in specs]
    return [IMAGE] if IMAGE in told else list(told)[:1]


def _batch(artifact: Artifact) -> int:
    """Images that `serving_default` takes at once."""
    for spec in artifact.made.get("signatures", {}).get(DEFAULT, []):
        first = str(spec).partition("(")[2].partition(",")[0]
        return int(first) if re.fullmatch(r"[0-9]{1,4}", first) else 1
    return 1


def _apart(
    artifact: Artifact, signature: str, output: str, answer: Mapping[str, Array], expected: Mapping[str, Array]
) -> tuple[float, float]:
    """The difference of an output, and what it may be."""
    told = artifact.made.get("tolerances", {})
    if signature != DEFAULT or not any(name in told for name in expected):
        wide = float(artifact.made.get("raw_tolerance", FLOAT_TOLERANCE))
        return _raw_apart(answer.get(output), expected[output], EMBED_TOLERANCE if signature == EMBED else wide)
    limit = float(told.get(output, FLOAT_TOLERANCE))
    if artifact.card.task == "detect":
        with described(artifact):
            conf = float(artifact.card.options.get("conf", DetectOptions().conf))
        one = {name: value[:1] for name, value in answer.items() if value.ndim}
        apart = compare_boxes(conf=conf, iou=SUPPRESSION)(one, {k: v[None] for k, v in expected.items()}, output, limit)
        return (0.0 if apart is None else apart), limit
    served = {name: value[0] for name, value in answer.items() if value.ndim}
    found, wanted = served.get(output), expected[output]
    if wanted.dtype.kind in "iu" and wanted.ndim > 1 and found is not None and found.shape == wanted.shape:
        return float((found != wanted).mean()), FLIPPED
    return difference(found, wanted), limit


def _raw_apart(found: Array | None, wanted: Array, tolerance: float) -> tuple[float, float]:
    if wanted.dtype.kind in "iu" and found is not None and found.shape == wanted.shape:
        return float(np.abs(found.astype(np.int64) - wanted.astype(np.int64)).max(initial=0)), STEPS
    return difference(found, wanted, relative=True), tolerance
