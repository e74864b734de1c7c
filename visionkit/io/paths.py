"""Local paths: checked before a library sees them, and absolute so that none is taken for a protocol."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from visionkit.errors import InputError
from visionkit.io.text import printable_name

__all__ = ["LocalFile", "PathLike", "local_file", "local_path", "unreadable"]

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A regular file: absolute path (bytes that are not UTF-8 as surrogates), printable name, size in bytes."""

    path: Path
    name: str
    size: int

    @property
    def raw(self) -> bytes:
        """The path as the file system's bytes; OpenCV crashes on a `str` that is not UTF-8."""
        return os.fsencode(self.path)


def local_path(source: PathLike) -> Path:
    """The absolute path that `source` names; links and `..` are left as they are.

    Raises:
        InputError: `input-missing`, for what cannot be the name of a file.
    """
    text = os.fsdecode(source)
    if not text or "\0" in text:
        raise InputError("input-missing", f"A path must be at least one byte, none of them zero. Received: {text!r}.")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        raise InputError("input-missing", f"The path {text!r} cannot be a file name: {error.reason}.") from None
    return Path(text).absolute()


def local_file(source: PathLike) -> LocalFile:
    """The regular, readable file at `source`.

    Raises:
        InputError: `input-missing`, `not-a-regular-file` or `input-unreadable`.
    """
    path = local_path(source)
    shown = printable_name(os.fsdecode(source))
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            path.open("rb").close()
    except OSError as error:
        raise unreadable(error, shown) from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(
            "not-a-regular-file", f"{shown} is a {_kind(status.st_mode)}; expected a regular file with video or image."
        )
    return LocalFile(path, printable_name(path.name), status.st_size)


def unreadable(error: OSError, shown: str) -> InputError:
    """The error for a file that the operating system does not give."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL):
        return InputError("input-missing", f"{shown}: {error.strerror}. Check the path.")
    if error.errno == errno.ELOOP:
        return InputError("not-a-regular-file", f"{shown} is a loop of symbolic links; expected a regular file.")
    return InputError("input-unreadable", f"{shown} cannot be read: {error.strerror}.")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "directory",
        stat.S_IFIFO: "named pipe",
        stat.S_IFCHR: "character device",
        stat.S_IFBLK: "block device",
        stat.S_IFSOCK: "socket",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")
