"""What lies between pooled regions of a batch of images and heads that look at one region at a time."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["ClassMasks", "ForegroundProbabilities", "MergeRegions", "SplitRegions"]

Shape = tuple[int | None, ...]


def _times(batch: int | None, count: int | None) -> int | None:
    return None if batch is None or count is None else batch * count


@keras.saving.register_keras_serializable(package="visionkit")
class MergeRegions(keras.layers.Layer):
    """The regions of all images one after the other: (B, R, h, w, C) -> (B * R, h, w, C)."""

    def call(self, inputs: Any) -> Any:
        """The regions, see the class."""
        return ops.reshape(inputs, (-1, *inputs.shape[2:]))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B * R, h, w, C)."""
        return (_times(input_shape[0], input_shape[1]), *input_shape[2:])


@keras.saving.register_keras_serializable(package="visionkit")
class SplitRegions(keras.layers.Layer):
    """The regions of each image: (B * R, ...) -> (B, R, ...).

    Args:
        count: R.
    """

    def __init__(self, count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"`count` must be a positive integer. Received: count={count!r}.")
        self.count = count

    def call(self, inputs: Any) -> Any:
        """The regions, see the class."""
        return ops.reshape(inputs, (-1, self.count, *inputs.shape[1:]))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, R, ...)."""
        batch = None if input_shape[0] is None else input_shape[0] // self.count
        return (batch, self.count, *input_shape[1:])

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "count": self.count}


@keras.saving.register_keras_serializable(package="visionkit")
class ForegroundProbabilities(keras.layers.Layer):
    """Probabilities float32 (B, R, L) of logits (B, R, L), 0 for class 0, the background, and behind the first `count`.

    Called with `[logits, count]`, count int32 (B,).
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)

    def call(self, inputs: Any) -> Any:
        """The probabilities, see the class."""
        logits, count = inputs
        probs = ops.softmax(ops.cast(logits, "float32"), axis=-1)
        there = ops.arange(logits.shape[1], dtype="int32")[None] < ops.cast(count, "int32")[:, None]  # (B, R)
        object_class = ops.arange(logits.shape[2], dtype="int32") > 0  # (L,)
        return ops.where(ops.logical_and(there[..., None], object_class), probs, 0.0)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(B, R, L)."""
        return tuple(input_shape[0])

    def compute_output_spec(self, inputs: Any) -> Any:
        """float32 under any policy."""
        return keras.KerasTensor(inputs[0].shape, dtype="float32")


@keras.saving.register_keras_serializable(package="visionkit")
class ClassMasks(keras.layers.Layer):
    """Of mask logits (B, K, m, m, L) the probabilities float32 (B, K, m, m) of each region's own class.

    Called with `[logits, class_id]`, class_id integer (B, K). He et al., Mask R-CNN, ICCV 2017, section 3: classes do
    not compete for a pixel.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)

    def call(self, inputs: Any) -> Any:
        """The probabilities, see the class."""
        logits, class_id = inputs
        own = ops.equal(ops.cast(class_id, "int32")[..., None], ops.arange(logits.shape[-1], dtype="int32"))
        logits = ops.where(own[:, :, None, None, :], ops.cast(logits, "float32"), 0.0)
        return ops.sigmoid(ops.sum(logits, axis=-1))

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """(B, K, m, m)."""
        return tuple(input_shape[0][:-1])

    def compute_output_spec(self, inputs: Any) -> Any:
        """float32 under any policy."""
        return keras.KerasTensor(inputs[0].shape[:-1], dtype="float32")
