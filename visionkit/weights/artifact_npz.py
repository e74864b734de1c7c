"""Arrays in a `.npz`, written without times and read without pickles, within bounds that are checked before memory is
taken.

An array (1, H, W, C) that is a function of each channel's levels of an image (H, W, C) that is stored too, as a
network's input mostly is, is stored as that function's table float32 (256, C), under the name `ARRAY@IMAGE`.
"""

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
LEVELS, OF = 256, "@"


class ProbesError(Exception):
    """What is wrong with the arrays, in a few words."""


def pack_probes(arrays: Mapping[str, Array]) -> bytes:
    """The arrays as the bytes of a compressed `.npz`.

    Raises:
        ValueError: a name has an `@` in it.
    """
    if unfit := [name for name in arrays if OF in name]:
        raise ValueError(f"names of arrays have no {OF!r} in them. Received: {unfit[0]!r}.")
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in sorted(_tabled(arrays).items()):
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
            found = {m.filename.removesuffix(".npy"): _array(archive.read(m)) for m in members}
            return _looked_up(found, limit)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ProbesError(f"its probes are damaged ({error})") from error


def _tabled(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays, those that follow from an image's levels as tables."""
    images = {name: one for name, one in arrays.items() if one.dtype == np.uint8 and one.ndim == 3}
    found: dict[str, Array] = {}
    for name, array in arrays.items():
        near = [key for key, image in images.items() if array.shape == (1, *image.shape) and array.dtype == np.float32]
        tables = ((key, table) for key in near if (table := _table(images[key], array[0])) is not None)
        key, kept = next(tables, ("", array))
        found[f"{name}{OF}{key}" if key else name] = kept
    return found


def _table(image: Array, array: Array) -> Array | None:
    """What each level of an image (H, W, C) becomes in an array of its shape, float32 (256, C); None if not the same
    everywhere."""
    table = np.zeros((LEVELS, image.shape[2]), np.float32)
    channels = np.arange(image.shape[2])
    table[image, channels] = array
    return table if table.size < array.size and np.array_equal(table[image, channels], array) else None


def _looked_up(stored: Mapping[str, Array], limit: int) -> dict[str, Array]:
    """The arrays with those in full that are stored as tables."""
    found = {name: array for name, array in stored.items() if OF not in name}
    total = sum(array.nbytes for array in found.values())
    for key, table in stored.items():
        name, tabled, of = key.partition(OF)
        if not tabled:
            continue
        image = found.get(of)
        if image is None or image.dtype != np.uint8 or image.ndim != 3 or name in found:
            raise ValueError(f"a table for {of!r}, which is no image")
        if table.dtype != np.float32 or table.shape != (LEVELS, image.shape[2]):
            raise ValueError(f"a table of {table.dtype} {table.shape}")
        total += image.size * table.itemsize
        if total > limit:
            raise ProbesError(f"its probes unpack to more than {limit >> 20} MiB")
        found[name] = table[image, np.arange(image.shape[2])][None]
    return found


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
