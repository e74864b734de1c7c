"""A segmenter's input rule, and its way back to the image's size, as TensorFlow operations for images of any size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from visionkit.runtime.quiet import import_tensorflow
from visionkit.tasks.input_rule import InputRule

__all__ = ["InputGraph"]

STEP = 32  # by which the longer side of a `shortest_side` input changes, as in `visionkit.tasks.segment_fit`
MAX_ASPECT = 8.0


class InputGraph:
    """What `visionkit.tasks.segment` does around a network, traced: pixels to its input, logits to the image's size.

    Shrinking averages with the same triangle as `visionkit.tasks.resample`; levels differ by 1 at most, from a factor
    of 4 on by 5.

    Args:
        rule: of the card; its channels are `rgb` or `bgr`.
        size_hw: of the network's input; None where open: then a `shortest_side` image keeps its aspect.
    """

    def __init__(self, rule: InputRule, size_hw: tuple[int, int] | None) -> None:
        if rule.channel_order == "gray":
            raise ValueError("`rule` must have three channels. Received: channel_order='gray'.")
        self.tf = import_tensorflow()
        self.rule = rule if size_hw is None else replace(rule, size_hw=size_hw, resize_size=None)
        self.open = size_hw is None
        mean, std = np.asarray(rule.mean), np.asarray(rule.std)
        # Applied to RGB; the order changes after it.
        flip = slice(None, None, -1 if rule.channel_order == "bgr" else 1)
        self.mean, self.std = (part[flip].astype(np.float32) for part in (mean, std))

    def inputs(self, images: Any) -> Any:
        """The network's input float32 (B, h, w, 3) of images uint8 (B, H, W, 3) RGB."""
        tf = self.tf
        size_hw = tf.shape(images)[1:3]
        pixels = tf.cast(images, tf.float32)
        if self.rule.resize == "letterbox":
            fitted = self._fitted(size_hw)
            # The frame has the mean's level, rounded, so that a network sees what it sees in Python.
            fill = np.clip(np.rint(self.mean), 0, 255).astype(np.float32)
            framed = self._resampled(pixels, fitted) - fill
            (top, left), (below, right) = self._margins(fitted)
            pixels = tf.pad(framed, [[0, 0], [top, below], [left, right], [0, 0]]) + fill
        else:
            pixels = self._resampled(pixels, self._stretched(size_hw))
        normal = (pixels - self.mean) / self.std
        normal = normal[..., ::-1] if self.rule.channel_order == "bgr" else normal
        return normal if self.open else tf.ensure_shape(normal, (None, *self.rule.size_hw, 3))

    def logits(self, found: Any, images: Any) -> Any:
        """The network's logits (B, h', w', L) at the size of the images, float32 (B, H, W, L)."""
        tf = self.tf
        size_hw = tf.shape(images)[1:3]
        found = tf.cast(found, tf.float32)
        if self.rule.resize == "letterbox":
            fitted = self._fitted(size_hw)
            (top, left), _ = self._margins(fitted)
            found = tf.image.resize(found, self.rule.size_hw)
            found = found[:, top : top + fitted[0], left : left + fitted[1]]
        return tf.image.resize(found, size_hw)

    def _resampled(self, pixels: Any, size_hw: Any) -> Any:
        resized = self.tf.image.resize(pixels, size_hw, antialias=True)
        return self.tf.clip_by_value(self.tf.round(resized), 0.0, 255.0)

    def _stretched(self, size_hw: Any) -> Any:
        """Height and width of the input of an image that fills it, int32 (2,)."""
        tf, rule = self.tf, self.rule
        if not self.open or rule.resize == "stretch":
            return tf.constant(rule.size_hw, tf.int32)
        side = rule.resize_size or min(rule.size_hw)
        sizes = tf.cast(size_hw, tf.float64)
        ratio = tf.minimum(tf.reduce_max(sizes) / tf.reduce_min(sizes), MAX_ASPECT)
        longer = side + STEP * tf.cast(tf.round((ratio - 1) * side / STEP), tf.int32)
        return tf.where(size_hw[0] <= size_hw[1], tf.stack([side, longer]), tf.stack([longer, side]))

    def _fitted(self, size_hw: Any) -> Any:
        """Height and width of a letterboxed image within the input."""
        tf, box = self.tf, self.rule.size_hw
        sizes = tf.cast(size_hw, tf.float64)
        scale = tf.reduce_min(np.asarray(box, np.float64) / sizes)
        return tf.clip_by_value(tf.cast(tf.round(sizes * scale), tf.int32), 1, np.asarray(box, np.int32))

    def _margins(self, fitted: Any) -> tuple[Any, Any]:
        first = (self.rule.size_hw - fitted) // 2
        return self.tf.unstack(first), self.tf.unstack(self.rule.size_hw - fitted - first)
