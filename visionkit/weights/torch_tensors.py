"""Arrays over the bytes of a checkpoint, made only after every size, stride and offset was found to fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.weights.torch_pickle import MAX_DIMENSIONS, StorageRef, TensorRef, brief

__all__ = ["item_size", "make_arrays", "state_of"]

Bytes = npt.NDArray[np.uint8]
CONTAINERS = ("state_dict", "model_state_dict", "model")
MAX_SHARING = 4  # tied weights double a network; more of the same bytes is a bomb for whoever copies the tensors


def item_size(dtype: str) -> int:
    """Bytes of one element."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def state_of(value: Any, where: str) -> dict[str, TensorRef]:
    """The state dict in an unpickled value: itself, or what it holds under `state_dict` or `model`.

    Names that all begin with `module.` (a network saved from inside `DataParallel`) lose it.

    Raises:
        ModelError: `model-corrupt`; there is none.
    """
    state = value
    for name in CONTAINERS:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not state:
        raise ModelError(
            "model-corrupt", f"{where} holds {brief(value)} without tensors, where a state dict was expected."
        )
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, TensorRef):
            raise ModelError(
                "model-corrupt",
                f"{where} holds {brief(tensor)} under {brief(name)}, where a tensor was expected. Save only "
                "`model.state_dict()`, alone or as `state_dict` of a dictionary.",
            )
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def make_arrays(
    state: Mapping[str, TensorRef],
    storage: Callable[[StorageRef], Bytes],
    *,
    file_bytes: int,
    byteorder: str,
    where: str,
) -> dict[str, np.ndarray]:
    """The tensors as arrays: read-only views of the file where the element type allows it.

    Args:
        state: what the file says of each tensor.
        storage: gives the bytes of a storage, after checking that they are as many as the storage claims.
        file_bytes: size of the file; all tensors together may take `MAX_SHARING` times that.
        byteorder: `little` or `big`, that of the file.
        where: the file's name in messages.

    Raises:
        ModelError: `model-corrupt`, a tensor does not lie in its storage; `model-unsafe`, tensors are larger than what
            they are made of.
    """
    raw = {name: storage(tensor.storage) for name, tensor in state.items()}
    total = 0
    for name, tensor in state.items():
        _check(name, tensor, where)
        total += math.prod(tensor.size) * max(item_size(tensor.storage.dtype), 4)
        if total > MAX_SHARING * max(file_bytes, 1):
            raise ModelError(
                "model-unsafe",
                f"{where} has {file_bytes} bytes, and its tensors up to {name[:200]!r} would take {total}: the same "
                "bytes many times. Save a contiguous copy of each tensor.",
            )
    return {name: _array(tensor, raw[name], byteorder) for name, tensor in state.items()}


def _check(name: str, tensor: TensorRef, where: str) -> None:
    size, stride, count = tensor.size, tensor.stride, _count(tensor.storage)
    fits = len(size) == len(stride) <= MAX_DIMENSIONS and min((0, tensor.offset, *size, *stride)) == 0
    numbers = math.prod(size) if fits else 0
    last = tensor.offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) if fits else 0
    if not fits or (numbers and last >= count) or tensor.offset > count:
        raise ModelError(
            "model-corrupt",
            f"{where}: the tensor {name[:200]!r} (size {_list(size)}, stride {_list(stride)}, offset "
            f"{brief(tensor.offset)}) does not lie inside its storage of {brief(count)} elements. Fetch it again.",
        )
    if numbers > count:
        raise ModelError(
            "model-unsafe",
            f"{where}: the tensor {name[:200]!r} of {brief(numbers)} elements is made of {brief(count)} by repetition. "
            "Save a contiguous copy of it.",
        )


def _count(storage: StorageRef) -> int:
    return storage.count if storage.view is None else storage.view[2]


def _list(values: tuple[int, ...]) -> str:
    return f"({', '.join(brief(value) for value in values[:8])}{', …' if len(values) > 8 else ''})"


def _array(tensor: TensorRef, raw: Bytes, byteorder: str) -> np.ndarray:
    """One tensor over the bytes of its storage; of bfloat16 a float32 copy, of foreign byte order a native one."""
    kept = "uint16" if tensor.storage.dtype == "bfloat16" else tensor.storage.dtype
    kept = "uint8" if kept == "bool" else kept
    dtype = np.dtype(kept).newbyteorder("<" if byteorder == "little" else ">")
    values: np.ndarray = np.ndarray(
        tensor.size,
        dtype,
        raw.data if raw.size else b"",
        offset=tensor.offset * dtype.itemsize if math.prod(tensor.size) else 0,
        strides=tuple(step * dtype.itemsize for step in tensor.stride),
    )
    values.flags.writeable = False
    if tensor.storage.dtype == "bfloat16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    if tensor.storage.dtype == "bool":
        return values != 0
    return values if dtype.isnative else values.astype(dtype.newbyteorder("="))
