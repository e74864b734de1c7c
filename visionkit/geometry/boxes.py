"""Axis-aligned boxes: float32 (N, 4) xyxy, absolute pixels, continuous (width = x2 - x1, no + 1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["box_centers", "box_sizes", "clip_boxes", "iou_aligned", "iou_pairwise", "xywh_to_xyxy", "xyxy_to_xywh"]

Boxes = npt.NDArray[np.float32]


def _boxes(value: npt.ArrayLike, name: str) -> Boxes:
    boxes = np.asarray(value, dtype=np.float32)
    if boxes.shape[-1:] != (4,):
        raise ValueError(f"`{name}` must end in an axis of length 4. Received: shape={boxes.shape}.")
    return boxes


def xywh_to_xyxy(xywh: npt.ArrayLike) -> Boxes:
    """Boxes (..., 4) given by left, top, width, height as xyxy (..., 4)."""
    boxes = _boxes(xywh, "xywh")
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def xyxy_to_xywh(xyxy: npt.ArrayLike) -> Boxes:
    """Boxes (..., 4) xyxy as left, top, width, height (..., 4)."""
    boxes = _boxes(xyxy, "xyxy")
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def box_centers(xyxy: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Centres (..., 2) as x, y of boxes (..., 4) xyxy."""
    boxes = _boxes(xyxy, "xyxy")
    return (boxes[..., :2] + boxes[..., 2:]) / np.float32(2)


def box_sizes(xyxy: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Widths and heights (..., 2) of boxes (..., 4) xyxy; an inverted box has size 0."""
    boxes = _boxes(xyxy, "xyxy")
    return np.maximum(boxes[..., 2:] - boxes[..., :2], np.float32(0))


def clip_boxes(xyxy: npt.ArrayLike, size_hw: tuple[int, int]) -> Boxes:
    """Boxes (..., 4) xyxy cut to an image of `size_hw`: x in [0, W], y in [0, H]."""
    height, width = size_hw
    return np.clip(_boxes(xyxy, "xyxy"), 0, np.array([width, height, width, height], np.float32))


def _iou(a: Boxes, b: Boxes) -> npt.NDArray[Any]:
    """Intersection over union of broadcastable boxes; 0 where the union is empty."""
    lower, upper = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    inter = np.prod(np.maximum(upper - lower, 0), axis=-1)
    union = np.prod(box_sizes(a), axis=-1) + np.prod(box_sizes(b), axis=-1) - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def iou_aligned(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Intersection over union (N,) of box i of `a` (N, 4) with box i of `b` (N, 4), both xyxy."""
    first, second = _boxes(a, "a"), _boxes(b, "b")
    if first.shape != second.shape:
        raise ValueError(f"`a` and `b` must have one shape. Received: {first.shape} and {second.shape}.")
    return _iou(first, second)


def iou_pairwise(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Intersection over union (N, M) of every box of `a` (N, 4) with every box of `b` (M, 4), both xyxy."""
    return _iou(_boxes(a, "a")[:, None], _boxes(b, "b")[None])
