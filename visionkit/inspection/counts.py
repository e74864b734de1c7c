"""Parameters and multiply-adds of layers from their sizes alone, shared and unshared."""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["Count", "convolution_macs", "count_convolution", "count_dense", "count_locally_connected"]

Pair = tuple[int, int]


class Count(NamedTuple):
    """Parameters of a layer; `units` are its outputs for one sample."""

    weights: int
    biases: int
    units: int

    @property
    def total(self) -> int:
        """Weights and biases."""
        return self.weights + self.biases


def count_convolution(
    kernel_hw: Pair, channels: int, filters: int, *, output_hw: Pair = (1, 1), groups: int = 1, bias: bool = True
) -> Count:
    """Of a convolution, whose filters are shared by all positions: Cout x (Cin / groups) x K x K, and Cout biases."""
    _check(*kernel_hw, *output_hw, channels, filters, groups)
    if channels % groups or filters % groups:
        raise ValueError(
            f"`groups` must divide the channels. Received: groups={groups}, channels={channels}, filters={filters}."
        )
    weights = math.prod(kernel_hw) * (channels // groups) * filters
    return Count(weights, filters if bias else 0, math.prod(output_hw) * filters)


def count_locally_connected(
    output_hw: Pair, kernel_hw: Pair, channels: int, filters: int, *, bias: bool = True
) -> Count:
    """Of the same windows with weights of their own at every position.

    AlexNet's first layer, 55 x 55 x 96 outputs of 11 x 11 x 3: 290,400 * 363 weights and 290,400 biases, together
    105,705,600, where sharing needs 34,848 + 96.
    """
    _check(*output_hw, *kernel_hw, channels, filters)
    units = math.prod(output_hw) * filters
    return Count(units * math.prod(kernel_hw) * channels, units if bias else 0, units)


def count_dense(inputs: int, outputs: int, *, bias: bool = True) -> Count:
    """Of a fully connected layer: 200 x 200 pixels to as many units are 1.6e9 weights."""
    _check(inputs, outputs)
    return Count(inputs * outputs, outputs if bias else 0, outputs)


def convolution_macs(output_hw: Pair, kernel_hw: Pair, channels: int, filters: int, *, groups: int = 1) -> int:
    """Multiply-adds of a convolution: M K^2 N (D - K + 1)^2 for M maps of D x D, N filters of K x K, no padding."""
    count = count_convolution(kernel_hw, channels, filters, groups=groups, bias=False)
    return count.weights * math.prod(output_hw)


def _check(*sizes: int) -> None:
    if min(sizes) < 1:
        raise ValueError(f"Sizes must be positive. Received: {', '.join(map(str, sizes))}.")
