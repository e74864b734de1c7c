"""What the plans of all detectors have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.export.input_graph import DetectGraph
from visionkit.export.plan import ExportOptions
from visionkit.tasks.detect import DetectOptions, Detector
from visionkit.tasks.detect_network import DetectEngine, DetectNetwork
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.load_detect import class_arguments
from visionkit.tasks.network import CardNetwork

if TYPE_CHECKING:
    from visionkit.weights import Card

__all__ = ["SERVED_SCORE", "DetectorParts", "detector_parts", "served_boxes"]

Image = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
Size = tuple[int, int]

SERVED_SCORE = 0.05  # the least of what `serving_default` tells, or the card's `conf` where that is less


@dataclasses.dataclass
class DetectorParts:
    """What the plans of all families begin with.

    Args:
        card: as it is described: labels without the background, the input's size.
        rule: of the input, of one size.
        network: of the card at that size.
        graph: the rule as operations.
        conf: the least score that is told.
        max_det: N.
    """

    card: Card
    rule: InputRule
    network: CardNetwork
    graph: DetectGraph
    conf: float
    max_det: int

    def detector(self, engine: DetectEngine) -> Detector:
        """The task in Python over one engine, which tells as much as `serve`."""
        options = DetectOptions(conf=self.conf, iou=self.card.options.get("iou"), max_det=self.max_det)
        return Detector(DetectNetwork(lambda size, known: [engine]), self.rule, options, labels=self.card.labels)

    def expected(self, detector: Detector, images: Sequence[Image]) -> list[dict[str, Array]]:
        """What the task says of images uint8 (H, W, 3) BGR, in the words of `serve`."""
        return [self._answer(detector, image) for image in images]

    def _answer(self, detector: Detector, image: Image) -> dict[str, Array]:
        (found,) = detector.raw([image])
        height, width = image.shape[:2]
        shares = (found.xyxy / np.array([width, height] * 2, np.float32))[:, [1, 0, 3, 2]]
        told: dict[str, Array] = {
            "boxes": shares,
            "xyxy": found.xyxy,
            "scores": found.scores,
            "classes": found.classes.astype(np.int32),
        }
        if found.masks is not None:
            told["masks"] = found.masks
        more = self.max_det - len(found.xyxy)
        filled = {name: np.pad(part, [(0, more)] + [(0, 0)] * (part.ndim - 1)) for name, part in told.items()}
        return {**filled, "num_detections": np.asarray(len(found.xyxy), np.int32)}


def detector_parts(card: Card, options: ExportOptions, *, size_hw: Size, resize: str, max_det: int) -> DetectorParts:
    """The beginning of a detector's plan.

    Args:
        card: as it is written.
        options: of the export.
        size_hw: of the network's input.
        resize: of the input's rule, in the place of the card's.
        max_det: the network's N, in the place of which the card may have one.
    """
    told = {**card.input, "size_hw": list(size_hw), "resize": resize}
    labels = Detector(DetectNetwork(_never), InputRule.preset("raw", size_hw), labels=card.labels).labels
    described = dataclasses.replace(card, input=told, labels=labels, options=_told_options(card))
    rule = InputRule.from_card(described)
    network = CardNetwork(
        card,
        weights=options.weights,
        arguments={**class_arguments(card), "size_hw": size_hw},
        notice=options.notice,
        progress=options.progress,
    )
    conf = min(SERVED_SCORE, card.options.get("conf", SERVED_SCORE))
    return DetectorParts(
        described, rule, network, DetectGraph(rule), conf, min(max_det, card.options.get("max_det", max_det))
    )


def _told_options(card: Card) -> dict[str, Any]:
    """The card's options, and those that the task takes where the card has none: a file's users look for them."""
    usual = DetectOptions()
    known = {name: getattr(usual, name) for name in ("conf", "iou", "max_det")}
    return {**{name: value for name, value in known.items() if value is not None}, **card.options}


def served_boxes(graph: DetectGraph, image: Any, fixed: bool, found: dict[str, Any]) -> dict[str, Any]:
    """The results by name of `xyxy` (B, N, 4) in pixels of the input, `scores` (B, N), 0 where there is none, `classes`
    int32 (B, N) from 0, and `masks` where there are some. Boxes without an area in the image go."""
    from visionkit.layers.rows import best_rows, pick_rows

    tf = graph.tf
    boxes = graph.to_image(found["xyxy"], image, fixed)
    scores = found["scores"]
    there = tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1) & (scores > 0.0)
    best, place = best_rows(tf.where(there, scores, -np.inf), scores.shape[1])  # those that stay move up, in order
    there = best > -np.inf
    boxes = tf.where(there[..., None], pick_rows(boxes, place), 0.0)
    classes = tf.squeeze(pick_rows(found["classes"][..., None], place), -1)
    told = {
        "boxes": _shares(graph, boxes, image, fixed),
        "xyxy": boxes,
        "scores": tf.where(there, best, 0.0),
        "classes": tf.where(there, classes, 0),
        "num_detections": tf.reduce_sum(tf.cast(there, tf.int32), axis=1),
    }
    if "masks" in found:
        masks = found["masks"]
        side = masks.shape[-1]
        flat = pick_rows(tf.reshape(masks, (-1, masks.shape[1], side * side)), place)
        told["masks"] = tf.reshape(tf.where(there[..., None], flat, 0.0), (-1, masks.shape[1], side, side))
    return told


def _shares(graph: DetectGraph, boxes: Any, image: Any, fixed: bool) -> Any:
    tf = graph.tf
    if fixed:
        height, width = (float(side) for side in graph.rule.size_hw)
    else:
        height, width = tf.unstack(tf.cast(tf.shape(image)[1:3], tf.float32))
    return tf.stack([boxes[..., 1] / height, boxes[..., 0] / width, boxes[..., 3] / height, boxes[..., 2] / width], -1)


def _never(size_hw: Size, runtime: str | None) -> Sequence[DetectEngine]:
    raise RuntimeError("this network is not run")
