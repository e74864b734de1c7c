"""Where each format of exported models keeps files that belong to it, apart from the model itself.

A `.tflite`: a zip behind the flatbuffer. A `.keras`: members of its own zip. A SavedModel: `assets.extra/`. An `.onnx`:
`metadata_props` of the model, in base64. OpenVINO: beside NAME.xml, as NAME.visionkit.json, NAME.probes.npz and so on.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import re
import secrets
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from visionkit.weights.artifact_npz import zip_entry

__all__ = ["Damaged", "Store", "artifact_format", "folder_digest", "stores"]

Files = Mapping[str, bytes]

END = struct.Struct("<4s4H2LH")  # of a zip: mark, disks and counts, size and place of the list of members, comment
MAX_DIRECTORY_BYTES = 1 << 20
NAMES = ("visionkit.json", "labels.txt", "probes.npz")
_MEMBER = re.compile(rb"PK\x03\x04.{26}(?:" + b"|".join(re.escape(name.encode()) for name in NAMES) + b")", re.DOTALL)
FORMATS = {".tflite": "litert", ".keras": "keras", ".onnx": "onnx", ".xml": "openvino"}


class Damaged(Exception):  # noqa: N818 - a state of the file, told on by who knows its name
    """What is wrong with an artifact's files, in a few words."""


class Store(Protocol):
    """How one format keeps them. All raise `Damaged` and OSError."""

    def read(self, path: Path, name: str, limit: int) -> bytes | None:
        """One file of at most `limit` bytes; None if it is not there."""

    def write(self, path: Path, files: Files) -> None:
        """Keep these in the place of those that are there."""

    def model(self, path: Path) -> bytes:
        """The model's own bytes."""

    def sha256(self, path: Path) -> str:
        """Of the model alone."""


def artifact_format(path: Path) -> str | None:
    """`savedmodel`, `litert`, `keras`, `onnx` or `openvino`, by suffix and content; None for anything else."""
    if path.is_dir():
        return "savedmodel" if (path / "saved_model.pb").is_file() else None
    return FORMATS.get(path.suffix.lower()) if path.is_file() else None


def stores(kind: str) -> Store:
    """The store of a format."""
    return _STORES[kind]


def folder_digest(folder: Path, files: Iterable[Path]) -> str:
    """sha256 of files with their names in `folder` and their sizes."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(folder)}\0{file.stat().st_size}\0".encode(errors="surrogateescape"))
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


class _ZipTail:
    """A zip behind a flatbuffer, which readers of either do not mind."""

    def read(self, path: Path, name: str, limit: int) -> bytes | None:
        with _archive(path) as archive:
            if archive is not None:
                return _member(archive, name, limit)
        if _begun(path.read_bytes()):
            raise Damaged("it is cut off within its description")
        return None

    def write(self, path: Path, files: Files) -> None:
        tail = io.BytesIO()
        with zipfile.ZipFile(tail, "w") as archive:
            for name, content in files.items():
                archive.writestr(zip_entry(name), content)
        put_file(path, [self.model(path), tail.getvalue()])

    def model(self, path: Path) -> bytes:
        content = path.read_bytes()
        if content[4:8] != b"TFL3":
            raise Damaged("it is no LiteRT flatbuffer: the mark TFL3 is missing")
        return content[: self._end(path)]

    def sha256(self, path: Path) -> str:
        with path.open("rb") as file:
            return _sha256_of(file, self._end(path))

    @staticmethod
    def _end(path: Path) -> int:
        """Where the flatbuffer ends: at the zip's first member."""
        with _archive(path) as archive:
            if archive is None:
                return path.stat().st_size
            starts = [member.header_offset for member in archive.infolist()]
            return min([*starts, archive.start_dir])


class _KerasMembers:
    """Members of the archive that Keras writes."""

    def read(self, path: Path, name: str, limit: int) -> bytes | None:
        with _archive(path) as archive:
            return None if archive is None else _member(archive, name, limit)

    def write(self, path: Path, files: Files) -> None:
        whole = io.BytesIO(self.model(path))
        with zipfile.ZipFile(whole, "a") as archive:
            for name, content in files.items():
                archive.writestr(zip_entry(name), content)
        put_file(path, [whole.getvalue()])

    def model(self, path: Path) -> bytes:
        with _archive(path) as archive:
            if archive is None:
                raise Damaged("it is no .keras archive")
            if not set(NAMES) & set(archive.namelist()):
                return path.read_bytes()
            whole = io.BytesIO()
            with zipfile.ZipFile(whole, "w") as kept:
                for member in archive.infolist():
                    if member.filename not in NAMES:
                        with archive.open(member) as source, kept.open(member, "w") as target:
                            shutil.copyfileobj(source, target)
            return whole.getvalue()

    def sha256(self, path: Path) -> str:
        """Of the members' names and contents: when and how tightly they were packed does not matter."""
        digest = hashlib.sha256()
        with _archive(path) as archive:
            if archive is None:
                raise Damaged("it is no .keras archive")
            for member in sorted(archive.infolist(), key=lambda one: one.filename):
                if member.filename in NAMES:
                    continue
                digest.update(f"{member.filename}\0{member.file_size}\0".encode())
                with archive.open(member) as source:
                    digest.update(hashlib.file_digest(source, "sha256").digest())  # type: ignore[arg-type]
        return digest.hexdigest()


class _Beside:
    """Files beside the model's: in `assets.extra/` of a SavedModel, or with its stem in their names."""

    def __init__(self, *, inside: bool) -> None:
        self._inside = inside

    def read(self, path: Path, name: str, limit: int) -> bytes | None:
        place = self._place(path, name)
        if not place.is_file():
            return None
        with place.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise Damaged(f"{place.name} is larger than {limit} bytes")
        return content

    def write(self, path: Path, files: Files) -> None:
        for name in NAMES:
            place = self._place(path, name)
            place.parent.mkdir(exist_ok=True)
            if name in files:
                put_file(place, [files[name]])
            else:
                place.unlink(missing_ok=True)

    def model(self, path: Path) -> bytes:
        if self._inside:
            raise Damaged("it is a folder")
        return path.read_bytes()

    def sha256(self, path: Path) -> str:
        if self._inside:
            ours = {self._place(path, name) for name in NAMES}
            return folder_digest(path, (file for file in path.rglob("*") if file.is_file() and file not in ours))
        files = [file for file in (path, path.with_suffix(".bin")) if file.is_file()]
        return hashlib.sha256(b"".join(bytes.fromhex(_file_sha256(file)) for file in files)).hexdigest()

    def _place(self, path: Path, name: str) -> Path:
        return path / "assets.extra" / name if self._inside else path.with_name(f"{path.stem}.{name}")


class _OnnxProperties:
    """`metadata_props` (field 14) of the ModelProto, whose fields may stand in any order: ours are the last."""

    FIELD = 14

    def read(self, path: Path, name: str, limit: int) -> bytes | None:
        content = path.read_bytes()
        for begin, end in self._ours(content):
            key, value = _entry(content[begin:end])
            if key == _property(name):
                if len(value) > limit * 4 // 3 + 4:
                    raise Damaged(f"{name} is larger than {limit} bytes")
                try:
                    return base64.b64decode(value, validate=True)
                except ValueError as error:
                    raise Damaged(f"{name} is not in base64") from error
        return None

    def write(self, path: Path, files: Files) -> None:
        parts: list[bytes | memoryview] = list(self._others(path.read_bytes()))
        for name, content in files.items():
            entry = _field(1, _property(name)) + _field(2, base64.b64encode(content))
            parts.append(_field(self.FIELD, entry))
        put_file(path, parts)

    def model(self, path: Path) -> bytes:
        return b"".join(self._others(path.read_bytes()))

    def sha256(self, path: Path) -> str:
        digest = hashlib.sha256()
        for part in self._others(path.read_bytes()):
            digest.update(part)
        return digest.hexdigest()

    def _others(self, content: bytes) -> Iterator[memoryview]:
        view, last = memoryview(content), 0
        for number, begin, body, end in _fields(content):
            if number == self.FIELD and _entry(content[body:end])[0] in {_property(name) for name in NAMES}:
                yield view[last:begin]
                last = end
        yield view[last:]

    def _ours(self, content: bytes) -> Iterator[tuple[int, int]]:
        for number, _, body, end in _fields(content):
            if number == self.FIELD:
                yield body, end


_STORES: dict[str, Store] = {
    "litert": _ZipTail(),
    "keras": _KerasMembers(),
    "savedmodel": _Beside(inside=True),
    "openvino": _Beside(inside=False),
    "onnx": _OnnxProperties(),
}


def put_file(target: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a whole file in the place of what was there, or leave that."""
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile | None]:
    """The zip that a file is or ends in; None where there is none."""
    if not zipfile.is_zipfile(path):
        yield None
        return
    if _directory_bytes(path) > MAX_DIRECTORY_BYTES:
        raise Damaged("its archive has a list of members that is larger than any model's")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, zlib.error) as error:
        raise Damaged(f"its archive is damaged ({error})") from error


def _directory_bytes(path: Path) -> int:
    """How long a zip's list of members is, as its end says: reading it takes memory and time."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - (1 << 16) - END.size))
        tail = file.read()
    place = tail.rfind(b"PK\x05\x06")
    return END.unpack_from(tail, place)[5] if 0 <= place <= len(tail) - END.size else 0


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes | None:
    """A member that says itself that it is within the limit; no more than it says is unpacked."""
    if name not in archive.namelist():
        return None
    info = archive.getinfo(name)
    if info.file_size > limit:
        raise Damaged(f"{name} unpacks to {info.file_size} bytes, more than {limit}")
    return archive.read(info)


def _begun(content: bytes) -> bool:
    """Whether one of our members begins somewhere in it."""
    return _MEMBER.search(content) is not None


def _sha256_of(file: BinaryIO, length: int) -> str:
    digest = hashlib.sha256()
    while length > 0 and (chunk := file.read(min(length, 1 << 20))):
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _property(name: str) -> bytes:
    return f"visionkit/{name}".encode()


def _fields(content: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Number, begin, begin of the value and end of each field of a protobuf message. Raises `Damaged`."""
    place = 0
    while place < len(content):
        tag, body = _varint(content, place)
        wire = tag & 7
        if wire == 0:
            _, end = _varint(content, body)
        elif wire == 2:
            length, body = _varint(content, body)
            end = body + length
        elif wire in (1, 5):
            end = body + (8 if wire == 1 else 4)
        else:
            raise Damaged("it is no protobuf message")
        if end > len(content):
            raise Damaged("it is cut off")
        yield tag >> 3, place, body, end
        place = end


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if place >= len(content):
            raise Damaged("it is cut off")
        byte = content[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise Damaged("it is no protobuf message")


def _entry(content: bytes) -> tuple[bytes, bytes]:
    """Key and value of a StringStringEntryProto."""
    found = {number: content[body:end] for number, _, body, end in _fields(content)}
    return found.get(1, b""), found.get(2, b"")


def _field(number: int, value: bytes) -> bytes:
    """A field of bytes on the wire."""
    return _written(number << 3 | 2) + _written(len(value)) + value


def _written(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
