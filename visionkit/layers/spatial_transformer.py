"""The spatial transformer's second half: an image sampled where theta says, with gradients to both."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from visionkit.geometry.transformer import CONTROL, identity_theta, theta_size
from visionkit.layers.sampling import bilinear_sample, displacement, grid_line, input_line
from visionkit.layers.windows import pair

__all__ = ["IdentityTheta", "SpatialTransformer"]

BORDERS = ("zero", "clamp")
MOST_SAMPLES = 64


@keras.saving.register_keras_serializable(package="visionkit")
class IdentityTheta(keras.initializers.Initializer):
    """The bias (n,) of the layer that regresses theta; with a kernel of zeros, the transformer begins with no change.

    Args:
        transform: see `SpatialTransformer`.
        control: rows and columns of a spline's control points.
    """

    def __init__(self, transform: str = "affine", control: Any = CONTROL) -> None:
        self.transform, self.control = transform, pair(control, "control", least=2)
        identity_theta(transform, self.control)

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """The bias; one theta after the other if it holds several."""
        theta = identity_theta(self.transform, self.control)
        if len(shape) != 1 or shape[0] % len(theta):
            raise ValueError(f"`shape` must be a multiple of ({len(theta)},). Received: shape={tuple(shape)}.")
        return ops.convert_to_tensor(np.tile(theta, shape[0] // len(theta)), dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"transform": self.transform, "control": self.control}


@keras.saving.register_keras_serializable(package="visionkit")
class SpatialTransformer(keras.layers.Layer):
    """An image sampled where theta says: called with `[image (B, H, W, C), theta (B, n)]`, (B, h, w, C).

    Jaderberg, Simonyan, Zisserman, Kavukcuoglu, Spatial transformer networks, NIPS 2015, section 3. Theta leads from
    the output to the input, both on [-1, 1]; `geometry.transformer.identity_theta` tells its numbers. Bilinear; theta
    and image get gradients. Built of gathers and arithmetic only, so it goes into a SavedModel, XLA and LiteRT.

    Args:
        output_hw: height and width of the output, or one integer for both.
        transform: `affine` (6 numbers), `attention` (3: one scale and a shift), `projective` (8), or `tps`, a
            thin-plate spline (two for each control point: where in the input it is read).
        align_corners: -1 and 1 are the centres of the first and the last pixel; otherwise their outer edges. So pixel
            i of n lies at 2 i / (n - 1) - 1, or at (2 i + 1) / n - 1.
        border: outside of the image is `zero`, or its edge goes on, `clamp`.
        antialias: average n x n points spread over each output pixel, where the plain layer reads one and skips what
            lies between (section 3.4's warning). An integer is n; True is as many as leave no gap at the identity,
            the larger of H / h and W / w, rounded up.
        control: rows and columns of a spline's control points, which are spread over [-1, 1] with its edges.
    """

    def __init__(
        self,
        output_hw: Any,
        transform: str = "affine",
        *,
        align_corners: bool = False,
        border: str = "zero",
        antialias: bool | int = False,
        control: Any = CONTROL,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # half precision cannot hold places of more than some pixels
        self.output_hw = pair(output_hw, "output_hw", least=1)
        self.control = pair(control, "control", least=2)
        self.theta_size = theta_size(transform, self.control)
        if border not in BORDERS:
            raise ValueError(f"`border` must be one of {', '.join(BORDERS)}. Received: border={border!r}.")
        if not isinstance(antialias, int) or not 0 <= antialias <= MOST_SAMPLES:
            raise ValueError(
                "`antialias` must be True, False or an integer up to "
                f"{MOST_SAMPLES}. Received: antialias={antialias!r}."
            )
        self.transform, self.border, self.antialias = transform, border, antialias
        self.align_corners = bool(align_corners)

    def build(self, input_shape: Any) -> None:
        """Check the shapes."""
        if len(input_shape) != 2 or len(input_shape[0]) != 4 or len(input_shape[1]) != 2:
            raise ValueError(
                "`inputs` must be [image (B, H, W, C), theta (B, n)]. "
                f"Received: {[tuple(shape) for shape in input_shape]}."
            )
        image, theta = input_shape
        if theta[1] != self.theta_size:
            raise ValueError(f"theta of {self.transform} must be (B, {self.theta_size}). Received: {tuple(theta)}.")
        if image[3] is None or (self.antialias is True and None in image[1:3]):
            raise ValueError(
                "The image's channels must be known, and its size for `antialias=True`; give an integer for an open "
                f"size. Received: shape={tuple(image)}."
            )
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The sampled image, see the class."""
        image, theta = inputs
        samples, (height, width) = self._samples(image.shape), self.output_hw
        sizes = [known if known is not None else found for known, found in _sizes(image)]
        lines = grid_line(height, samples, self.align_corners), grid_line(width, samples, self.align_corners)
        moved = displacement(ops.cast(theta, "float32"), self.transform, lines, self.control)
        x, y = (input_line(self.output_hw[axis], samples, self.align_corners, sizes[axis]) for axis in (1, 0))
        half_y, half_x = (_half(size, self.align_corners) for size in sizes)
        out = bilinear_sample(
            image, x[None, None, :] + moved[0] * half_x, y[None, :, None] + moved[1] * half_y, self.border
        )
        if samples > 1:
            out = ops.reshape(out, (-1, height, samples, width, samples * image.shape[3]))
            out = ops.reshape(ops.mean(out, axis=2), (-1, height, width, samples, image.shape[3]))
            out = ops.mean(out, axis=3)
        return ops.cast(out, self.compute_dtype)

    def _samples(self, image: Any) -> int:
        if self.antialias is not True:
            return max(int(self.antialias), 1)
        return max(math.ceil(n / out) for n, out in zip(image[1:3], self.output_hw, strict=True))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(B, h, w, C)."""
        image, _ = input_shape
        return image[0], *self.output_hw, image[3]

    def compute_output_spec(self, inputs: Any) -> Any:
        """The layer's type, whatever the image's is."""
        return keras.KerasTensor(self.compute_output_shape([x.shape for x in inputs]), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        names = ("output_hw", "transform", "align_corners", "border", "antialias", "control")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _sizes(image: Any) -> list[tuple[int | None, Any]]:
    return list(zip(image.shape[1:3], ops.shape(image)[1:3], strict=True))


def _half(size: Any, align_corners: bool) -> Any:
    """How many pixels a step of 1 on [-1, 1] is."""
    return (size - align_corners) / 2 if isinstance(size, int) else ops.cast(size - int(align_corners), "float32") / 2
