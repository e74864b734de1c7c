"""Proposals: of all anchors of a picture, moved as the network says, the few that are looked at again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.geometry.box_codec import DELTA_CLIP, Weights, decode_boxes
from visionkit.geometry.checks import as_boxes, as_floats
from visionkit.geometry.nms import nms as suppress

__all__ = ["select_proposals"]

Floats = npt.NDArray[Any]


def select_proposals(
    objectness: Sequence[npt.ArrayLike],
    deltas: Sequence[npt.ArrayLike],
    anchors: Sequence[npt.ArrayLike],
    size_hw: tuple[float, float],
    *,
    pre_nms: int,
    post_nms: int,
    nms: float = 0.7,
    min_size: float = 1e-3,
    score: float = 0.0,
    weights: Weights = (1, 1, 1, 1),
    delta_clip: float | None = DELTA_CLIP,
    pixel_offset: int = 0,
) -> tuple[Floats, Floats]:
    """The best boxes (K, 4) xyxy and their scores (K,), best first: torchvision's `filter_proposals` for one image.

    Of each level the `pre_nms` anchors of highest objectness are moved, cut to the image, dropped where smaller than
    `min_size` or below `score`, and suppressed level by level; the best `post_nms` of all levels stay. Their order is
    that of the logits; torchvision's is that of the probabilities, which are alike where logits are large. Ren et al.,
    Faster R-CNN, NIPS 2015, section 3.3, is the case of one level: with `pre_nms=6000, post_nms=300` and, for
    py-faster-rcnn's own boxes, `min_size=16 * scale, delta_clip=None, pixel_offset=1`.

    Args:
        objectness: of each level logits of any shape, anchors in the order of `anchors`: (H, W, A).
        deltas: of each level, as many times four: (H, W, 4 A).
        anchors: of each level (H * W * A, 4) xyxy.
        size_hw: of the image without padding, in the anchors' pixels.
        pre_nms: how many of each level at most, before the suppression.
        post_nms: how many of all, after it.
        nms: intersection over union above which the worse of two boxes is dropped.
        min_size: smallest side in pixels.
        score: smallest probability.
        weights: of the codec.
        delta_clip: of the codec.
        pixel_offset: 1 counts both edge pixels as py-faster-rcnn does, in the codec, the cut, sizes and overlaps.
    """
    if not len(objectness) == len(deltas) == len(anchors) > 0:
        raise ValueError(
            "`objectness`, `deltas` and `anchors` must be one for each level. "
            f"Received: {len(objectness)}, {len(deltas)} and {len(anchors)}."
        )
    if pre_nms < 1 or post_nms < 1:
        raise ValueError(f"`pre_nms` and `post_nms` must be positive. Received: {pre_nms} and {post_nms}.")
    boxes, scores = [], []
    for logits, change, base in zip(objectness, deltas, anchors, strict=True):
        found, rank = _best(logits, change, base, pre_nms, weights, delta_clip, pixel_offset)
        limit = np.array([size_hw[1], size_hw[0]] * 2, found.dtype) - pixel_offset
        found = np.clip(found, 0, limit)
        sides = found[:, 2:] - found[:, :2] + pixel_offset
        there = (sides >= min_size).all(axis=-1) & (_sigmoid(rank) >= score)
        found, rank = found[there], rank[there]
        kept = suppress(found, rank, nms, pixel_offset=pixel_offset)
        boxes.append(found[kept])
        scores.append(rank[kept])
    together, ranks = np.concatenate(boxes), np.concatenate(scores)
    order = np.argsort(-ranks, kind="stable")[:post_nms]
    return together[order], _sigmoid(ranks[order])


def _sigmoid(logits: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-logits))


def _best(
    objectness: npt.ArrayLike,
    deltas: npt.ArrayLike,
    anchors: npt.ArrayLike,
    count: int,
    weights: Weights,
    clip: float | None,
    pixel_offset: int,
) -> tuple[Floats, Floats]:
    """The `count` best boxes of a level before they are cut, and their logits, best first."""
    logits, base = as_floats(objectness).ravel(), as_boxes(anchors, "anchors")
    change = as_floats(deltas)
    if change.size != 4 * logits.size or len(base) != logits.size:
        raise ValueError(
            "A level's `deltas` must be four, and its `anchors` one, for each number of its `objectness`. "
            f"Received: {change.shape}, {base.shape} and {np.shape(objectness)}."
        )
    order = np.argsort(-logits, kind="stable")[:count]
    boxes = decode_boxes(change.reshape(-1, 4)[order], base[order], weights, clip=clip, pixel_offset=pixel_offset)
    return boxes, logits[order]
