"""A detector out of a model file whose outputs are boxes, classes and scores, as TensorFlow's detectors have them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError, UsageError
from visionkit.runtime.steps import float_face
from visionkit.tasks.detect import DetectOptions, Detector
from visionkit.tasks.detect_network import DetectNetwork, Limits, RawDetections
from visionkit.tasks.input_rule import PRESETS, InputRule
from visionkit.tasks.model_files import read_labels

if TYPE_CHECKING:
    from visionkit.runtime import Runner

__all__ = ["FileEngine", "detector_from_file", "detector_over"]

Floats = npt.NDArray[np.float32]

# What outputs are called: by VisionKit's and TensorFlow's detectors, and by the post-processing of LiteRT files.
ROLES = {
    "boxes": ("boxes", "detection_boxes"),
    "classes": ("classes", "detection_classes"),
    "scores": ("scores", "detection_scores"),
    "count": ("num_detections", "count"),
    "masks": ("masks",),
}
LITERT_ORDER = ("boxes", "classes", "scores", "count")  # of TFLite_Detection_PostProcess, :1, :2, :3
EXPECTED = (
    "expected one image (1, H, W, 3) and outputs `boxes` (1, N, 4) as shares of the image (y1, x1, y2, x2), `classes` "
    "and `scores` (1, N), and perhaps `num_detections`"
)


def detector_from_file(
    path: str | os.PathLike[str],
    *,
    labels: Sequence[str] | str | os.PathLike[str] = (),
    preset: str = "raw",
    resize: str = "stretch",
    first_class: int | None = None,
    trust: bool = False,
    runtime: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    **options: Any,
) -> Detector:
    """A detector over the network in a `.tflite` or SavedModel that ends in boxes, classes and scores.

    Args:
        path: the file or folder.
        labels: class names; or a text file with one a line.
        preset: how levels are changed for its input (`InputRule.preset`); `raw` hands over 0 to 255.
        resize: `stretch` or `letterbox`.
        first_class: the number that the file gives to the first label; None is 0 for LiteRT's own post-processing, else
            1, as background is 0.
        trust: the file may run code (SavedModel) or crash (`.tflite`).
        runtime, precision, threads: as `visionkit.runtime.compile_model`.
        options: of `DetectOptions`; overlaps are the file's own, so `iou` has no meaning.

    Raises:
        ModelError: the file does not load, or is no such detector (`model-unfit`).
        UsageError: `preset-unknown`, `option-unfit`, `class-unknown`.
    """
    from visionkit.runtime import compile_model
    from visionkit.runtime.files import ModelFile

    if preset not in PRESETS:
        raise UsageError("preset-unknown", f"preset must be one of {', '.join(PRESETS)}. Received: {preset!r}.")
    if options.get("iou") is not None:
        raise UsageError("option-unfit", "A model file suppresses overlaps itself: leave --iou out.")
    told = read_labels(labels)
    if isinstance(told, Mapping):
        raise ValueError("`labels` of a detector must be one list.")
    how: dict[str, Any] = {"runtime": runtime, "precision": precision, "threads": threads}
    runner = float_face(compile_model(path, trust=trust, **how))
    try:
        rule = InputRule.preset(preset, _size(runner, Path(path).name), resize=resize)
        detector = detector_over(
            runner, rule, DetectOptions(**options), told, name=Path(path).name, first_class=first_class
        )
    except BaseException:
        runner.close()
        raise
    detector.model = {"name": Path(path).name, "sha256": ModelFile(path).digest()}
    return detector


def detector_over(
    runner: Runner,
    rule: InputRule,
    options: DetectOptions,
    labels: Sequence[str],
    *,
    name: str,
    first_class: int | None = None,
) -> Detector:
    """A detector over a network of one size whose outputs are boxes, classes and scores.

    Args:
        runner: floats in and out.
        rule: of its input.
        options: what of the answer is kept.
        labels: class names.
        name: of the file, for errors.
        first_class: as `detector_from_file`.

    Raises:
        ModelError: `model-unfit`.
        UsageError: `class-unknown`.
    """
    roles, litert = _roles(runner, name)
    base = first_class if first_class is not None else 0 if litert else 1
    engine = FileEngine(runner, roles, first_class=base)
    network = DetectNetwork(lambda size, known: [engine])
    network.prepare(rule.size_hw)
    return Detector(network, rule, options, labels=labels)


class FileEngine:
    """A runner whose outputs are results, as an engine.

    Args:
        runner: of one image.
        roles: which output is what.
        first_class: the number that stands for class 0 of the labels.
    """

    def __init__(self, runner: Runner, roles: Mapping[str, str], *, first_class: int) -> None:
        self._runner, self._roles, self._first, self.batch = runner, dict(roles), first_class, 1
        (self._input,) = runner.inputs
        self.runtime, self.precision, self.threads = runner.name, runner.precision, runner.threads

    def __call__(self, inputs: Floats, valid_hw: Floats, limits: Limits, /) -> list[RawDetections]:
        """What is in the only input float32 (1, h, w, 3)."""
        answer = self._runner(**{self._input: inputs})
        found = {role: np.asarray(answer[name], np.float32) for role, name in self._roles.items()}
        boxes = found["boxes"].reshape(-1, 4)
        count = len(boxes) if "count" not in found else max(0, min(len(boxes), int(found["count"].reshape(-1)[0])))
        scores, numbers = (found[role].reshape(-1)[:count] for role in ("scores", "classes"))
        if not (np.isfinite(scores).all() and np.isfinite(boxes[:count]).all() and np.isfinite(numbers).all()):
            raise ModelError("model-not-finite", "the network's answer is not finite (NaN or infinity)")
        kept = np.flatnonzero(scores >= limits.conf)
        kept = kept[np.argsort(-scores[kept], kind="stable")][: limits.max_det]
        height, width = inputs.shape[1:3]
        xyxy = boxes[kept][:, [1, 0, 3, 2]] * np.array([width, height] * 2, np.float32)
        classes = np.rint(numbers[kept]).astype(np.int64) - self._first + 1  # engines count background as 0
        masks = found["masks"][0][kept] if "masks" in found else None
        return [RawDetections(xyxy.astype(np.float32), scores[kept].astype(np.float32), classes, masks)]

    def close(self) -> None:
        """Give the network's memory back."""
        self._runner.close()


def _roles(runner: Runner, name: str) -> tuple[dict[str, str], bool]:
    """Which output is what, and whether they are those of LiteRT's post-processing.

    Raises:
        ModelError: `model-unfit`.
    """
    known = {role: next((n for n in names if n in runner.outputs), None) for role, names in ROLES.items()}
    roles = {role: output for role, output in known.items() if output is not None}
    processed = sorted(output for output in runner.outputs if re.match(r"TFLite_Detection_PostProcess(:\d)?$", output))
    litert = len(processed) == 4
    if litert:
        roles = dict(zip(LITERT_ORDER, processed, strict=True))
    shapes = {role: runner.outputs[output].shape for role, output in roles.items()}
    if not {"boxes", "classes", "scores"} <= shapes.keys() or shapes["boxes"][-1:] != (4,):
        told = ", ".join(str(spec) for spec in runner.outputs.values())
        raise _unfit(name, f"it gives {told}")
    return roles, litert


def _size(runner: Runner, name: str) -> tuple[int, int]:
    """Height and width of the only input. Raises ModelError `model-unfit`."""
    specs = list(runner.inputs.values())
    shape = specs[0].shape
    if len(specs) != 1 or len(shape) != 4 or shape[0] not in (1, None) or shape[3] != 3 or None in shape[1:3]:
        told = ", ".join(str(spec) for spec in specs)
        raise _unfit(name, f"it takes {told}")
    return int(shape[1] or 0), int(shape[2] or 0)


def _unfit(name: str, why: str) -> ModelError:
    return ModelError("model-unfit", f"{name} is no detector that VisionKit understands: {EXPECTED}; {why}")
