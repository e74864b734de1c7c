"""Hidden folders in which something is made beside its name, and what killed processes left of them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from visionkit.io.files import writing_to

__all__ = ["OLD", "clear_abandoned", "hidden_folder"]

OLD = "-old"  # behind the name of a folder: what stood in its target's place
NAME = re.compile(rf"\.visionkit-([0-9]{{1,10}})-[0-9a-f]{{8}}({OLD}|\.[^/]{{1,16}})?")
DAY_S = 86_400.0


@contextlib.contextmanager
def hidden_folder(target: Path, mode: int = 0o777) -> Iterator[Path]:
    """A new folder beside `target`, which is gone afterwards unless it was renamed.

    A process that is killed cannot remove its own; it is found by the next one that writes there. As long as a process
    works in its folder it holds a lock on it, which the kernel drops when the process dies.

    Raises:
        OutputError: `output-unwritable`, `disk-full`.
    """
    clear_abandoned(target.parent)
    with writing_to(target):
        folder = target.parent / f".visionkit-{os.getpid()}-{secrets.token_hex(4)}"
        folder.mkdir(mode=mode)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def clear_abandoned(folder: Path) -> None:
    """Remove from `folder` what processes of VisionKit that are no more left hidden there; never raises.

    Abandoned is what has our name and owner, is locked by nobody, and whose process is gone, or which nobody changed
    for a day. Of files, on which there is no lock, and where there are no locks at all, both must be so: the process
    may run on another machine.
    """
    with contextlib.suppress(OSError):
        names = {entry.name for entry in os.scandir(folder)}
        for name in names:
            # Both there: their process died between two renames, and one of them is the only copy of a result.
            paired = f"{name}{OLD}" in names or (name.endswith(OLD) and name.removesuffix(OLD) in names)
            if (match := NAME.fullmatch(name)) and not paired and _is_abandoned(folder / name, int(match[1])):
                _remove(folder / name)


def _is_abandoned(path: Path, process: int) -> bool:
    try:
        status = path.lstat()
        if status.st_uid != os.geteuid():
            return False
        old = time.time() - status.st_mtime > DAY_S
        gone = not _runs(process)
        if stat.S_ISREG(status.st_mode):
            return old and gone
        return stat.S_ISDIR(status.st_mode) and _is_free(path, otherwise=old and gone) and (old or gone)
    except OSError:
        return False


def _is_free(folder: Path, *, otherwise: bool) -> bool:
    """Whether nobody holds a lock on it; `otherwise` where the file system has no locks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return otherwise
    finally:
        os.close(descriptor)
    return True


def _runs(process: int) -> bool:
    """Whether a process of this number runs here, whoever's."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
