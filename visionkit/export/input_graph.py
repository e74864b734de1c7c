"""Around a segmenter and around a detector, as TensorFlow operations: images of any size in, answers of that size out.

The numbers are those of `visionkit.tasks.segment` and `visionkit.tasks.detect`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from visionkit.export.resample_graph import GraphSpan
from visionkit.export.rule_graph import RuleGraph
from visionkit.tasks.input_rule import FRAMED, InputRule

__all__ = ["DetectGraph", "SegmentGraph"]

TALL = 2.5  # heights of the input: from there on `visionkit.tasks.detect_fit` reads the rows that it needs first


class SegmentGraph(RuleGraph):
    """Pixels to a segmenter's input, and its logits to the images' size.

    Args:
        rule: of one size, its `resize` not `shortest_side`: the whole image goes in.
    """

    def logits(self, found: Any, images: Any, fixed: bool = False) -> Any:
        """A network's logits (B, h', w', L) at the size of the images, float32 (B, H, W, L)."""
        tf = self.tf
        size_hw = self.rule.size_hw if fixed else tf.shape(images)[1:3]
        found = tf.cast(found, tf.float32)
        if self.rule.resize in FRAMED and not fixed:
            filled = tf.reduce_all(self._resized(size_hw) == np.asarray(self.rule.size_hw, np.int32))
            found = tf.cond(filled, lambda: found, lambda: self._unframed(found, size_hw))
            found = tf.ensure_shape(found, (None, None, None, found.shape[-1]))
        return tf.image.resize(found, size_hw)

    def _unframed(self, found: Any, size_hw: Any) -> Any:
        """What a network says of the image alone, at the size of its input."""
        fitted = self.tf.unstack(self._resized(size_hw))
        top, left = (-self._first(n, c) for n, c in zip(fitted, self.rule.size_hw, strict=True))
        found = self.tf.image.resize(found, self.rule.size_hw)
        return found[:, top : top + fitted[0], left : left + fitted[1]]


class DetectGraph(RuleGraph):
    """Plain bilinear samples into a detector, boxes in pixels of the images out of it.

    Around a framed image are zeros of the network's scale, as in `visionkit.tasks.detect_fit`.

    Args:
        rule: of the card, its `resize` not `shortest_side`, which gives inputs of many sizes.
    """

    def __init__(self, rule: InputRule) -> None:
        if rule.resize == "shortest_side":
            raise ValueError("`rule` must give inputs of one size. Received: resize='shortest_side'.")
        super().__init__(rule)

    def inputs(self, images: Any, fixed: bool) -> Any:
        """The network's input float32 (B, h, w, 3) of images uint8 (B, H, W, 3); with `fixed`, of the input's size."""
        tf = self.tf
        if fixed:
            return super().inputs(images, fixed)
        sides = tf.unstack(tf.shape(images)[1:3])
        spans = self._spans(images)
        places = [tf.range(span.size) + span.first for span in spans]
        down, across = ((side, place, span.resized) for side, place, span in zip(sides, places, spans, strict=True))
        tall = tf.cast(sides[0], tf.float64) >= TALL * tf.cast(spans[0].resized, tf.float64)
        values = tf.cond(
            tall,
            lambda: self._between(self._rows(images, *down), 2, *across),
            lambda: self._between(self._between(images, 2, *across), 1, *down),
        )
        values = tf.ensure_shape(values, (images.shape[0], *self.rule.size_hw, 3))
        normal = self.normalize(values)
        if self.rule.resize not in FRAMED:
            return normal
        rows, columns = (tf.logical_and(at >= 0, at < span.resized) for at, span in zip(places, spans, strict=True))
        return tf.where(tf.logical_and(rows[:, None], columns[None, :])[..., None], normal, 0.0)

    def normalize(self, pixels: Any) -> Any:
        """Levels float32 (B, h, w, 3) RGB in the network's order and scale, by the very sums of `DetectFit`."""
        pixels = self.tf.reverse(pixels, axis=[-1]) if self.rule.channel_order == "bgr" else pixels
        scale = 1.0 / self.std
        return pixels * scale.astype(np.float32) + (-self.mean * scale).astype(np.float32)

    def to_image(self, boxes: Any, images: Any, fixed: bool) -> Any:
        """Boxes (B, N, 4) xyxy of the input in pixels of the images, cut to them."""
        tf = self.tf
        if fixed:
            height, width = self.rule.size_hw
            return tf.clip_by_value(boxes, 0.0, np.array([width, height] * 2, np.float32))
        sides = tf.unstack(tf.cast(tf.shape(images)[1:3], tf.float64))
        scale, shift = [], []
        for span, side in zip(self._spans(images), sides, strict=True):
            scale.append(tf.cast(side / tf.cast(span.resized, tf.float64), tf.float32))
            shift.append(tf.cast(span.first, tf.float32))
        (y, x), (down, across) = shift, scale
        moved = (boxes + tf.stack([x, y, x, y])) * tf.stack([across, down, across, down])
        height, width = (tf.cast(side, tf.float32) for side in sides)
        return tf.clip_by_value(moved, 0.0, tf.stack([width, height, width, height]))

    def valid_hw(self, images: Any, fixed: bool) -> Any:
        """Height and width of the images in the input, float32 (B, 2), as the task tells them a network."""
        tf = self.tf
        batch = images.shape[0] or tf.shape(images)[0]
        seen: Any = np.asarray(self.rule.size_hw, np.float32)  # a frame all around counts as seen
        if not fixed and self.rule.resize == "corner":
            seen = tf.cast(tf.stack([span.resized for span in self._spans(images)]), tf.float32)
        return tf.ones((batch, 1)) * seen

    def _spans(self, images: Any) -> list[GraphSpan]:
        tf = self.tf
        resized = tf.unstack(self._resized(tf.shape(images)[1:3]))
        return [GraphSpan(n, self._first(n, c), c) for n, c in zip(resized, self.rule.size_hw, strict=True)]

    def _between(self, values: Any, axis: int, length: Any, places: Any, resized: Any) -> Any:
        """`values` (B, H, W, C) read along an axis at the centres of `places` of the resized one, in OpenCV's sums.

        Those are a product and a sum rounded once; so they are made in float64.
        """
        tf = self.tf
        low, high, share = self._neighbours(values, axis, length, places, resized)
        wide = tf.cast(high - low, tf.float64) * tf.cast(share, tf.float64)
        return tf.cast(tf.cast(low, tf.float64) + wide, tf.float32)

    def _rows(self, values: Any, length: Any, places: Any, resized: Any) -> Any:
        """The same along the first axis, in the sums of `visionkit.tasks.detect_fit` for tall images."""
        low, high, share = self._neighbours(values, 1, length, places, resized)
        return low * (1.0 - share) + high * share

    def _neighbours(self, values: Any, axis: int, length: Any, places: Any, resized: Any) -> tuple[Any, Any, Any]:
        tf = self.tf
        ratio = tf.cast(length, tf.float64) / tf.cast(resized, tf.float64)
        last = tf.cast(length - 1, tf.float64)
        exact = tf.clip_by_value((tf.cast(places, tf.float64) + 0.5) * ratio - 0.5, tf.zeros_like(last), last)
        lower = tf.floor(exact)
        share = tf.cast(exact - lower, tf.float32)
        first = tf.cast(lower, tf.int32)
        low, high = (
            tf.cast(tf.gather(values, index, axis=axis), tf.float32)
            for index in (first, tf.minimum(first + 1, length - 1))
        )
        return low, high, share[:, None, None] if axis == 1 else share[:, None]
