"""Selection of proposals over a batch, with results of fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from visionkit.geometry.box_codec import DELTA_CLIP
from visionkit.layers.boxes import decoded
from visionkit.layers.rows import best_rows, clip_boxes, kept_greedily, pick_rows

__all__ = ["ProposalSelection"]


@keras.saving.register_keras_serializable(package="visionkit")
class ProposalSelection(keras.layers.Layer):
    """The best boxes of each image, of one level or of a pyramid: `geometry.proposals.select_proposals` over a batch.

    Called with `[objectness, deltas, anchors, size_hw]`, the first three lists with one tensor for each level:
    objectness (B, h, w, A), logits; deltas (B, h, w, 4 A); anchors (h * w * A, 4). `size_hw` (B, 2) is the size of the
    images without their padding. Gives a dictionary: `boxes` (B, K, 4) xyxy, `scores` (B, K) probabilities, best first,
    and `count` int32 (B,); all is 0 behind the first `count`. Nothing is passed back to what comes before.

    Args:
        pre_nms: how many boxes of each level are looked at, the best.
        post_nms: K, over all levels.
        nms: intersection over union above which the worse of two boxes of a level is dropped.
        min_size: smallest side in pixels.
        score: smallest probability.
        weights: of the four deltas.
        delta_clip: the largest logarithm of a growth; None for none.
        pixel_offset: 1 counts both edge pixels, as py-faster-rcnn does.
    """

    def __init__(
        self,
        pre_nms: int = 1000,
        post_nms: int = 1000,
        *,
        nms: float = 0.7,
        min_size: float = 1e-3,
        score: float = 0.0,
        weights: Sequence[float] = (1, 1, 1, 1),
        delta_clip: float | None = DELTA_CLIP,
        pixel_offset: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        if min(pre_nms, post_nms) < 1 or not 0 <= nms <= 1:
            raise ValueError(
                "`pre_nms` and `post_nms` must be positive, `nms` in [0, 1]. "
                f"Received: pre_nms={pre_nms}, post_nms={post_nms}, nms={nms}."
            )
        self.pre_nms, self.post_nms, self.nms = pre_nms, post_nms, nms
        self.min_size, self.score, self.delta_clip, self.pixel_offset = min_size, score, delta_clip, pixel_offset
        self.weights_xywh = tuple(float(w) for w in weights)

    def build(self, input_shape: Any) -> None:
        """Check that each level has its anchors, and a fixed size."""
        objectness, deltas, anchors, _ = input_shape
        if not len(objectness) == len(deltas) == len(anchors) > 0:
            raise ValueError(
                "There must be one map of objectness, of deltas, and anchors for each level. "
                f"Received: {len(objectness)}, {len(deltas)}, {len(anchors)}."
            )
        for logits, change, base in zip(objectness, deltas, anchors, strict=True):
            (_, h, w, count), (_, h_, w_, four), (rows, _) = logits, change, base
            if None in (h, w) or (h, w, 4 * count) != (h_, w_, four) or rows != h * w * count:
                raise ValueError(
                    "A level must be (B, h, w, A), (B, h, w, 4 A) and (h * w * A, 4), h and w fixed. "
                    f"Received: {tuple(logits)}, {tuple(change)}, {tuple(base)}."
                )
        self.built = True

    def call(self, inputs: Any) -> dict[str, Any]:
        """The proposals, see the class."""
        objectness, deltas, anchors, size_hw = inputs
        most = min(self.pre_nms, max(base.shape[0] for base in anchors))
        levels = [
            self._level(ops.stop_gradient(logits), ops.stop_gradient(change), base, most)
            for logits, change, base in zip(objectness, deltas, anchors, strict=True)
        ]
        boxes, scores = (ops.stack(parts, axis=1) for parts in zip(*levels, strict=True))  # (B, levels, M, 4)
        boxes = clip_boxes(boxes, size_hw, self.pixel_offset)
        sides = boxes[..., 2:] - boxes[..., :2] + float(self.pixel_offset)
        there = ops.logical_and(ops.all(sides >= self.min_size, axis=-1), scores > -float("inf"))
        there = ops.logical_and(there, ops.sigmoid(scores) >= self.score)
        flat = ops.reshape(boxes, (-1, most, 4))  # each level is an image of its own
        kept = kept_greedily(flat, ops.reshape(there, (-1, most)), self.nms, None, self.pixel_offset)
        scores = ops.where(ops.reshape(kept, (-1, len(levels), most)), scores, -float("inf"))
        return self._results(
            ops.reshape(boxes, (-1, len(levels) * most, 4)), ops.reshape(scores, (-1, len(levels) * most))
        )

    def _level(self, logits: Any, deltas: Any, anchors: Any, most: int) -> tuple[Any, Any]:
        """The best boxes (B, M, 4) of a level, and their logits (B, M), -inf where there are fewer."""
        count = anchors.shape[0]
        best, index = best_rows(ops.reshape(ops.cast(logits, "float32"), (-1, count)), most)
        change = pick_rows(ops.reshape(deltas, (-1, count, 4)), index)
        base = ops.take(anchors, index, axis=0)
        boxes = decoded(change, base, self.weights_xywh, self.delta_clip, self.pixel_offset)
        return boxes, best

    def _results(self, boxes: Any, scores: Any) -> dict[str, Any]:
        best, place = best_rows(scores, self.post_nms)
        there = best > -float("inf")
        return {
            "boxes": ops.where(there[..., None], pick_rows(boxes, place), 0.0),
            "scores": ops.where(there, ops.sigmoid(best), 0.0),
            "count": ops.sum(ops.cast(there, "int32"), axis=1),
        }

    def compute_output_shape(self, input_shape: Any) -> dict[str, tuple[int | None, ...]]:
        """Of each part, see the class."""
        batch = input_shape[0][0][0]
        return {"boxes": (batch, self.post_nms, 4), "scores": (batch, self.post_nms), "count": (batch,)}

    def compute_output_spec(self, inputs: Any) -> dict[str, Any]:
        """float32 and int32 under any policy."""
        shapes = self.compute_output_shape([[inputs[0][0].shape]])
        return {k: keras.KerasTensor(s, dtype="int32" if k == "count" else "float32") for k, s in shapes.items()}

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        names = ("pre_nms", "post_nms", "nms", "min_size", "score", "delta_clip", "pixel_offset")
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config(), **own, "weights": self.weights_xywh}
