"""Boxes written as changes of other boxes: the four numbers that a detector regresses.

Girshick et al., Rich feature hierarchies, CVPR 2014, appendix C; Ren et al., Faster R-CNN, NIPS 2015, equation 2:
tx = (x - xa) / wa, ty = (y - ya) / ha, tw = log(w / wa), th = log(h / ha), with x and y of the centres.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.geometry.checks import as_boxes

__all__ = ["DELTA_CLIP", "decode_boxes", "encode_boxes"]

Floats = npt.NDArray[Any]
Weights = tuple[float, float, float, float]
DELTA_CLIP = math.log(1000 / 16)  # a box grows 62.5 times at most, before exp() overflows


def _centers_sizes(boxes: Floats, pixel_offset: int) -> tuple[Floats, Floats]:
    sizes = boxes[..., 2:] - boxes[..., :2] + pixel_offset
    return boxes[..., :2] + boxes.dtype.type(0.5) * sizes, sizes


def encode_boxes(
    boxes: npt.ArrayLike, anchors: npt.ArrayLike, weights: Weights = (1, 1, 1, 1), *, pixel_offset: int = 0
) -> Floats:
    """Deltas (..., 4) tx, ty, tw, th times `weights`, that make `boxes` (..., 4) of `anchors`, broadcast.

    Args:
        boxes, anchors: xyxy.
        weights: 1 / the standard deviations of the targets; (10, 10, 5, 5) in the second stage.
        pixel_offset: 1 counts widths as `x2 - x1 + 1`, as py-faster-rcnn does.

    Raises:
        ValueError: a box or an anchor has no area.
    """
    wanted, base = as_boxes(boxes, "boxes", rank=None), as_boxes(anchors, "anchors", rank=None)
    (center, size), (base_center, base_size) = (_centers_sizes(b, pixel_offset) for b in (wanted, base))
    for name, sizes in (("boxes", size), ("anchors", base_size)):
        if not (sizes > 0).all():
            raise ValueError(f"`{name}` must have an area. Received: {int((~(sizes > 0)).any(-1).sum())} without.")
    deltas = np.concatenate([(center - base_center) / base_size, np.log(size / base_size)], axis=-1)
    return deltas * np.asarray(weights, deltas.dtype)


def decode_boxes(
    deltas: npt.ArrayLike,
    anchors: npt.ArrayLike,
    weights: Weights = (1, 1, 1, 1),
    *,
    clip: float | None = DELTA_CLIP,
    pixel_offset: int = 0,
) -> Floats:
    """Boxes (..., 4) xyxy that `deltas` (..., 4) make of `anchors` (..., 4), broadcast.

    Args:
        deltas: tx, ty, tw, th, times `weights`.
        anchors: xyxy.
        weights: as in `encode_boxes`.
        clip: the largest tw and th; None for none, as in py-faster-rcnn.
        pixel_offset: 1 counts the anchors' widths as `x2 - x1 + 1` and, as py-faster-rcnn's code, does not take the 1
            away again at the end: a decoded box is one pixel longer right and below than the one encoded.
    """
    change, base = as_boxes(deltas, "deltas", rank=None), as_boxes(anchors, "anchors", rank=None)
    center, size = _centers_sizes(base, pixel_offset)
    change = change / np.asarray(weights, change.dtype)
    growth = change[..., 2:] if clip is None else np.minimum(change[..., 2:], change.dtype.type(clip))
    middle, half = change[..., :2] * size + center, change.dtype.type(0.5) * (np.exp(growth) * size)
    return np.concatenate([middle - half, middle + half], axis=-1)
