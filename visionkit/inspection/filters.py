"""The filters of a network's first convolution as one picture."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.inspection.walk import functional_of, is_network, name_of, nodes_of

__all__ = ["filter_grid", "first_filters"]

Picture = npt.NDArray[np.uint8]
GAP = 2
GROUND = 255


def first_filters(model: keras.Model) -> tuple[str, npt.NDArray[np.float32]]:
    """Name of the first convolution and its kernel float32 (kh, kw, C, filters).

    Raises:
        ModelError: `model-unfit`; there is no convolution.
    """
    found = _first(functional_of(model), "")
    if found is None:
        raise ModelError("model-unfit", f"{model.name!r} has no convolution over an image.")
    name, layer = found
    kernel = layer.kernel if getattr(layer, "kernel", None) is not None else layer.depthwise_kernel
    return name, np.asarray(keras.ops.convert_to_numpy(kernel), np.float32)


def _first(functional: Any, prefix: str) -> tuple[str, Any] | None:
    for node in nodes_of(functional):
        layer, name = node.operation, f"{prefix}{name_of(node.operation)}"
        if is_network(layer):
            inner = _first(functional_of(layer), f"{name}/")
            if inner is not None:
                return inner
        elif type(layer).__name__ in ("Conv2D", "SeparableConv2D", "DepthwiseConv2D"):
            return name, layer
    return None


def filter_grid(kernel: npt.NDArray[np.float32], *, tile: int = 44, order: str = "rgb") -> Picture:
    """The filters side by side, uint8 (H, W, 3) BGR, each stretched over its own range: mid grey is not zero.

    Three input channels are shown in colour, one in grey; of others each filter's strongest channel is shown in grey.

    Args:
        kernel: float32 (kh, kw, C, filters).
        tile: least pixels along a filter's longer side.
        order: what the channels are, `rgb` or `bgr`.
    """
    if kernel.ndim != 4 or not kernel.size:
        raise ValueError(f"`kernel` must be (kh, kw, C, filters). Received: shape={kernel.shape}.")
    scale = max(1, -(-tile // max(kernel.shape[:2])))
    tiles = [_tile(kernel[..., i], order) for i in range(kernel.shape[3])]
    tiles = [np.kron(image, np.ones((scale, scale, 1), np.uint8)) for image in tiles]
    height, width = tiles[0].shape[:2]
    columns = math.ceil(math.sqrt(len(tiles) * height / width * 1.6))  # about as wide as a screen
    rows = -(-len(tiles) // columns)
    grid = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), GROUND, np.uint8)
    for i, image in enumerate(tiles):
        top, left = (GAP + (i // columns) * (height + GAP)), (GAP + (i % columns) * (width + GAP))
        grid[top : top + height, left : left + width] = image
    return grid


def _tile(weights: npt.NDArray[np.float32], order: str) -> Picture:
    """One filter (kh, kw, C) as uint8 (kh, kw, 3) BGR."""
    if weights.shape[2] == 3:
        weights = weights[..., ::-1] if order == "rgb" else weights
    else:
        strongest = int(np.square(weights).sum(axis=(0, 1)).argmax())
        weights = np.repeat(weights[..., strongest : strongest + 1], 3, axis=2)
    low, high = float(weights.min()), float(weights.max())
    level = (weights - low) / (high - low) if high > low else np.full_like(weights, 0.5)
    return np.rint(level * 255).astype(np.uint8)
