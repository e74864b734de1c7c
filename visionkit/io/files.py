"""Output files that appear whole or not at all: checked first, written beside the target, renamed onto it."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from visionkit.errors import OutputError, UsageError
from visionkit.io.text import safe_text

__all__ = ["OutputFile", "check_not_input", "check_output", "sync_folder", "writing_to"]

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
ROOM = 1 << 16
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


@contextlib.contextmanager
def writing_to(path: str | os.PathLike[str]) -> Iterator[None]:
    """Within, an operating system's refusal becomes an `OutputError` about `path`.

    Raises:
        OutputError: `disk-full` where no room is left (also a quota or a file size limit), else `output-unwritable`
            with the system's reason. A closed pipe is nobody's failure and passes as `BrokenPipeError`.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_error(error, path) from error


def output_error(error: OSError, path: str | os.PathLike[str]) -> OutputError:
    """The `OutputError` that tells what the system said about writing `path`."""
    name = safe_text(path)
    if error.errno in NO_SPACE:
        return OutputError("disk-full", f"no room left to write '{name}': {os.strerror(error.errno)}; free some space")
    reason = os.strerror(error.errno) if error.errno else safe_text(error)
    return OutputError("output-unwritable", f"cannot write '{name}': {reason}; choose another --out")


def check_output(
    path: str | os.PathLike[str], *, overwrite: bool = False, inputs: Iterable[str | os.PathLike[str]] = ()
) -> Path:
    """`path` as a Path, after every reason not to write a file there has been looked for.

    Cheap, so that a run can ask before anything heavy is loaded. Nothing is left behind.

    Raises:
        UsageError: `output-is-input`, where the target is one of `inputs` by any name (same file, link, symlink).
        OutputError: `output-is-symlink`; `exists` (without `overwrite`); `output-unwritable` for a missing or
            read-only folder, a folder in the target's place, a name that is too long.
    """
    target = Path(path)
    with writing_to(target):
        check_not_input(target, inputs)
        if target.is_symlink():
            raise OutputError(
                "output-is-symlink", f"'{safe_text(target)}' is a symbolic link, which is not followed; name the file"
            )
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "")
        if os.path.lexists(target) and not overwrite:
            raise OutputError(
                "exists", f"'{safe_text(target)}' already exists; pass --overwrite or choose another --out"
            )
        descriptor, probe = create_beside(target)
        os.close(descriptor)
        probe.unlink()
    return target


def check_not_input(target: Path, inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Raises UsageError `output-is-input` if `target` is, by device and inode, one of the files in `inputs`."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        there = target.stat()
        for name in inputs:
            with contextlib.suppress(OSError, ValueError):
                if os.path.samestat(Path(name).stat(), there):
                    raise UsageError(
                        "output-is-input",
                        f"'{safe_text(target)}' is the input itself ('{safe_text(name)}'); choose another --out",
                    )


def create_beside(target: Path) -> tuple[int, Path]:
    """An open descriptor and the path of a new empty file (mode 0600) in the folder of `target`."""
    target.parent.stat()
    if len(os.fsencode(target.name)) > os.pathconf(target.parent, "PC_NAME_MAX"):
        raise OSError(errno.ENAMETOOLONG, "")
    # The name does not grow with the target's, keeps its suffix for libraries that look at it, and hides from globs.
    temporary = target.parent / f".visionkit-{os.getpid()}-{secrets.token_hex(4)}{target.suffix[:16]}"
    return os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), temporary


class OutputFile:
    """A file under construction beside its target; `publish()` puts it there, `discard()` removes it.

    Attributes:
        temporary: where to write; it exists and is empty at the start.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        inputs: Iterable[str | os.PathLike[str]] = (),
    ) -> None:
        self.path = check_output(path, overwrite=overwrite, inputs=inputs)
        self.overwrite = overwrite
        with writing_to(self.path):
            descriptor, self.temporary = create_beside(self.path)
        os.close(descriptor)

    def sync(self) -> None:
        """Returns when the bytes written so far are on the disk."""
        with writing_to(self.path):
            descriptor = os.open(self.temporary, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def check_room(self) -> None:
        """Raises `disk-full` if not one more block fits: for libraries that fail without saying why.

        It spoils the file, which is to be discarded.
        """
        with writing_to(self.path), self.temporary.open("ab", buffering=0) as file:
            if file.write(bytes(ROOM)) < ROOM:
                raise OSError(errno.ENOSPC, "")
            os.fsync(file.fileno())

    def publish(self) -> Path:
        """Moves the finished file onto its target in one step and makes that durable."""
        with writing_to(self.path):
            self.temporary.chmod(0o666 & ~_umask())
            self.sync()
            if self.overwrite:
                self.temporary.replace(self.path)
            else:
                self._link()
            sync_folder(self.path.parent)
        return self.path

    def _link(self) -> None:
        # A link, unlike a rename, fails where somebody else has created the target meanwhile.
        try:
            os.link(self.temporary, self.path, follow_symlinks=False)
        except FileExistsError:
            raise OutputError("exists", f"'{safe_text(self.path)}' was created by somebody else meanwhile") from None
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            self.temporary.replace(self.path)
        else:
            self.temporary.unlink()

    def discard(self) -> None:
        """Removes the unfinished file; never raises."""
        with contextlib.suppress(OSError):
            self.temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Returns when the names in `folder` are on the disk; a file system that cannot say so is believed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
