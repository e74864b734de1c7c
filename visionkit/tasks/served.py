"""Tasks over artifacts that hold no networks, only `serving_default`: uint8 images of one size in, results out.

An `.onnx` and an OpenVINO `.xml` are one graph, which is that. What images are brought to is what the card says,
rounded to levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from visionkit.errors import ModelError, UsageError
from visionkit.runtime.base import Array, Runner, Signature, TensorSpec
from visionkit.runtime.steps import float_face
from visionkit.tasks.artifact_network import ArtifactNetwork
from visionkit.tasks.classify import Classifier, ClassifyOptions
from visionkit.tasks.detect import DetectOptions, Detector
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.segment import Segmenter, SegmentOptions

if TYPE_CHECKING:
    from visionkit.weights.artifact import Artifact

__all__ = ["is_served", "served_classifier", "served_detector", "served_segmenter"]

FORMATS = ("onnx", "openvino")
PROBABILITIES = "probabilities"


def is_served(artifact: Artifact | None) -> bool:
    """Whether it holds final results only."""
    return artifact is not None and artifact.format in FORMATS


def served_classifier(artifact: Artifact, rule: InputRule, options: ClassifyOptions, **how: Any) -> Classifier:
    """The classifier in an artifact; `how` is runtime, precision and threads.

    Raises:
        ModelError: `artifact-corrupt`; its outputs are not those of a classifier.
    """
    card = artifact.card
    names = {f"{PROBABILITIES}_{head}": head for head in card.heads} or {PROBABILITIES: PROBABILITIES}
    runner = _opened(artifact, tuple(names), how)
    task = Classifier(
        _Renamed(runner, names),
        rule.levels(),
        labels=dict(card.heads) or card.labels,
        options=options,
        heads=tuple(names.values()),
        activation="none",
    )
    task.model = _facts(artifact, runner)
    return task


def served_segmenter(artifact: Artifact, rule: InputRule, options: SegmentOptions, **how: Any) -> Segmenter:
    """The segmenter in an artifact; `how` as `served_classifier`, which see."""
    from visionkit.tasks.segment_file import segmenter_over

    runner = _opened(artifact, (PROBABILITIES,), how)
    task = segmenter_over(runner, rule.levels(), PROBABILITIES, options, artifact.card.labels)
    task.model = _facts(artifact, runner)
    return task


def served_detector(artifact: Artifact, rule: InputRule, options: DetectOptions, **how: Any) -> Detector:
    """The detector in an artifact; `how` as `served_classifier`, which see. Overlaps are the artifact's own."""
    from visionkit.tasks.detect_file import detector_over

    if options.iou is not None and options.iou != artifact.card.options.get("iou"):
        raise UsageError("option-unfit", f"{artifact.path.name} suppresses overlaps itself: leave iou out.")
    runner = _opened(artifact, ("boxes", "scores", "classes"), how)
    task = detector_over(runner, rule.levels(), options, artifact.card.labels, name=artifact.path.name, first_class=0)
    task.model = _facts(artifact, runner)
    return task


def _opened(artifact: Artifact, outputs: Sequence[str], how: Mapping[str, Any]) -> Runner:
    """The artifact's one graph, floats in and out, which must have these outputs and take one image of a size."""
    from visionkit.runtime import compile_model

    runner = float_face(compile_model(artifact.path, **how))
    runner.precision = artifact.kind if runner.precision == "file" else runner.precision
    shape = next(iter(runner.inputs.values())).shape
    told = tuple(artifact.card.input.get("size_hw", ()))
    if len(runner.inputs) != 1 or shape[1:] != (*told, 3) or not set(outputs) <= set(runner.outputs):
        runner.close()
        found = ", ".join(str(spec) for spec in (*runner.inputs.values(), *runner.outputs.values()))
        raise ModelError(
            "artifact-corrupt",
            f"The artifact {artifact.path} cannot be used: it has {found}; its description wants {told} and "
            f"{', '.join(outputs)}. Get it again.",
        )
    return runner


def _facts(artifact: Artifact, runner: Runner) -> dict[str, str]:
    return ArtifactNetwork(artifact).facts(runner)


class _Renamed(Runner):
    """A runner of which some outputs are seen, under other names."""

    def __init__(self, inner: Runner, names: Mapping[str, str]) -> None:
        outputs = tuple(
            TensorSpec(name, inner.outputs[old].shape, inner.outputs[old].dtype) for old, name in names.items()
        )
        super().__init__(
            inner.name,
            Signature(tuple(inner.inputs.values()), outputs),
            threads=inner.threads,
            precision=inner.precision,
        )
        self.native, self._inner, self._names = inner.native, inner, dict(names)

    def __call__(self, /, **arrays: Array) -> dict[str, Array]:
        found = self._inner(**arrays)
        return {name: found[old] for old, name in self._names.items()}

    def _release(self) -> None:
        self._inner.close()
