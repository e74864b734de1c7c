"""Arrays in a `.npz`, written without times and read without pickles, within bounds that are checked before memory is
taken."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

__all__ = ["ProbesError", "pack_probes", "unpack_probes"]

Array = npt.NDArray[Any]

EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip's first: the same arrays make the same bytes
MOST_ARRAYS = 10_000


class ProbesError(Exception):
    """What is wrong with the arrays, in a few words."""


def pack_probes(arrays: Mapping[str, Array]) -> bytes:
    """The arrays as the bytes of a compressed `.npz`."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in sorted(arrays.items()):
            one = io.BytesIO()
            npy.write_array(one, np.ascontiguousarray(array).reshape(np.shape(array)), allow_pickle=False)
            archive.writestr(zip_entry(f"{name}.npy"), one.getvalue())
    return whole.getvalue()


def unpack_probes(raw: bytes, limit: int) -> dict[str, Array]:
    """The arrays in a `.npz` of at most `limit` bytes unpacked.

    Raises:
        ProbesError: it is damaged, too large, or holds objects.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = archive.infolist()
            if len(members) > MOST_ARRAYS or sum(member.file_size for member in members) > limit + 256 * len(members):
                raise ProbesError(f"its probes unpack to more than {limit >> 20} MiB")
            return {m.filename.removesuffix(".npy"): _array(archive.read(m)) for m in members}
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ProbesError(f"its probes are damaged ({error})") from error


def _array(raw: bytes) -> Array:
    """One array of a `.npy`, whose header must tell what there is."""
    stream = io.BytesIO(raw)
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of version {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject or dtype.fields or dtype.kind not in "biuf":
        raise ValueError(f"an array of {dtype}")
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count * dtype.itemsize != len(raw) - stream.tell():
        raise ValueError(f"an array of shape {shape} in {len(raw)} bytes")
    values = np.frombuffer(raw, dtype, count, stream.tell()).copy()
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def zip_entry(name: str) -> zipfile.ZipInfo:
    """A member that is compressed and bears no time."""
    info = zipfile.ZipInfo(name, EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info
