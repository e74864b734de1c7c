"""The regions of an image that a second stage learns from, drawn from proposals and objects inside of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

__all__ = ["RegionSampling"]


@keras.saving.register_keras_serializable(package="visionkit")
class RegionSampling(keras.layers.Layer):
    """Regions with their classes and targets (Girshick, Fast R-CNN, ICCV 2015, section 2.3, "mini-batch sampling").

    Called with `[boxes, count, objects]`: proposals (B, R, 4), of which the first `count` (B,) are some, and objects
    (B, M, 5), class and box; a class of -1 is no object, of -2 one that does not count. Gives a dictionary of `boxes`
    (B, S, 4), `labels` float32 (B, S), the class plus 1, 0 for background, -1 where there are too few regions, and
    `targets` (B, S, 4). The objects are regions themselves, as in torchvision. Nothing is passed back.

    Args:
        regions: S.
        share: of the regions that have an object, at most.
        overlap: intersection over union with an object from which a region has it; below is background.
        weights: of the targets.
        pixel_offset: 1 counts widths as `x2 - x1 + 1`, as py-faster-rcnn does.
    """

    def __init__(
        self,
        regions: int = 128,
        *,
        share: float = 0.25,
        overlap: float = 0.5,
        weights: Sequence[float] = (10, 10, 5, 5),
        pixel_offset: int = 0,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        if regions < 1 or not 0 <= share <= 1 or not 0 < overlap <= 1:
            raise ValueError(
                "`regions` must be positive, `share` and `overlap` fractions. "
                f"Received: regions={regions}, share={share}, overlap={overlap}."
            )
        self.regions, self.share, self.overlap, self.seed = regions, share, overlap, seed
        self.pixel_offset = pixel_offset
        self.weights_xywh = tuple(float(w) for w in weights)
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any) -> dict[str, Any]:
        """The sample, see the class."""
        boxes, count, objects = (ops.stop_gradient(x) for x in inputs)
        truth, kinds = ops.cast(objects[..., 1:], "float32"), ops.cast(objects[..., 0], "int32")
        boxes = ops.cast(boxes, "float32")
        there = ops.arange(boxes.shape[1], dtype="int32")[None] < ops.cast(count, "int32")[:, None]
        boxes = ops.concatenate([boxes, truth], axis=1)
        there = ops.concatenate([there, kinds >= 0], axis=1)
        inter, areas, others = _overlaps(boxes, truth, float(self.pixel_offset))
        union = areas + others - inter
        iou = ops.where(
            ops.logical_and(kinds[:, None] >= 0, union > 0), inter / ops.maximum(union, 1e-6), -1.0
        )  # (B, N, M)
        best, most = ops.argmax(iou, axis=-1), ops.max(iou, axis=-1)
        positive = ops.logical_and(there, most >= self.overlap)
        passed = ops.any(ops.logical_and(kinds[:, None] == -2, inter >= 0.5 * ops.maximum(areas, 1e-6)), axis=-1)
        negative = ops.logical_and(there, ops.logical_and(most < self.overlap, ops.logical_not(passed)))
        labels = ops.where(positive, ops.take_along_axis(kinds, best, axis=1) + 1, 0)
        chosen, counted = self._drawn(positive, negative)
        picked = ops.take_along_axis(boxes, chosen[..., None], axis=1)
        aims = ops.take_along_axis(truth, ops.take_along_axis(best, chosen, axis=1)[..., None], axis=1)
        labels = ops.where(counted, ops.take_along_axis(labels, chosen, axis=1), -1)
        hit = ops.cast(labels > 0, "float32")[..., None]
        return {
            "boxes": picked,
            "labels": ops.cast(labels, "float32"),
            "targets": hit * _encoded(ops.where(hit > 0, aims, picked), picked, self.weights_xywh, self.pixel_offset),
        }

    def _drawn(self, positive: Any, negative: Any) -> tuple[Any, Any]:
        """Indices (B, S), and whether each is one of those that may be drawn."""
        chance = keras.random.uniform(ops.shape(positive), seed=self.seed_generator)
        rank = ops.argsort(ops.argsort(ops.where(positive, -chance, 1.0), axis=1), axis=1)
        taken = ops.logical_and(positive, rank < int(self.regions * self.share))
        order = ops.where(taken, chance + 2.0, ops.where(negative, chance, -1.0))
        missing = max(0, self.regions - order.shape[1])
        values, chosen = ops.top_k(order, min(self.regions, order.shape[1]))
        if missing:
            values = ops.pad(values, ((0, 0), (0, missing)), constant_values=-1.0)
            chosen = ops.pad(chosen, ((0, 0), (0, missing)))
        return ops.cast(chosen, "int32"), values >= 0

    def compute_output_shape(self, input_shape: Any) -> dict[str, tuple[int | None, ...]]:
        """Of each part, see the class."""
        batch = input_shape[0][0]
        return {
            "boxes": (batch, self.regions, 4),
            "labels": (batch, self.regions),
            "targets": (batch, self.regions, 4),
        }

    def compute_output_spec(self, inputs: Any) -> dict[str, Any]:
        """float32 under any policy."""
        shapes = self.compute_output_shape([inputs[0].shape])
        return {name: keras.KerasTensor(shape, dtype="float32") for name, shape in shapes.items()}

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        own = {key: getattr(self, key) for key in ("regions", "share", "overlap", "pixel_offset", "seed")}
        return {**super().get_config(), **own, "weights": self.weights_xywh}


def _overlaps(boxes: Any, truth: Any, offset: float) -> tuple[Any, Any, Any]:
    """Intersections (B, N, M), areas (B, N, 1) and (B, 1, M)."""
    a, b = boxes[:, :, None], truth[:, None]
    sides = ops.maximum(ops.minimum(a[..., 2:], b[..., 2:]) - ops.maximum(a[..., :2], b[..., :2]) + offset, 0.0)
    areas = [ops.prod(ops.maximum(x[..., 2:] - x[..., :2] + offset, 0.0), axis=-1) for x in (a, b)]
    return ops.prod(sides, axis=-1), areas[0], areas[1]


def _encoded(boxes: Any, anchors: Any, weights: tuple[float, ...], offset: float) -> Any:
    """Deltas (B, S, 4), as `geometry.box_codec.encode_boxes`; a box without a side counts as one of a thousandth."""
    size, base = (ops.maximum(x[..., 2:] - x[..., :2] + offset, 1e-3) for x in (boxes, anchors))
    center, base_center = (0.5 * (x[..., :2] + x[..., 2:] + offset) for x in (boxes, anchors))
    deltas = ops.concatenate([(center - base_center) / base, ops.log(size / base)], axis=-1)
    return deltas * ops.convert_to_tensor(weights, dtype="float32")
