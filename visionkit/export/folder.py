"""Folders that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from visionkit.errors import OutputError
from visionkit.io.files import sync_folder, writing_to
from visionkit.io.hidden import OLD, hidden_folder
from visionkit.io.text import safe_text

__all__ = ["new_folder"]


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A new folder beside `path` to write into; on leaving it becomes `path`, on an exception it goes away.

    Args:
        path: in a folder that exists.
        overwrite: replace a folder that is there; it stays until the new one is complete.

    Raises:
        OutputError: `exists`, `output-unwritable`, `disk-full`.
    """
    target = Path(path)
    if os.path.lexists(target) and (not overwrite or target.is_symlink() or not target.is_dir()):
        way = "remove it" if overwrite else "pass overwrite=True"
        raise OutputError("exists", f"'{safe_text(target)}' already exists; {way} or choose another name")
    with hidden_folder(target) as hidden, writing_to(target):
        yield hidden
        if overwrite:
            _replace(hidden, target)
        else:
            _put(hidden, target)
        sync_folder(target.parent)


def _put(folder: Path, target: Path) -> None:
    """Raises OutputError `exists` where somebody else has made the target meanwhile."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise OutputError("exists", f"'{safe_text(target)}' was created by somebody else meanwhile") from None


def _replace(folder: Path, target: Path) -> None:
    old = folder.with_name(f"{folder.name}{OLD}")
    with contextlib.suppress(FileNotFoundError):
        target.rename(old)
    try:
        folder.rename(target)
    except OSError:
        with contextlib.suppress(OSError):
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
