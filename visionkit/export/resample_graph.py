"""An input rule's resizing as TensorFlow operations, for images of any size: to the grey level what Python's gives.

It is `visionkit.tasks.resample`, with one matrix for each axis in the place of bands: entries that the result does not
take from the image, such as a letterbox's frame, are rows of zeros. `tf.image.resize(antialias=True)` weights the same
pixels, but it does not average whole ones first where four or more become one, and it has its places in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from visionkit.runtime.quiet import import_tensorflow
from visionkit.tasks.resample import MIDWAY, REDUCE_FROM

__all__ = ["GraphSpan", "resample_graph"]


@dataclass(frozen=True)
class GraphSpan:
    """Entries `first` to `first + size` of an axis that is resized to `resized`; those outside of it are 0.

    Args:
        resized: tensor or number.
        first: tensor or number; below 0 where the resized axis begins further inside.
        size: of the result; a number gives it a static shape.
    """

    resized: Any
    first: Any
    size: Any


def resample_graph(images: Any, rows: GraphSpan, columns: GraphSpan) -> Any:
    """Images (B, H, W, C) of levels 0 to 255 as float32 (B, rows, columns, C) of whole levels."""
    tf = import_tensorflow()
    size_hw = tf.shape(images)[1:3]
    pixels = tf.cast(images, tf.float32)
    factors = [_factor(size_hw[axis], span.resized) for axis, span in enumerate((rows, columns))]
    pixels = tf.cond(
        tf.logical_and(factors[0] == 1, factors[1] == 1), lambda: pixels, lambda: _reduced(pixels, *factors)
    )
    channels = images.shape[3]
    batch, height, width = tf.unstack(tf.shape(pixels)[:3])
    y, x = (_weights(size_hw[a], s, f) for a, s, f in zip((0, 1), (rows, columns), factors, strict=True))
    out = tf.matmul(y, tf.reshape(pixels, [batch, height, width * channels]))  # (B, rows, w * C)
    out = tf.transpose(tf.reshape(out, [batch, rows.size, width, channels]), [0, 1, 3, 2])
    out = tf.matmul(tf.reshape(out, [-1, width]), x, transpose_b=True)  # (B * rows * C, columns)
    out = tf.transpose(tf.reshape(out, [batch, rows.size, channels, columns.size]), [0, 1, 3, 2])
    return tf.clip_by_value(tf.round(out + MIDWAY), 0.0, 255.0)


def _factor(length: Any, resized: Any) -> Any:
    """How many whole pixels are averaged before anything else, int32."""
    tf = import_tensorflow()
    ratio = _ratio(length, resized)
    return tf.where(ratio >= REDUCE_FROM, tf.cast(ratio / 2, tf.int32), 1)


def _ratio(length: Any, resized: Any) -> Any:
    tf = import_tensorflow()
    return tf.cast(length, tf.float64) / tf.cast(resized, tf.float64)


def _reduced(pixels: Any, down: Any, across: Any) -> Any:
    """Blocks of `down` x `across` pixels as one, the last ones filled up with their edge; rounded as OpenCV does."""
    tf = import_tensorflow()
    batch, height, width, channels = tf.unstack(tf.shape(pixels))
    high, wide = (-(-n // f) for n, f in ((height, down), (width, across)))
    pixels = tf.gather(pixels, tf.minimum(tf.range(high * down), height - 1), axis=1)
    pixels = tf.reduce_sum(tf.reshape(pixels, [batch, high, down, width, channels]), axis=2)
    pixels = tf.gather(pixels, tf.minimum(tf.range(wide * across), width - 1), axis=2)
    total = tf.reduce_sum(tf.reshape(pixels, [batch, high, wide, across, channels]), axis=3)
    area = tf.cast(down * across, tf.float32)
    # OpenCV adds a half to a block of 2 x 2 and cuts; others it rounds, halves to the even level.
    halves_up = tf.logical_and(down == 2, across == 2)
    return tf.where(halves_up, tf.floor((total + 2.0) / 4.0), tf.round(total * (1.0 / area)))


def _weights(length: Any, span: GraphSpan, factor: Any) -> Any:
    """A triangle of two steps of the result around each of its entries, float32 (size, blocks), each row's sum 1."""
    tf = import_tensorflow()
    ratio, step = _ratio(length, span.resized), tf.cast(factor, tf.float64)
    blocks = -(-length // factor)
    places = tf.range(span.size) + span.first
    centers = (tf.cast(places, tf.float64) + 0.5) * ratio / step
    distance = tf.abs(tf.cast(tf.range(blocks), tf.float64) + 0.5 - centers[:, None])
    weights = tf.maximum(tf.constant(0.0, tf.float64), 1.0 - distance / tf.maximum(ratio / step, 1.0))
    inside = tf.logical_and(places >= 0, places < span.resized)[:, None]
    weights = tf.where(inside, weights / tf.reduce_sum(weights, axis=1, keepdims=True), 0.0)
    return tf.cast(weights, tf.float32)
