"""What an exported two-stage detector is made of: parts that VisionKit runs one by one, and the whole as one graph."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.export.box_match import compare_boxes
from visionkit.export.detector_parts import DetectorParts, detector_parts, served_boxes
from visionkit.export.plan import ExportOptions, ExportPlan
from visionkit.geometry.detection_rules import rcnn_rule
from visionkit.runtime.quiet import import_keras

if TYPE_CHECKING:
    import keras

    from visionkit.tasks.detect import Detector
    from visionkit.weights import Card

__all__ = ["rcnn_plan"]

Image = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]

MULTIPLE = 32
OUTPUTS = ("boxes", "xyxy", "scores", "classes", "num_detections")
# the parts as `visionkit.tasks.load_detect` asks for them
PARTS = {"trunk": "raw_trunk", "box_head": "raw_box_head", "mask_head": "raw_mask_head"}


def rcnn_plan(card: Card, options: ExportOptions) -> ExportPlan:
    """The plan of a card with a detector of the R-CNN family, for inputs of one size.

    Images go in at the upper left, with zeros behind them: what `shortest_side` does, for one size.

    Raises:
        ModelError: `network-unfit`, it takes proposals; `size-unfit`.
    """
    if card.network == "fast_rcnn_vgg16":
        raise ModelError("network-unfit", f"{card.name}: {card.network} takes proposals, and is not exported.")
    size_hw = options.size_hw or card.args.get("size_hw") or _rounded(card.input["size_hw"])
    if any(side % MULTIPLE or side <= 0 for side in size_hw):
        raise ModelError(
            "size-unfit",
            f"{card.name} takes inputs whose sides are multiples of {MULTIPLE}. Received: size_hw={tuple(size_hw)}.",
        )
    changes = dict(card.args.get("rule") or {})
    if "iou" in card.options:
        changes["nms"] = card.options["iou"]
    rule = rcnn_rule(card.network, changes)
    resize = {"shortest_side": "corner"}.get(card.input["resize"], card.input["resize"])
    parts = detector_parts(card, options, size_hw=(size_hw[0], size_hw[1]), resize=resize, max_det=rule.max_det)
    if changes:
        parts.network.arguments["rule"] = changes
    return _Story(dataclasses.replace(parts, conf=rule.score)).plan()


class _Story:
    """A two-stage network, its parts, and what is before and behind it."""

    def __init__(self, parts: DetectorParts) -> None:
        from visionkit.nets.rcnn import rcnn_parts
        from visionkit.tasks.rcnn import MASK_ROWS, box_rows

        self.parts, self.graph = parts, parts.graph
        self.model: keras.Model = parts.network.model()
        self.rule = rcnn_rule(parts.card.network, parts.network.arguments.get("rule"))
        cut = rcnn_parts(self.model)
        self.raw = {PARTS["trunk"]: cut.trunk, PARTS["box_head"]: _with_rows(cut.box_head, box_rows(self.rule))}
        if cut.mask_head is not None:
            self.raw[PARTS["mask_head"]] = _with_rows(cut.mask_head, MASK_ROWS)
        self._detector: Detector | None = None

    def plan(self) -> ExportPlan:
        rule = self.parts.rule

        def raw_inputs(image: Image) -> dict[str, dict[str, Array]]:
            out = np.empty((1, *rule.size_hw, 3), np.float32)
            self.detector.fit((image.shape[0], image.shape[1]))(image, rule, out[0])
            return {PARTS["trunk"]: {"image": out}}

        masks = ("masks",) if PARTS["mask_head"] in self.raw else ()
        return ExportPlan(
            card=self.parts.card,
            model=self.model,
            parts={part: name for part, name in PARTS.items() if name in self.raw},
            raw=self.raw,
            fit=rule.pixels,
            expected=lambda images, fixed: self.parts.expected(self.detector, images),
            serve=self.serve,
            variables=[self.model],
            tolerances=dict.fromkeys((*OUTPUTS, *masks), 1e-4),
            raw_inputs=raw_inputs,
            compare=compare_boxes(conf=self.parts.conf, iou=self.rule.nms),
        )

    @property
    def detector(self) -> Detector:
        """The task in Python, its networks on Keras."""
        if self._detector is None:
            from visionkit.runtime.keras_net import KerasRunner
            from visionkit.tasks.rcnn import RCNNPipeline, RCNNRunners

            runners = RCNNRunners(*(KerasRunner(model, threads=1) for model in self.raw.values()))
            self._detector = self.parts.detector(RCNNPipeline(runners, self.rule))
        return self._detector

    def serve(self, image: Any, fixed: bool) -> dict[str, Any]:
        graph, most = self.graph, self.parts.max_det
        given = {"image": graph.inputs(image, fixed), "valid_hw": graph.valid_hw(image, fixed)}
        found = self.model([given[tensor.name] for tensor in self.model.inputs], training=False)
        told = {"xyxy": found["boxes"], "scores": found["scores"], "classes": found["class_id"] - 1}
        if "masks" in found:
            told["masks"] = found["masks"]
        return served_boxes(graph, image, fixed, {name: part[:, :most] for name, part in told.items()})


def _with_rows(head: keras.Model, rows: int) -> keras.Model:
    """A head for a fixed number of boxes, which is what the loops between the parts fill."""
    keras = import_keras()
    (given,) = head.inputs
    rois = keras.Input(batch_shape=(rows, *given.shape[1:]), name=given.name)
    return keras.Model(rois, head.call(rois), name=head.name)


def _rounded(size_hw: Any) -> tuple[int, int]:
    height, width = (-(-int(side) // MULTIPLE) * MULTIPLE for side in size_hw)
    return height, width
