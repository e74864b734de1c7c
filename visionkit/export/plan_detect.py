"""What an exported detector is made of, by the family that its card is of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visionkit.errors import ModelError
from visionkit.export.plan import ExportOptions, ExportPlan
from visionkit.export.plan_rcnn import rcnn_plan
from visionkit.export.plan_ssd import ssd_plan
from visionkit.geometry.detection_rules import RCNN_RULES

if TYPE_CHECKING:
    from visionkit.weights import Card

__all__ = ["make_plan"]


def make_plan(card: Card, options: ExportOptions) -> ExportPlan:
    """The plan of a detector, by its network's family.

    `serve` gives boxes of at least `detector_parts.SERVED_SCORE` behind the suppression, most probable first, zeros
    behind them: `boxes` float32 (B, N, 4) yxyx in shares of the image, `xyxy` (B, N, 4) in its pixels, `scores` (B, N),
    `classes` int32 (B, N) that count the labels from 0, `num_detections` int32 (B,), of Mask R-CNN `masks`
    (B, N, m, m), the probability of the object over its box.

    Raises:
        ModelError: `network-unfit`, no detector that is exported; the weights are missing, or do not fit.
    """
    if card.network in RCNN_RULES:
        return rcnn_plan(card, options)
    if card.network.startswith("ssd"):
        return ssd_plan(card, options)
    raise ModelError("network-unfit", f"{card.name}: {card.network} is no detector that VisionKit exports.")
