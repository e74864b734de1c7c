"""What detectors of the R-CNN family know beside their weights, as rows of data: anchors, codecs, thresholds, counts.

Networks, tasks, training and export read the same row; here, as this room needs no Keras. Values are torchvision's at
inference (torchvision/models/detection), those on VGG-16 py-faster-rcnn's (lib/fast_rcnn/config.py, TEST).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from visionkit.geometry.anchors import Boxes, cell_anchors, faster_rcnn_anchors
from visionkit.geometry.box_codec import DELTA_CLIP

__all__ = ["RCNN_RULES", "RCNNRule", "rcnn_rule"]

Weights = tuple[float, float, float, float]


@dataclass(frozen=True)
class RCNNRule:
    """The rule of one two-stage detector.

    Args:
        anchor_sizes: of each map that the RPN sees, the sides in pixels; `anchor_ratios`, height by width, of each.
        roi_levels: the first and the last level that boxes are pooled from; level k has stride 2**k.
        canonical: a box of this side in pixels belongs to this level (Lin et al., CVPR 2017, equation 1).
        roi_side, mask_roi_side: cells of a pooled box, for its class and for its mask.
        sampling: points of each cell, by axis.
        anchor_weights, box_weights: of the codecs of proposals and of final boxes.
        pre_nms: proposals of each map before the suppression; `post_nms` of all maps after it.
        proposal_nms, proposal_score, proposal_min_size: of that suppression: IoU above which, probability and side in
            pixels below which a proposal goes.
        score, nms, min_size, max_det: the same of final boxes, and how many are kept; here the score must be above.
        pooling: `align` (RoIAlign) or `max` (RoI pooling).
        pixel_offset: 1 counts both edge pixels of a box, as py-faster-rcnn does, which also places its anchors so.
        delta_clip: the largest logarithm of a growth; None for none.
    """

    anchor_sizes: tuple[tuple[float, ...], ...] = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    roi_levels: tuple[int, int] = (2, 5)
    canonical: tuple[int, int] = (224, 4)
    roi_side: int = 7
    mask_roi_side: int = 14
    sampling: int = 2
    anchor_weights: Weights = (1.0, 1.0, 1.0, 1.0)
    box_weights: Weights = (10.0, 10.0, 5.0, 5.0)
    pre_nms: int = 1000
    post_nms: int = 1000
    proposal_nms: float = 0.7
    proposal_score: float = 0.0
    proposal_min_size: float = 1e-3
    score: float = 0.05
    nms: float = 0.5
    min_size: float = 1e-2
    max_det: int = 100
    pooling: str = "align"
    pixel_offset: int = 0
    delta_clip: float | None = DELTA_CLIP

    def __post_init__(self) -> None:
        for name in ("pre_nms", "post_nms", "max_det", "roi_side", "mask_roi_side", "sampling"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}.")
        for name in ("proposal_nms", "proposal_score", "score", "nms"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` must be from 0 to 1. Received: {name}={value!r}.")
        if self.pooling not in ("align", "max") or self.pixel_offset not in (0, 1):
            raise ValueError(
                "`pooling` must be align or max, `pixel_offset` 0 or 1. "
                f"Received: pooling={self.pooling!r}, pixel_offset={self.pixel_offset!r}."
            )
        low, high = self.roi_levels
        if not 0 <= low <= high:
            raise ValueError(f"`roi_levels` must be two levels in order. Received: roi_levels={self.roi_levels!r}.")

    @property
    def anchors(self) -> int:
        """Anchors at each position, the same on all maps."""
        return len(self.anchor_sizes[0]) * len(self.anchor_ratios)

    def cells(self) -> list[Boxes]:
        """Of each map the anchors (A, 4) of its first cell."""
        if not self.pixel_offset:
            return [cell_anchors(sizes, self.anchor_ratios) for sizes in self.anchor_sizes]
        base = 16
        return [
            faster_rcnn_anchors(base=base, ratios=self.anchor_ratios, scales=[size / base for size in sizes])
            for sizes in self.anchor_sizes
        ]

    @property
    def roi_maps(self) -> int:
        """How many maps boxes are pooled from."""
        return self.roi_levels[1] - self.roi_levels[0] + 1

    @property
    def roi_scales(self) -> tuple[float, ...]:
        """Cells per pixel of each of these maps."""
        return tuple(0.5**level for level in range(self.roi_levels[0], self.roi_levels[1] + 1))

    def but(self, changes: Mapping[str, Any]) -> RCNNRule:
        """The same rule with other values.

        Raises:
            ValueError: a name that is not in the rule, or a value out of its range.
        """
        known = [item.name for item in fields(self)]
        if unknown := sorted(set(changes) - set(known)):
            raise ValueError(f"a rule has no {', '.join(unknown)}. Known: {', '.join(known)}.")
        return replace(self, **{key: _tuples(value) for key, value in changes.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


_RESNET = RCNNRule()
# both maps of the backbone have stride 32, and every box is pooled from the first
_MOBILE = RCNNRule(
    anchor_sizes=((32.0, 64.0, 128.0, 256.0, 512.0),) * 3,
    roi_levels=(5, 5),
    proposal_score=0.05,
)

_PUBLISHED = RCNNRule(
    anchor_sizes=((128.0, 256.0, 512.0),),
    roi_levels=(4, 4),
    pre_nms=6000,
    post_nms=300,
    proposal_min_size=16.0,
    nms=0.3,
    min_size=0.0,
    pooling="max",
    pixel_offset=1,
    delta_clip=None,
)

RCNN_RULES: Mapping[str, RCNNRule] = MappingProxyType(
    {
        "fasterrcnn_resnet50_fpn": _RESNET,
        "fasterrcnn_resnet50_fpn_v2": _RESNET,
        "fasterrcnn_mobilenet_v3_large_fpn": _MOBILE,
        "fasterrcnn_mobilenet_v3_large_320_fpn": replace(_MOBILE, pre_nms=150, post_nms=150),
        "maskrcnn_resnet50_fpn": _RESNET,
        "maskrcnn_resnet50_fpn_v2": _RESNET,
        "fasterrcnn_vgg16": _PUBLISHED,
        "fast_rcnn_vgg16": _PUBLISHED,
    }
)


def rcnn_rule(network: str, changes: Mapping[str, Any] | None = None) -> RCNNRule:
    """The rule of a network of `visionkit.nets`, with some values changed.

    Raises:
        ValueError: no such network, or a name or value that a rule does not have.
    """
    if network not in RCNN_RULES:
        raise ValueError(f"`network` must be one of {', '.join(RCNN_RULES)}. Received: network={network!r}.")
    return RCNN_RULES[network].but(changes or {})
