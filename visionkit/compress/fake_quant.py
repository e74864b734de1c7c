"""Fake quantization: numbers rounded to what eight bits can say, with gradients as if they had not been. Any backend.

Jacob et al., Quantization and training of neural networks for efficient integer-arithmetic-only inference, CVPR 2018,
section 3.1, with the ranges of LiteRT's quantization specification: weights symmetric, -127 to 127, a scale for each
output channel; activations asymmetric, -128 to 127, one scale and one zero point for a tensor, zero exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

__all__ = [
    "MIDDLES",
    "FakeQuant",
    "affine_levels",
    "fake_quantize",
    "fake_quantize_weights",
    "quantize_weights",
    "weight_scales",
]

WEIGHT_LEVELS = 127
LOWEST, HIGHEST = -128, 127
# As a site: round to levels found elsewhere what an average, or a resizing, has made of them.
MIDDLES = {-1: "away", -2: "up"}
MIDDLE = 1e-4  # of a level: how near to the middle is in the middle
LEAST_WIDTH = 1e-6  # of a range of activations: below it, float32 has no levels to tell apart

Floats = npt.NDArray[np.float32]
Range = tuple[float, float]


def weight_scales(kernel: Any, axes: Sequence[int]) -> Any:
    """The scales of a kernel, of its rank: the largest magnitude over `axes`, divided by 127; 1 where all is zero."""
    largest = ops.max(ops.abs(kernel), axis=tuple(axes), keepdims=True)
    return ops.where(largest > 0, largest / WEIGHT_LEVELS, ops.ones_like(largest))


def fake_quantize_weights(kernel: Any, axes: Sequence[int]) -> Any:
    """`round(kernel / scale) * scale`, of the kernel's shape; the gradient is 1.

    Args:
        kernel: weights of any rank.
        axes: those that share a scale: all but the output channels'.
    """
    scales = ops.stop_gradient(weight_scales(kernel, axes))
    levels = ops.clip(ops.round(kernel / scales), -WEIGHT_LEVELS, WEIGHT_LEVELS)
    return _straight_through(levels * scales, kernel)


def quantize_weights(kernel: Floats, axes: Sequence[int]) -> tuple[npt.NDArray[np.int8], Floats]:
    """The levels, int8 of the kernel's shape, and the scales; their product is `fake_quantize_weights`."""
    kernel = np.asarray(kernel, np.float32)
    largest = np.abs(kernel).max(axis=tuple(axes), keepdims=True)
    scales = np.where(largest > 0, largest / np.float32(WEIGHT_LEVELS), np.float32(1)).astype(np.float32)
    return np.clip(np.round(kernel / scales), -WEIGHT_LEVELS, WEIGHT_LEVELS).astype(np.int8), scales


def affine_levels(low: Any, high: Any) -> tuple[Any, Any]:
    """Scale and zero point of a range, scalars: it is widened to hold zero, and moved so that zero is a level."""
    low, high = ops.minimum(low, 0.0), ops.maximum(high, 0.0)
    scale = ops.maximum(high - low, LEAST_WIDTH) / (HIGHEST - LOWEST)
    return scale, ops.clip(ops.round(LOWEST - low / scale), LOWEST, HIGHEST)


def fake_quantize(x: Any, low: Any, high: Any, *, middle: str = "even") -> Any:
    """`x` rounded to the 256 levels between `low` and `high`, which are scalars.

    What lies in the `middle` of two levels goes to the `even` one; or, with what float32 cannot tell from it, `away`
    from zero, as LiteRT's averages of integers do, or `up`, as its resizing does.

    The gradient is 1 for what lies within the levels, 0 outside; what lies outside goes to `low` or `high` instead, so
    that they can be learnt (Choi et al., PACT, 2018; the rule of TensorFlow's `fake_quant_with_min_max_vars`).
    """
    scale, zero = (ops.stop_gradient(value) for value in affine_levels(low, high))
    levels = ops.round(x / scale) + zero if middle == "even" else _rounded(x / scale + zero, middle)
    levels = ops.clip(levels, LOWEST, HIGHEST)
    least, most = (LOWEST - zero) * scale, (HIGHEST - zero) * scale
    passed = ops.where(x < least, low, ops.where(x > most, high, x))
    return _straight_through((levels - zero) * scale, passed)


def _rounded(levels: Any, middle: str) -> Any:
    if middle == "away":
        return ops.sign(levels) * ops.floor(ops.abs(levels) + (0.5 + MIDDLE))
    return ops.floor(levels + (0.5 + MIDDLE))


def _straight_through(value: Any, passed: Any) -> Any:
    """Exactly `value`, with the gradient of `passed` (Bengio, Léonard, Courville, 2013): what is added is zero."""
    return ops.stop_gradient(value) + (passed - ops.stop_gradient(passed))


@keras.saving.register_keras_serializable(package="visionkit")
class FakeQuant(keras.layers.Layer):
    """A tensor of any shape rounded to the 256 levels of its range.

    The range is a running mean of what batches hold, from training (`fit`) or `calibrating`; the first batch sets it.
    Until then, the layer does nothing. Tensors that must have one scale (what is concatenated) share one layer, each
    with a range of its own at its `site`, and the widest over all sites is used.

    Args:
        sites: how many tensors share the layer.
        fixed: (low, high) in the place of a range that is found, such as that of a sigmoid.
        learned: the range is learnt by gradient from where calibration put it.
        momentum: of the running mean.

    Attributes:
        calibrating: while true, every call (run eagerly) takes its batch into the range.
    """

    def __init__(
        self,
        sites: int = 1,
        fixed: Sequence[float] | None = None,
        *,
        learned: bool = False,
        momentum: float = 0.99,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(sites, bool) or not isinstance(sites, int) or sites < 1:
            raise ValueError(f"`sites` must be a positive integer. Received: sites={sites!r}.")
        if fixed is not None and not (len(fixed) == 2 and fixed[0] <= 0 <= fixed[1] and fixed[0] < fixed[1]):
            raise ValueError(f"`fixed` must be (low, high) around 0. Received: fixed={fixed!r}.")
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be from 0 to below 1. Received: momentum={momentum!r}.")
        self.sites, self.learned, self.momentum = sites, learned, momentum
        self.fixed: Range | None = None if fixed is None else (float(fixed[0]), float(fixed[1]))
        self.calibrating = False

    def build(self, input_shape: Any) -> None:
        """Make the ranges `low` and `high` (sites,), which of them were `seen`, and whether they are still `moving`."""
        if self.fixed is None:
            options: dict[str, Any] = {"shape": (self.sites,), "initializer": "zeros", "dtype": "float32"}
            self.low = self.add_weight(name="low", trainable=self.learned, **options)
            self.high = self.add_weight(name="high", trainable=self.learned, **options)
            self.seen = self.add_weight(name="seen", trainable=False, **options)
            options |= {"shape": (), "initializer": "ones"}
            self.moving = self.add_weight(name="moving", trainable=False, **options)
        self.built = True

    def call(self, inputs: Any, site: int = 0, training: bool | None = None) -> Any:
        """The rounded tensor, see the class; `site` says whose range the tensor's is; one of `MIDDLES` is none."""
        if self.fixed is not None:
            return fake_quantize(inputs, *self.fixed, middle=MIDDLES.get(site, "even"))
        if self.calibrating or (training and not self.learned):
            self._observe(inputs, site)
        rounded = fake_quantize(inputs, ops.min(self.low), ops.max(self.high), middle=MIDDLES.get(site, "even"))
        return ops.where(ops.max(self.seen) > 0, rounded, inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        names = ("sites", "fixed", "learned", "momentum")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def range(self) -> Range | None:
        """The range as it stands, or None where no batch was seen."""
        if self.fixed is not None:
            return self.fixed
        if not np.asarray(ops.convert_to_numpy(self.seen)).any():
            return None
        return float(ops.min(self.low)), float(ops.max(self.high))

    def levels(self) -> tuple[float, int] | None:
        """Scale and zero point of the range as it stands."""
        found = self.range()
        if found is None:
            return None
        scale, zero = affine_levels(ops.convert_to_tensor(found[0], "float32"), found[1])
        return float(scale), int(zero)

    def _observe(self, inputs: Any, site: int) -> None:
        """Move the range of a site towards that of a batch, or set it where it is the first."""
        here = ops.cast(ops.arange(self.sites) == site, "float32")
        rate = ops.where(self.seen > 0, 1.0 - self.momentum, 1.0) * here * self.moving
        inputs = ops.stop_gradient(inputs)
        for variable, found in ((self.low, ops.min(inputs)), (self.high, ops.max(inputs))):
            variable.assign(variable + rate * (ops.cast(found, "float32") - variable))
        self.seen.assign(ops.maximum(self.seen, here))
