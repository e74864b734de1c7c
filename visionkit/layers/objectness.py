"""One logit for an object, where a network scores object and background."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["Objectness"]


@keras.saving.register_keras_serializable(package="visionkit")
class Objectness(keras.layers.Layer):
    """Logits (B, h, w, A) of the objects, of scores (B, h, w, 2 A): A of the background, then A of the objects.

    The softmax of two scores is the sigmoid of their difference. Ren et al., Faster R-CNN, NIPS 2015, section 3.1, with
    the order of channels of py-faster-rcnn.
    """

    def build(self, input_shape: Any) -> None:
        """Check that there are two scores for each."""
        if len(input_shape) != 4 or input_shape[3] % 2:
            raise ValueError(f"`inputs` must be (B, h, w, 2 A). Received: shape={tuple(input_shape)}.")
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The logits, see the class."""
        half = inputs.shape[3] // 2
        return inputs[..., half:] - inputs[..., :half]

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(B, h, w, A)."""
        return (*input_shape[:3], input_shape[3] // 2)
