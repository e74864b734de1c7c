"""What the functions on boxes ask of their arguments: float32 or float64 arrays of the right shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["as_boxes", "as_floats", "as_vector"]

Floats = npt.NDArray[Any]


def as_floats(value: npt.ArrayLike) -> Floats:
    """The array as it is where it is float64, else as float32."""
    array = np.asarray(value)
    return array if array.dtype == np.float64 and isinstance(value, np.ndarray) else array.astype(np.float32)


def as_boxes(value: npt.ArrayLike, name: str, *, rank: int | None = 2) -> Floats:
    """Boxes (N, 4), or (..., 4) with `rank=None`; an empty list is no boxes.

    Raises:
        ValueError: the shape is another one.
    """
    boxes = as_floats(value)
    if boxes.size == 0 and boxes.ndim == 1:
        boxes = boxes.reshape(0, 4)
    if boxes.shape[-1:] != (4,) or (rank is not None and boxes.ndim != rank):
        wanted = "(..., 4)" if rank is None else "(N, 4)"
        raise ValueError(f"`{name}` must be {wanted}. Received: shape={boxes.shape}.")
    return boxes


def as_vector(value: npt.ArrayLike, name: str, length: int, *, dtype: Any = None) -> Floats:
    """One number for each box: floats (N,), or of `dtype`.

    Raises:
        ValueError: they are not (N,).
    """
    vector = as_floats(value) if dtype is None else np.asarray(value, dtype=dtype)
    if vector.shape != (length,):
        raise ValueError(f"`{name}` must hold one number for each of {length} boxes. Received: shape={vector.shape}.")
    return vector
