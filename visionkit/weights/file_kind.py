"""What a file is, from its first bytes: for messages that say what came in the place of what was expected."""

from __future__ import annotations

from pathlib import Path

from visionkit.errors import ModelError

__all__ = ["file_kind", "open_size"]

_KINDS = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x80", "a pickle"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file it points to"),
)
_PAGES = (b"<!doctype html", b"<html", b"<?xml")


def open_size(path: Path) -> int:
    """Bytes of a regular file.

    Raises:
        ModelError: `weights-missing`; there is no such file, it is no regular file, or it cannot be read.
    """
    if not path.is_file():
        reason = "it is not a regular file" if path.exists() else "there is no such file"
        raise ModelError("weights-missing", f"The weights {path} cannot be read: {reason}.")
    try:
        with path.open("rb") as file:
            return file.seek(0, 2)
    except OSError as error:
        raise ModelError("weights-missing", f"The weights {path} cannot be read: {error.strerror}.") from error


def file_kind(path: Path) -> str:
    """What the readable file `path` is, with its size: `an HTML page (1532 bytes)`."""
    with path.open("rb") as file:
        head = file.read(512)
        size = file.seek(0, 2)
    return f"{_kind(head)} ({size} bytes)" if size else "an empty file (0 bytes)"


def _kind(head: bytes) -> str:
    if head.lstrip().lower().startswith(_PAGES):
        return "a web page"
    if head[4:8] == b"TFL3":
        return "a TFLite model"
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head[8:9] == b"{" and head[1:8].count(0) >= 4:
        return "a safetensors file"
    for magic, kind in _KINDS:
        if head.startswith(magic):
            return kind
    return "text" if head.isascii() and all(byte >= 9 for byte in head) else "no format that is known here"
