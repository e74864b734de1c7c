"""What an exported segmenter is made of: its network, and enlarging, classes and dense CRF around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import UsageError
from visionkit.export.input_graph import SegmentGraph
from visionkit.export.plan import ExportOptions, ExportPlan
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.load_segment import TRAINED_CRF, without_resizing
from visionkit.tasks.network import CardNetwork
from visionkit.tasks.score_maps import label_type
from visionkit.tasks.segment import Segmenter, SegmentOptions
from visionkit.tasks.segment_fit import SizeOptions
from visionkit.tasks.segment_network import SegmentNetwork

if TYPE_CHECKING:
    import keras

    from visionkit.crf import CRFParams
    from visionkit.layers.dense_crf import DenseCRF
    from visionkit.weights import Card

__all__ = ["make_plan"]

Image = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
Size = tuple[int, int]

PROBABILITIES, CLASS_MAP = "probabilities", "class_map"
TOLERANCE = 1e-4
CLEAR = 1e-3  # a pixel's class counts where the first two probabilities are this far apart
# A CRF in Python filters by a lattice, in a graph by a coarser one: their means, and their clear classes, are compared.
CRF_TOLERANCE, CRF_CLEAR = 0.01, 0.05
SMALLEST = 1e-5  # as `visionkit.crf.unary_from_probs`
KEPT_OPTIONS = ("confidence", "palette")  # of a card: the others choose sizes, and an artifact has one


def make_plan(card: Card, options: ExportOptions) -> ExportPlan:
    """The plan of a segmenter: `class_map` uint8 (B, H, W), uint16 for more than 256 classes, and `probabilities`
    float32 (B, H, W, L), at the size of the image.

    The network has one size; an image of a card of `shortest_side` is stretched to it, as by `load_segmenter` with
    that `size_hw`. With a CRF, `serving_default` refines at the image's size; the networks of VisionKit's own loading
    stay without, and it refines by the parameters that the description has.

    Raises:
        UsageError: `option-unfit`, a CRF in a format that cannot hold it.
        ModelError: the weights are missing, or do not fit.
    """
    if options.crf is not None and options.format != "savedmodel":
        raise UsageError(
            "option-unfit",
            f"a dense CRF goes into a SavedModel only, its filters are more than {options.format} has. Export without, "
            "and refine in VisionKit: `visionkit segment --crf`.",
        )
    size_hw = options.size_hw or (int(card.input["size_hw"][0]), int(card.input["size_hw"][1]))
    described = _described(card, size_hw)
    classes = {} if "classes" in card.args or not card.labels else {"classes": len(card.labels)}
    network = CardNetwork(
        card,
        weights=options.weights,
        arguments={**classes, "size_hw": size_hw},
        notice=options.notice,
        progress=options.progress,
    )
    return _Story(described, network.model(), options.crf).plan()


class _Story:
    """A segmenter's network, and what is before and behind it."""

    def __init__(self, card: Card, model: keras.Model, crf: CRFParams | DenseCRF | None) -> None:
        self.card, self.model, self.low = card, model, without_resizing(model)
        self.rule = InputRule.from_card(card)
        self.graph = SegmentGraph(self.rule)
        self.classes = int(self.low.output.shape[-1])
        self.layer: Any = _layer(crf)
        self.trained = self.layer is not None and self.layer is crf
        self.params: Any = None if self.trained else crf
        if self.layer is not None and not self.layer.built:
            self.layer.build([(None, None, None, self.classes), (None, None, None, 3)])
        self._task: Segmenter | None = None

    def plan(self) -> ExportPlan:
        inputs = self.low.inputs[0].name
        owners = [self.model, self.low] + ([] if self.layer is None else [self.layer])
        refined = self.layer is not None
        tolerance = CRF_TOLERANCE if refined else TOLERANCE
        return ExportPlan(
            card=self.card,
            model=self.model,
            parts={"low": "raw"},
            raw={"raw": self.low},
            fit=self.rule.pixels,
            expected=lambda images, fixed: [self._answer(image) for image in images],
            serve=self.serve,
            variables=owners,
            tolerances={PROBABILITIES: tolerance, CLASS_MAP: tolerance if refined else 0.0},
            raw_inputs=lambda image: {"raw": {inputs: self.rule(image)[None]}},
            compare=compare_refined if refined else compare_maps,
            notes={"crf": self._told_crf()} if refined else {},
        )

    def _told_crf(self) -> dict[str, Any] | str:
        """The CRF as `load_segmenter` refines by it: its parameters, or that it has learnt others."""
        return TRAINED_CRF if self.trained else dataclasses.asdict(self.params)

    @property
    def task(self) -> Segmenter:
        """The task in Python, on Keras, without a trained CRF."""
        if self._task is None:
            from visionkit.runtime.keras_net import KerasRunner

            size = SizeOptions(max_pixels=1 << 40)  # one pass, however large
            network = SegmentNetwork(lambda size_hw, known: [KerasRunner(self.low, threads=1)])
            self._task = Segmenter(network, self.rule, SegmentOptions(size=size, crf=self.params))
        return self._task

    def serve(self, image: Any, fixed: bool) -> dict[str, Any]:
        tf = self.graph.tf
        found = self.low(self.graph.inputs(image, fixed), training=False)
        probs = self.refined(self.graph.logits(found, image, fixed), image)
        kind = tf.as_dtype(label_type(self.classes))
        return {CLASS_MAP: tf.cast(tf.argmax(probs, axis=-1, output_type=tf.int32), kind), PROBABILITIES: probs}

    def refined(self, logits: Any, image: Any) -> Any:
        """Probabilities (B, H, W, L) of logits at the size of the images, behind the CRF where there is one."""
        tf = self.graph.tf
        if self.layer is None:
            return tf.nn.softmax(logits)
        if not self.trained:  # a layer wants the logits it was trained on
            logits = tf.math.log(tf.clip_by_value(tf.nn.softmax(logits), SMALLEST, 1.0))
        out = self.layer([logits, image])
        return out if self.layer.output_kind == "marginals" else tf.nn.softmax(out)

    def _answer(self, image: Image) -> dict[str, Array]:
        probs = self.task.probs(image)
        if self.trained:
            tf = self.graph.tf
            logits = np.log(np.maximum(probs, np.float32(1e-30)))[None]  # up to a number a pixel, which means nothing
            probs = np.asarray(self.refined(tf.constant(logits), tf.constant(image[None, ..., ::-1])))[0]
        labels = probs.argmax(axis=2).astype(label_type(self.classes))
        return {CLASS_MAP: labels, PROBABILITIES: probs}


def compare_maps(
    served: Mapping[str, Array], expected: Mapping[str, Array], output: str, tolerance: float
) -> float | None:
    """The share of clear pixels whose class is another one; of probabilities the largest difference."""
    del tolerance
    return _other_classes(served, expected, CLEAR) if output == CLASS_MAP else None


def compare_refined(
    served: Mapping[str, Array], expected: Mapping[str, Array], output: str, tolerance: float
) -> float | None:
    """As `compare_maps` behind a CRF: the mean difference, and pixels count that are clearer."""
    del tolerance
    if output == CLASS_MAP:
        return _other_classes(served, expected, CRF_CLEAR)
    first, second = served[PROBABILITIES], expected[PROBABILITIES]
    return float(np.abs(first - second).mean()) if first.shape == second.shape else float("inf")


def _other_classes(served: Mapping[str, Array], expected: Mapping[str, Array], clear: float) -> float:
    labels, wanted = served[CLASS_MAP], expected[CLASS_MAP]
    if labels.shape != wanted.shape or labels.dtype != wanted.dtype:
        return float("inf")
    first_two = np.sort(expected[PROBABILITIES], axis=-1)[..., -2:]
    counted = first_two[..., 1] - first_two[..., 0] > clear
    return float((labels != wanted)[counted].mean()) if counted.any() else 0.0


def _layer(crf: CRFParams | DenseCRF | None) -> Any:
    if crf is None:
        return None
    from visionkit.layers.dense_crf import DenseCRF

    if isinstance(crf, DenseCRF):
        return crf
    return DenseCRF(**dataclasses.asdict(crf), output="marginals", name="crf")


def _described(card: Card, size_hw: Size) -> Card:
    """The card with one size of input, which an image fills."""
    told: dict[str, Any] = {**card.input, "size_hw": list(size_hw)}
    if told["resize"] == "shortest_side":
        told["resize"] = "stretch"
    told.pop("resize_size", None)
    kept = {key: card.options[key] for key in KEPT_OPTIONS if key in card.options}
    return dataclasses.replace(card, input=told, options=kept)
