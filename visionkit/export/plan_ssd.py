"""What an exported SSD is made of: its network, decoding and suppression as `visionkit.tasks.ssd` has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.export.box_match import compare_boxes
from visionkit.export.detector_parts import DetectorParts, detector_parts, served_boxes
from visionkit.export.plan import ExportOptions, ExportPlan
from visionkit.geometry.box_codec import DELTA_CLIP
from visionkit.geometry.ssd_rule import SSDRule

if TYPE_CHECKING:
    import keras

    from visionkit.tasks.detect import Detector
    from visionkit.weights import Card

__all__ = ["CANDIDATES", "ssd_plan"]

Image = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]

CANDIDATES = 1000  # pairs of box and class that go into the suppression, the most probable; memory is its square


def ssd_plan(card: Card, options: ExportOptions) -> ExportPlan:
    """The plan of a card with an SSD. `serve` looks at `CANDIDATES` pairs of box and class above the least score."""
    size_hw = options.size_hw or tuple(card.input["size_hw"])
    # an SSD is of one size: `shortest_side` cannot be, and becomes what it is for networks of one size
    resize = {"shortest_side": "corner"}.get(card.input["resize"], card.input["resize"])
    parts = detector_parts(card, options, size_hw=size_hw, resize=resize, max_det=SSDRule().detections)
    return _Story(parts).plan()


class _Story:
    """An SSD's network, and what is before and behind it."""

    def __init__(self, parts: DetectorParts) -> None:
        self.parts, self.graph = parts, parts.graph
        self.model: keras.Model = parts.network.model()
        self.rule = SSDRule.of_network(parts.network.arguments)
        self.iou = parts.card.options.get("iou", self.rule.nms)
        self._detector: Detector | None = None

    def plan(self) -> ExportPlan:
        rule, name = self.parts.rule, self.model.inputs[0].name

        def raw_inputs(image: Image) -> dict[str, dict[str, Array]]:
            out = np.empty((1, *rule.size_hw, 3), np.float32)
            self.detector.fit((image.shape[0], image.shape[1]))(image, rule, out[0])
            return {"raw": {name: out}}

        return ExportPlan(
            card=self.parts.card,
            model=self.model,
            parts={"": "raw"},
            raw={"raw": self.model},
            fit=rule.pixels,
            expected=lambda images, fixed: self.parts.expected(self.detector, images),
            serve=self.serve,
            tolerances=dict.fromkeys(("boxes", "xyxy", "scores", "classes", "num_detections"), 1e-4),
            raw_inputs=raw_inputs,
            compare=compare_boxes(conf=self.parts.conf, iou=self.iou),
            finest=self.rule.first_stride,
        )

    @property
    def detector(self) -> Detector:
        """The task in Python, on Keras."""
        if self._detector is None:
            from visionkit.runtime.keras_net import KerasRunner
            from visionkit.tasks.ssd import SSDEngine

            self._detector = self.parts.detector(SSDEngine(KerasRunner(self.model, threads=1), self.rule))
        return self._detector

    def serve(self, image: Any, fixed: bool) -> dict[str, Any]:
        answer = self.model(self.graph.inputs(image, fixed), training=False)
        found = self.decoded(answer["class_logits"], answer["box_deltas"])
        return served_boxes(self.graph, image, fixed, found)

    def decoded(self, logits: Any, deltas: Any) -> dict[str, Any]:
        """`xyxy` (B, N, 4) in pixels of the input, `scores` (B, N), `classes` (B, N): `tasks.ssd.decode_ssd` of logits
        (B, A, L) and deltas (B, A, 4)."""
        from visionkit.layers.boxes import decoded
        from visionkit.layers.rows import best_rows, kept_greedily, pick_rows

        tf, rule = self.graph.tf, self.rule
        probs = tf.nn.softmax(tf.cast(logits, tf.float32))[..., 1:]
        boxes, classes = probs.shape[1:]
        flat = tf.reshape(tf.where(probs >= self.parts.conf, probs, -np.inf), (-1, boxes * classes))
        best, index = best_rows(flat, min(CANDIDATES, boxes * classes))
        place, class_id = index // classes, index % classes
        there = (best > -np.inf) & self._among_first(class_id, boxes, classes)
        anchors = tf.gather(tf.constant(rule.anchors()), place)
        height, width = rule.size_hw
        xyxy = decoded(pick_rows(deltas, place), anchors, rule.weights, clip=DELTA_CLIP, pixel_offset=0)
        xyxy = tf.clip_by_value(xyxy, 0.0, np.array([width, height] * 2, np.float32))
        kept = kept_greedily(xyxy, there, self.iou, class_id)
        scores, order = best_rows(tf.where(kept, best, -np.inf), self.parts.max_det)
        return {
            "xyxy": pick_rows(xyxy, order),
            "scores": tf.nn.relu(scores),  # -inf is none
            "classes": tf.squeeze(pick_rows(class_id[..., None], order), -1),
        }

    def _among_first(self, class_id: Any, boxes: int, classes: int) -> Any:
        """Which of candidates (B, M), best first, are among the rule's first of their class; all where that is sure."""
        tf, count = self.graph.tf, class_id.shape[1]
        if min(boxes, count) <= self.rule.candidates:
            return True
        own = tf.one_hot(class_id, classes, axis=-1)  # (B, M, L); a table of all pairs would be 4 MB in the file
        return tf.reduce_sum(tf.cumsum(own, axis=1, exclusive=True) * own, axis=2) < self.rule.candidates
