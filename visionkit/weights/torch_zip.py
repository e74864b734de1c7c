"""PyTorch checkpoints without PyTorch: the zip format of `torch.save` since 1.6, and the one before (`torch_legacy`).

Nothing of the file is executed and nothing is written anywhere: tensors are read-only views of the mapped file.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.weights.file_kind import file_kind, open_size
from visionkit.weights.torch_legacy import is_legacy, read_legacy
from visionkit.weights.torch_pickle import MAX_PICKLE_BYTES, StorageRef, unpickle
from visionkit.weights.torch_tensors import item_size, make_arrays, state_of

__all__ = ["read_checkpoint"]

Bytes = npt.NDArray[np.uint8]
MAX_DIRECTORY_BYTES = 4 << 20  # the central directory: 40,000 tensors
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
ENCRYPTED = 0x1


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch checkpoint by name, in PyTorch's layout (convolution (out, in / groups, kh, kw)).

    It holds a state dict, or one under `state_dict` or `model`. Arrays are read-only views of the file, mapped into
    memory, so that a large one costs no second copy; bfloat16 becomes float32.

    Raises:
        ModelError: `model-unsafe` if the file holds or names anything but tensors, or would take far more memory than
            its size; `model-corrupt` if it is damaged or no checkpoint, and then the message says what it is;
            `weights-missing` if it cannot be read.
    """
    file = Path(path)
    size = open_size(file)
    with file.open("rb") as opened:
        head = opened.read(64)
    if is_legacy(head):
        return read_legacy(file)
    if head[:4] != b"PK\x03\x04":
        raise _not_a_checkpoint(file)
    raw: Bytes = np.memmap(file, np.uint8, "r")
    archive = _Archive(file, raw)
    value = unpickle(io.BytesIO(archive.text("data.pkl", MAX_PICKLE_BYTES)), str(file))
    order = archive.text("byteorder", 16).decode("latin-1") if archive.has("byteorder") else "little"
    if order not in ("little", "big"):
        raise _corrupt(file, f"its byte order is {order!r}, not little or big")
    state = state_of(value, str(file))
    return make_arrays(state, archive.storage, file_bytes=size, byteorder=order, where=str(file))


def _not_a_checkpoint(path: Path) -> ModelError:
    kind = file_kind(path)
    remedy = "Give the file that torch.save wrote."
    if kind.startswith(("a tar archive", "a pickle")):
        remedy = (
            "PyTorch files older than 0.1.10 and bare pickles are not read here: open it with PyTorch and write "
            "`torch.save(model.state_dict(), …)` again."
        )
    return ModelError("model-corrupt", f"{path} is no PyTorch checkpoint but {kind}. {remedy}")


def _corrupt(path: Path, what: str) -> ModelError:
    return ModelError("model-corrupt", f"{path} cannot be read as a PyTorch checkpoint: {what}. Fetch it again.")


class _Archive:
    """The members of a checkpoint's zip, each checked before its bytes are given out."""

    def __init__(self, path: Path, raw: Bytes) -> None:
        self._path, self._raw = path, raw
        self._members = self._directory()
        roots = [name.removesuffix("/data.pkl") for name in self._members if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise _corrupt(path, "it is a zip archive without one `data.pkl`, so not what torch.save writes")
        self._root = roots[0]
        self._checked: dict[str, Bytes] = {}

    def _directory(self) -> dict[str, zipfile.ZipInfo]:
        try:
            with self._path.open("rb") as file, zipfile.ZipFile(_Bounded(file, self._path)) as opened:
                entries = opened.infolist()
                self._end = opened.start_dir
        except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError, UnicodeError) as error:
            raise _corrupt(self._path, "it is a zip archive that ends early or is damaged") from error
        if any(entry.filename.endswith("/constants.pkl") for entry in entries):
            raise ModelError(
                "model-unsafe",
                f"{self._path} is a TorchScript program, not a checkpoint. Save `model.state_dict()` with torch.save.",
            )
        members: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            self._check_name(entry)
            if entry.filename in members:
                raise ModelError(
                    "model-unsafe", f"{self._path} has two members {entry.filename[:200]!r}; torch.save writes one."
                )
            members[entry.filename] = entry
        return members

    def _check_name(self, entry: zipfile.ZipInfo) -> None:
        name = entry.orig_filename
        path = PurePosixPath(name)
        outside = path.is_absolute() or ".." in path.parts or any(char in name for char in "\\:\0") or not name
        if outside or stat.S_ISLNK(entry.external_attr >> 16):
            what = "leaves the archive" if outside else "is a symbolic link"
            raise ModelError(
                "model-unsafe",
                f"{self._path} has a member {name[:200]!r} that {what}. torch.save writes no such thing: do "
                "not use the file.",
            )
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ModelError(
                "model-unsafe",
                f"{self._path}: the member {name[:200]!r} is compressed ({entry.compress_size} bytes to "
                f"{entry.file_size}). torch.save compresses nothing: unpack a packed file first, or save it again.",
            )
        if entry.flag_bits & ENCRYPTED:
            raise ModelError("model-unsafe", f"{self._path}: the member {name[:200]!r} is encrypted.")

    def has(self, name: str) -> bool:
        return f"{self._root}/{name}" in self._members

    def text(self, name: str, limit: int) -> bytes:
        """A small member, whole."""
        entry = self._members[f"{self._root}/{name}"]
        if entry.file_size > limit:
            raise ModelError(
                "model-unsafe",
                f"{self._path}: the member {name!r} has {entry.file_size} bytes; a list of tensors "
                f"has at most {limit}.",
            )
        return self._bytes(entry).tobytes()

    def storage(self, ref: StorageRef) -> Bytes:
        """The bytes of a storage; as many as it claims to have."""
        entry = self._members.get(f"{self._root}/data/{ref.key}")
        claimed = ref.count * item_size(ref.dtype)
        if entry is None or entry.file_size != claimed:
            there = "is not there" if entry is None else f"has {entry.file_size} bytes"
            raise _corrupt(
                self._path,
                f"the storage {ref.key[:80]!r} of {ref.count} {ref.dtype} claims {claimed} bytes, and its member "
                f"{there}",
            )
        if ref.key not in self._checked:
            self._checked[ref.key] = self._bytes(entry)
        return self._checked[ref.key]

    def _bytes(self, entry: zipfile.ZipInfo) -> Bytes:
        """The stored bytes of a member, found behind its own header and checked against its CRC-32."""
        start = entry.header_offset + LOCAL_HEADER.size
        if not 0 <= entry.header_offset <= start <= self._end:
            raise _corrupt(self._path, f"the member {entry.filename[:200]!r} lies outside of the file")
        signature, *_, name_length, extra_length = LOCAL_HEADER.unpack(self._raw[entry.header_offset : start].tobytes())
        name = self._raw[start : start + name_length].tobytes()
        start += name_length + extra_length
        end = start + entry.file_size
        same = signature == b"PK\x03\x04" and name == entry.orig_filename.encode("utf-8", "replace")
        if not same or end > self._end:
            raise _corrupt(self._path, f"the member {entry.filename[:200]!r} lies outside of the file")
        data = self._raw[start:end]
        if zlib.crc32(data.data) != entry.CRC:
            raise _corrupt(self._path, f"the member {entry.filename[:200]!r} does not have its checksum (CRC-32)")
        return data


class _Bounded:
    """A file that gives no more at once than a central directory may have."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self.seek, self.tell = file.seek, file.tell

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """`zipfile` closes what it was given; ours is closed by who opened it."""

    def read(self, count: int = -1) -> bytes:
        if count > MAX_DIRECTORY_BYTES:
            raise ModelError(
                "model-unsafe",
                f"{self._path} has a directory of {count} bytes; a checkpoint has at most {MAX_DIRECTORY_BYTES}.",
            )
        return self._file.read(count if count >= 0 else MAX_DIRECTORY_BYTES)
