"""Weights on disk: Keras's `.weights.h5` with its numbers in half precision, half as large to ship."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from visionkit.errors import ModelError

if TYPE_CHECKING:
    import keras

__all__ = ["save_half"]


def save_half(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Write the weights of `model` to `path`, a `.weights.h5` whose floating numbers are float16, rounded to nearest.

    Keras loads it into float32 variables as it loads any other. The file is written beside its name and renamed.

    Raises:
        ModelError: `model-not-finite`; a weight is not finite, or not in the range of float16 (65504).
    """
    import h5py

    final = Path(path)
    full = final.with_name(f".{final.name.removesuffix('.weights.h5')}.full.weights.h5")
    half = final.with_name(f".{final.name}.part")
    model.save_weights(full)
    try:
        with h5py.File(full) as source, h5py.File(half, "w") as target:
            source.visititems(lambda name, item: _copy(name, item, target))
        half.replace(final)
    finally:
        full.unlink(missing_ok=True)
        half.unlink(missing_ok=True)


def _copy(name: str, item: object, target: object) -> None:
    import h5py

    if not isinstance(target, h5py.File):
        raise TypeError(f"`target` must be an open HDF5 file. Received: {type(target).__name__}.")
    if isinstance(item, h5py.Group):
        made = target.require_group(name)
    elif isinstance(item, h5py.Dataset):
        values = np.asarray(item)
        if np.issubdtype(values.dtype, np.floating):
            with np.errstate(over="ignore"):
                values = values.astype(np.float16)
            if not np.isfinite(values).all():
                raise ModelError("model-not-finite", f"The weights {name} hold a number that float16 cannot.")
        made = target.create_dataset(name, data=values)
    else:
        return
    for key, value in item.attrs.items():
        made.attrs[key] = value
