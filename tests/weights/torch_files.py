"""PyTorch checkpoints written without PyTorch: what `torch.save(state_dict, …)` writes, opcode by opcode."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
    "bfloat16": "BFloat16Storage",
}


@dataclass
class Tensor:
    """A tensor over part of a storage; two of them may share one. Offset and stride count elements."""

    storage: np.ndarray
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str = ""
    parameter: bool = False

    def kind(self) -> str:
        return self.dtype or self.storage.dtype.name


def whole(array: np.ndarray) -> Tensor:
    """A tensor with a storage of its own; a transposed array keeps its strides, as PyTorch's would."""
    array = np.asarray(array)
    base = array if array.base is None or array.flags.c_contiguous else array.base
    if not base.flags.c_contiguous or base.size != array.size:
        base = array = np.ascontiguousarray(array)
    return Tensor(base.ravel(), 0, array.shape, tuple(step // array.itemsize for step in array.strides))


class Opcodes:
    """The opcodes of protocol 2 that PyTorch's pickles consist of."""

    def __init__(self) -> None:
        self.out = io.BytesIO()
        self.out.write(pickle.PROTO + b"\x02")

    def raw(self, code: bytes) -> Opcodes:
        self.out.write(code)
        return self

    def name(self, module: str, name: str) -> Opcodes:
        return self.raw(f"c{module}\n{name}\n".encode())

    def value(self, value: Any) -> Opcodes:
        if value is None or isinstance(value, bool):
            return self.raw({None: b"N", True: b"\x88", False: b"\x89"}[value])
        if isinstance(value, int):
            if 0 <= value < 256:
                return self.raw(b"K" + bytes([value]))
            if -(2**31) <= value < 2**31:
                return self.raw(b"J" + struct.pack("<i", value))
            raw = pickle.encode_long(value)
            return self.raw(b"\x8a" + bytes([len(raw)]) + raw)
        if isinstance(value, str):
            raw = value.encode()
            return self.raw(b"X" + struct.pack("<I", len(raw)) + raw)
        if isinstance(value, tuple):
            self.raw(b"(")
            for item in value:
                self.value(item)
            return self.raw(b"t")
        raise TypeError(type(value).__name__)

    def ordered_dict(self) -> Opcodes:
        return self.name("collections", "OrderedDict").raw(b")R")

    def end(self) -> bytes:
        return self.raw(b".").out.getvalue()


class Storages:
    """Storages by identity, numbered as they come."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []

    def key(self, array: np.ndarray) -> str:
        for number, known in enumerate(self.arrays):
            if known is array:
                return str(number)
        self.arrays.append(array)
        return str(len(self.arrays) - 1)


def put_tensor(codes: Opcodes, tensor: Tensor, storages: Storages, legacy: bool) -> None:
    if tensor.parameter:
        codes.name("torch._utils", "_rebuild_parameter").raw(b"(")
    codes.name("torch._utils", "_rebuild_tensor_v2").raw(b"((")
    codes.value("storage").name("torch", STORAGES[tensor.kind()]).value(storages.key(tensor.storage))
    codes.value("cpu").value(tensor.storage.size)
    if legacy:
        codes.value(None)
    codes.raw(b"tQ").value(tensor.offset).value(tensor.size).value(tensor.stride).value(False)
    codes.ordered_dict().raw(b"tR")
    if tensor.parameter:
        codes.value(True).ordered_dict().raw(b"tR")


def pickle_state(
    state: Mapping[str, np.ndarray | Tensor], storages: Storages, *, inside: tuple[str, ...] = (), legacy: bool = False
) -> bytes:
    """The pickle of a state dict: an OrderedDict with `_metadata`, inside of dictionaries under the keys `inside`."""
    codes = Opcodes()
    for key in inside:
        codes.raw(b"}").value(key)
    codes.ordered_dict().raw(b"(")
    for name, tensor in state.items():
        codes.value(name)
        put_tensor(codes, tensor if isinstance(tensor, Tensor) else whole(tensor), storages, legacy)
    codes.raw(b"u}").value("_metadata").ordered_dict().value("").raw(b"}").value("version").value(1)
    codes.raw(b"sssb")
    for _ in inside:
        codes.raw(b"s")
    return codes.end()


def write_checkpoint(path: Path, state: Mapping[str, np.ndarray | Tensor], *, inside: tuple[str, ...] = ()) -> Path:
    """Write `state` to `path` as `torch.save` does since PyTorch 1.6: a zip of a pickle and the bytes of each storage.

    Args:
        path: any name; PyTorch names the folder inside after it.
        state: arrays, or tensors that share storages or are not contiguous.
        inside: keys of dictionaries around it, such as ("state_dict",).
    """
    storages = Storages()
    data = pickle_state(state, storages, inside=inside)
    members = {"data.pkl": data, ".format_version": b"1", ".storage_alignment": b"64", "byteorder": b"little"}
    members |= {f"data/{number}": little(array) for number, array in enumerate(storages.arrays)}
    members |= {"version": b"3\n", ".data/serialization_id": b"0" * 40}
    write_members(path, members)
    return path


def little(array: np.ndarray) -> bytes:
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def write_members(
    path: Path, members: Mapping[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None
) -> None:
    """A zip as PyTorch lays it out: stored, the bytes of each member at a multiple of 64."""
    root = path.stem
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(f"{root}/{name}")
            start = archive.fp.tell() + 30 + len(info.filename.encode())
            padding = -(start + 4) % 64
            info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
            if change is not None:
                change(info)
            archive.writestr(info, data, info.compress_type)


def write_legacy(path: Path, state: Mapping[str, np.ndarray | Tensor], *, inside: tuple[str, ...] = ()) -> Path:
    """Write `state` to `path` as `torch.save` did before PyTorch 1.6: five pickles, then the storages."""
    storages = Storages()
    data = pickle_state(state, storages, inside=inside, legacy=True)
    facts = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, facts)]
    keys = pickle.dumps([str(number) for number in range(len(storages.arrays))], 2)
    with path.open("wb") as file:
        file.write(b"".join([*head, data, keys]))
        for array in storages.arrays:
            file.write(struct.pack("<q", array.size) + little(array))
    return path
