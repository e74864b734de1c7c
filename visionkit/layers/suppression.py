"""Non-maximum suppression over a batch, with results of fixed size."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from visionkit.layers.rows import best_rows, kept_greedily, pick_rows

__all__ = ["NonMaximumSuppression"]


@keras.saving.register_keras_serializable(package="visionkit")
class NonMaximumSuppression(keras.layers.Layer):
    """The best boxes of each image, class by class, best first: `geometry.nms.class_nms` over a batch.

    Called with `[boxes, scores]`: boxes (B, N, 4) xyxy, or (B, N, L, 4) with one for each class, and scores (B, N, L).
    Gives a dictionary: `boxes` (B, K, 4), `scores` (B, K), `class_id` int32 (B, K), the column of the score, `index`
    int32 (B, K), which of the N boxes, and `count` int32 (B,), how many there are; all is 0 behind these. Nothing is
    passed back to what comes before.

    Args:
        max_det: K.
        iou_threshold: the largest intersection over union that two boxes of a class may have and both stay.
        score_threshold: boxes count whose score is more.
        min_size: and whose sides are this long, in pixels.
        candidates: how many pairs of box and class of an image are looked at, the best; memory grows with its square.
            Where more are above the threshold, those behind do not take part.
        per_class: how many boxes of each class are looked at, in place of `candidates`, as SSD does (Liu et al., ECCV
            2016, section 2.2, and torchvision); memory grows with L and its square.
        pixel_offset: 1 counts both edge pixels of a box, as py-faster-rcnn does.
    """

    def __init__(
        self,
        max_det: int = 100,
        iou_threshold: float = 0.5,
        *,
        score_threshold: float = 0.05,
        min_size: float = 0.0,
        candidates: int = 1000,
        per_class: int | None = None,
        pixel_offset: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        if min(max_det, candidates, 1 if per_class is None else per_class) < 1 or not 0 <= iou_threshold <= 1:
            raise ValueError(
                "`max_det`, `candidates` and `per_class` must be positive, `iou_threshold` in [0, 1]. Received: "
                f"max_det={max_det}, candidates={candidates}, per_class={per_class}, iou_threshold={iou_threshold}."
            )
        self.max_det, self.iou_threshold, self.score_threshold = max_det, iou_threshold, score_threshold
        self.min_size, self.candidates, self.per_class = min_size, candidates, per_class
        self.pixel_offset = pixel_offset

    def build(self, input_shape: Any) -> None:
        """Check the shapes."""
        shapes = [tuple(shape) for shape in input_shape]
        fits = len(shapes) == 2 and len(shapes[1]) == 3 and None not in shapes[1][1:]
        if not fits or shapes[0][1:] not in {(shapes[1][1], 4), (*shapes[1][1:], 4)}:
            raise ValueError(
                "`inputs` must be [boxes, scores], (B, N, 4) or (B, N, L, 4) and (B, N, L), N and L fixed. "
                f"Received: shapes={shapes}."
            )
        self.built = True

    def call(self, inputs: Any) -> dict[str, Any]:
        """The boxes that stay, see the class."""
        boxes, scores = (ops.stop_gradient(ops.cast(x, "float32")) for x in inputs)
        classes = scores.shape[2]
        counts = scores > self.score_threshold
        if self.min_size:
            sides = boxes[..., 2:] - boxes[..., :2] + float(self.pixel_offset)
            large = ops.all(sides >= self.min_size, axis=-1)
            counts = ops.logical_and(counts, large if len(boxes.shape) == 4 else large[..., None])
        scores = ops.where(counts, scores, -float("inf"))
        best, flat = self._looked_at(scores)  # (B, M), index n * L + l
        found = self._boxes(boxes, flat, classes)
        kept = self._kept(found, best, flat % classes, classes)
        return self._results(found, ops.where(kept, best, -float("inf")), flat, classes)

    def _looked_at(self, scores: Any) -> tuple[Any, Any]:
        count, classes = scores.shape[1:]
        if self.per_class is None:
            return best_rows(ops.reshape(scores, (-1, count * classes)), min(self.candidates, count * classes))
        few = min(self.per_class, count)
        best, index = ops.top_k(ops.transpose(scores, (0, 2, 1)), few)  # (B, L, k)
        flat = ops.cast(index, "int32") * classes + ops.arange(classes, dtype="int32")[:, None]
        return ops.reshape(best, (-1, classes * few)), ops.reshape(flat, (-1, classes * few))

    def _boxes(self, boxes: Any, flat: Any, classes: int) -> Any:
        if len(boxes.shape) == 3:
            return pick_rows(boxes, flat // classes)
        return pick_rows(ops.reshape(boxes, (-1, boxes.shape[1] * classes, 4)), flat)

    def _kept(self, boxes: Any, best: Any, class_id: Any, classes: int) -> Any:
        there = best > -float("inf")
        if self.per_class is None:
            return kept_greedily(boxes, there, self.iou_threshold, class_id, self.pixel_offset)
        few = boxes.shape[1] // classes  # each class is an image of its own
        apart = ops.reshape(boxes, (-1, few, 4)), ops.reshape(there, (-1, few))
        kept = kept_greedily(*apart, self.iou_threshold, None, self.pixel_offset)
        return ops.reshape(kept, (-1, classes * few))

    def _results(self, boxes: Any, best: Any, flat: Any, classes: int) -> dict[str, Any]:
        scores, place = best_rows(best, self.max_det)
        there = scores > -float("inf")
        flat = ops.squeeze(pick_rows(flat[..., None], place), axis=-1)
        whole = ops.cast(there, "int32")
        return {
            "boxes": ops.where(there[..., None], pick_rows(boxes, place), 0.0),
            "scores": ops.where(there, scores, 0.0),
            "class_id": flat % classes * whole,
            "index": flat // classes * whole,
            "count": ops.sum(whole, axis=1),
        }

    def compute_output_shape(self, input_shape: Any) -> dict[str, tuple[int | None, ...]]:
        """Of each part, see the class."""
        batch = input_shape[1][0]
        flat = (batch, self.max_det)
        return {"boxes": (*flat, 4), "scores": flat, "class_id": flat, "index": flat, "count": (batch,)}

    def compute_output_spec(self, inputs: Any) -> dict[str, Any]:
        """float32 and int32 under any policy."""
        whole = {"class_id", "index", "count"}
        shapes = self.compute_output_shape([x.shape for x in inputs])
        return {k: keras.KerasTensor(s, dtype="int32" if k in whole else "float32") for k, s in shapes.items()}

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        names = ("max_det", "iou_threshold", "score_threshold", "min_size", "candidates", "per_class", "pixel_offset")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
