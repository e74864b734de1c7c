"""Padding and cropping of maps whose size is open; where it is known, Keras's own layers do."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from visionkit.layers.windows import pair

__all__ = ["CropLike", "PadToMultiple"]


@keras.saving.register_keras_serializable(package="visionkit")
class PadToMultiple(keras.layers.Layer):
    """Zeros below and right of a map until its sides are multiples: (B, H, W, C) -> (B, H', W', C).

    Args:
        multiple: of the height and of the width, in pixels, or one integer for both.
    """

    def __init__(self, multiple: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.multiple = pair(multiple, "multiple", least=1)

    def build(self, input_shape: Any) -> None:
        """Check the shape."""
        _check_map(input_shape)
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The padded map, see the class."""
        sizes = ops.shape(inputs)[1:3]
        after = [-n % multiple for n, multiple in zip(sizes, self.multiple, strict=True)]
        return ops.pad(inputs, [(0, 0), (0, after[0]), (0, after[1]), (0, 0)])

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(B, H', W', C)."""
        batch, *sizes, channels = input_shape
        padded = (None if n is None else n + -n % m for n, m in zip(sizes, self.multiple, strict=True))
        return batch, *padded, channels

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "multiple": self.multiple}


@keras.saving.register_keras_serializable(package="visionkit")
class CropLike(keras.layers.Layer):
    """The part of a map that lies at `offset` and is as large as another one.

    Called with `[map, like]`, (B, H, W, C) and (B, h, w, D), it gives (B, h, w, C); of `like` only the size is read.

    Args:
        offset: rows and columns that are cut above and left, or one integer for both.
    """

    def __init__(self, offset: Any = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.offset = pair(offset, "offset", least=0)

    def build(self, input_shape: Any) -> None:
        """Check that the map is large enough, where its size is known."""
        if len(input_shape) != 2:
            raise ValueError(f"`inputs` must be [map, like]. Received: {len(input_shape)} shapes.")
        whole, like = (_check_map(shape) for shape in input_shape)
        for size, wanted, offset in zip(whole[1:3], like[1:3], self.offset, strict=True):
            if size is not None and wanted is not None and offset + wanted > size:
                raise ValueError(
                    "The map must hold the crop. "
                    f"Received: map {tuple(whole)}, like {tuple(like)}, offset={self.offset}."
                )
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The cropped map, see the class."""
        whole, like = inputs
        (top, left), shape = self.offset, ops.shape(like)
        return whole[:, top : top + shape[1], left : left + shape[2]]

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(B, h, w, C)."""
        whole, like = input_shape
        return whole[0], like[1], like[2], whole[3]

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "offset": self.offset}


def _check_map(shape: Any) -> Any:
    if len(shape) != 4:
        raise ValueError(f"`inputs` must be (B, H, W, C). Received: shape={tuple(shape)}.")
    return shape
