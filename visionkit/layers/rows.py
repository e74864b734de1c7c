"""What the layers on boxes share: rows picked by index in a batch, the best ones first, and greedy suppression."""

from __future__ import annotations

from typing import Any

from keras import ops

__all__ = ["best_rows", "clip_boxes", "kept_greedily", "pick_rows"]


def pick_rows(rows: Any, index: Any) -> Any:
    """Rows (B, K, D) of `rows` (B, N, D) that `index` (B, K) names; one gather from the flattened batch."""
    count, depth = rows.shape[1], rows.shape[2]
    first = ops.arange(ops.shape(rows)[0], dtype="int32")[:, None] * count
    return ops.take(ops.reshape(rows, (-1, depth)), ops.cast(index, "int32") + first, axis=0)


def best_rows(scores: Any, count: int) -> tuple[Any, Any]:
    """The best `count` of scores (B, N), best first, and their indices; -inf at index 0 where there are fewer."""
    there = min(count, scores.shape[1])
    best, index = ops.top_k(scores, there)
    index = ops.cast(index, "int32")
    if there < count:
        margin = [(0, 0), (0, count - there)]
        best, index = ops.pad(best, margin, constant_values=-float("inf")), ops.pad(index, margin)
    return best, index


def clip_boxes(boxes: Any, size_hw: Any, pixel_offset: int = 0) -> Any:
    """Boxes (B, ..., 4) xyxy cut to images of `size_hw` (B, 2)."""
    wide = ops.cast(size_hw, "float32") - float(pixel_offset)
    limit = ops.stack([wide[:, 1], wide[:, 0]] * 2, axis=-1)
    limit = ops.reshape(limit, (-1, *([1] * (len(boxes.shape) - 2)), 4))
    return ops.minimum(ops.maximum(boxes, 0.0), limit)


def _over(boxes: Any, threshold: float, pixel_offset: int) -> Any:
    """Which pairs of boxes (G, M, 4) overlap by more than `threshold`, bool (G, M, M); no area, no overlap."""
    x1, y1, x2, y2 = (boxes[..., k] for k in range(4))
    areas = ops.maximum(x2 - x1 + pixel_offset, 0.0) * ops.maximum(y2 - y1 + pixel_offset, 0.0)
    inter = 1.0
    for low, high in ((x1, x2), (y1, y2)):
        upper = ops.minimum(high[:, :, None], high[:, None])
        inter = inter * ops.maximum(upper - ops.maximum(low[:, :, None], low[:, None]) + pixel_offset, 0.0)
    union = areas[:, :, None] + areas[:, None] - inter
    return inter / ops.where(union > 0, union, 1.0) > threshold


def kept_greedily(boxes: Any, there: Any, threshold: float, groups: Any = None, pixel_offset: int = 0) -> Any:
    """Which boxes stay, bool (G, M): greedy suppression of boxes (G, M, 4) that lie best first.

    Box j falls where a better box i stays and overlaps it. Asked of all boxes at once again and again, this settles on
    the answer of the greedy loop: after t rounds every chain of t suppressions is right. There are as many rounds as
    the longest chain is long, a handful in pictures, and each is a product with a matrix.

    Args:
        boxes: best first.
        there: bool (G, M); the others do not count.
        threshold: the largest intersection over union that two may have and both stay.
        groups: (G, M), where given boxes of different groups do not meet.
        pixel_offset: 1 counts both edge pixels.
    """
    count = boxes.shape[1]
    # Counted out of what is only known in a call: of constants, a converter would store the whole table, M x M.
    place = ops.cumsum(ops.cast(ops.logical_or(there, True), "float32"), axis=1)
    better = place[:, :, None] < place[:, None]
    over = ops.logical_and(_over(boxes, threshold, pixel_offset), better)
    if groups is not None:
        over = ops.logical_and(over, ops.equal(groups[:, :, None], groups[:, None]))
    over, there = ops.cast(over, "float32"), ops.cast(there, "float32")

    def asked(kept: Any) -> Any:
        beaten = ops.squeeze(ops.matmul(kept[:, None], over), axis=1)
        return there * ops.cast(beaten < 0.5, "float32")

    def unsettled(kept: Any, changed: Any) -> Any:
        return changed

    def again(kept: Any, changed: Any) -> tuple[Any, Any]:
        after = asked(kept)
        return after, ops.any(ops.not_equal(after, kept))

    kept, _ = ops.while_loop(unsettled, again, (there, ops.any(there > 0)), maximum_iterations=count + 1)
    return kept > 0.5
