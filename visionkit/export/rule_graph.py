"""A classifier's input rule as TensorFlow operations: from images of any size to the network's input."""

from __future__ import annotations

from typing import Any

import numpy as np

from visionkit.export.resample_graph import GraphSpan, resample_graph
from visionkit.runtime.quiet import import_tensorflow
from visionkit.tasks.input_rule import FRAMED, InputRule

__all__ = ["RuleGraph"]

GREY = (9798.0, 19235.0, 3735.0)  # of R, G, B in OpenCV's grey, over 2 ** 15


class RuleGraph:
    """What `InputRule` does, traced. Images are float32 or uint8 (B, H, W, 3) RGB.

    Args:
        rule: of the network's input.
    """

    def __init__(self, rule: InputRule) -> None:
        self.tf, self.rule = import_tensorflow(), rule
        self.mean, self.std = (np.asarray(part[: rule.channels], np.float64) for part in (rule.mean, rule.std))

    def inputs(self, images: Any, fixed: bool) -> Any:
        """The network's input float32 (B, h, w, C) of images uint8 (B, H, W, 3); with `fixed`, of the input's size."""
        return self.normalize(self.tf.cast(images, self.tf.float32) if fixed else self.pixels(images))

    def pixels(self, images: Any) -> Any:
        """Whole levels float32 (B, h, w, 3) of images of any size, as `InputRule.pixels` gives them."""
        tf = self.tf
        size_hw = tf.shape(images)[1:3]
        resized = self._resized(size_hw)
        spans = [
            GraphSpan(resized[axis], self._first(resized[axis], side), side)
            for axis, side in enumerate(self.rule.size_hw)
        ]
        levels = resample_graph(images, *spans)
        if self.rule.resize in FRAMED:
            levels += self._frame(spans)
        return tf.ensure_shape(levels, (images.shape[0], *self.rule.size_hw, 3))

    def normalize(self, pixels: Any) -> Any:
        """Levels float32 (B, h, w, 3) RGB in the network's order and scale."""
        tf, order = self.tf, self.rule.channel_order
        if order == "gray":
            weighted = tf.reduce_sum(pixels * np.asarray(GREY, np.float32), axis=-1, keepdims=True)
            pixels = tf.floor((weighted + 16384.0) * (1.0 / 32768.0))  # whole numbers below 2 ** 24: exact
        elif order == "bgr":
            pixels = tf.reverse(pixels, axis=[-1])
        mean, scale = self.mean.astype(np.float32), (1.0 / self.std).astype(np.float32)
        return (pixels - mean) * scale

    def _resized(self, size_hw: Any) -> Any:
        """Height and width to which images of `size_hw` are resized before they are cut or framed, int32 (2,)."""
        tf, rule = self.tf, self.rule
        if rule.resize == "stretch":
            return tf.constant(rule.size_hw, tf.int32)
        sizes = tf.cast(size_hw, tf.float64)
        if rule.resize in FRAMED:
            scale = tf.reduce_min(np.asarray(rule.size_hw, np.float64) / sizes)
            whole = tf.floor if rule.resize == "corner" else tf.round
            return tf.clip_by_value(tf.cast(whole(sizes * scale), tf.int32), 1, np.asarray(rule.size_hw, np.int32))
        short, longer = tf.reduce_min(sizes), tf.reduce_max(sizes)
        if rule.resize_size is None:
            side = tf.reduce_max(tf.math.ceil(np.asarray(rule.size_hw, np.float64) * short / sizes))
        else:
            side = tf.constant(rule.resize_size, tf.float64)
        other = tf.floor(side * longer / short)
        return tf.cast(tf.where(sizes <= short, side, other), tf.int32)

    def _first(self, resized: Any, crop: int) -> Any:
        """The first entry of the resized axis that the input shows; below 0 where a frame comes before."""
        tf = self.tf
        if self.rule.resize == "corner":
            return tf.constant(0, tf.int32)
        cut = tf.cast(tf.round(tf.cast(resized - crop, tf.float64) / 2), tf.int32)
        return tf.where(resized >= crop, cut, -((crop - resized) // 2))

    def _frame(self, spans: list[GraphSpan]) -> Any:
        """The mean's level where no image is, float32 (h, w, 3)."""
        tf = self.tf
        y, x = (tf.logical_and(tf.range(s.size) + s.first >= 0, tf.range(s.size) + s.first < s.resized) for s in spans)
        fill = np.clip(np.rint(np.asarray(self.rule.mean)), 0, 255).astype(np.float32)
        if self.rule.channel_order == "bgr":
            fill = fill[::-1]
        elif self.rule.channel_order == "gray":
            fill = np.repeat(fill[:1], 3)
        return tf.where(tf.logical_and(y[:, None], x[None, :])[..., None], 0.0, fill)
