"""The folder of a run: built as `<out>.part` under a lock, shown as `<out>` when complete."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import fnmatch
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from visionkit.errors import OutputError
from visionkit.io.files import check_not_input, sync_folder, writing_to
from visionkit.io.text import safe_text

__all__ = ["RunFolder"]

COMMIT = "run.json"  # moved last: a folder that has it is complete
LOCK = ".lock"
REPLACED = ".replaced"  # the finished run that is being replaced, until the new one is committed
PUBLISHING = ".publishing"  # there while the files of a finished run move
# What a run may write at the top of its folder. Replacing a folder removes these names and keeps every other.
OURS = (
    COMMIT,
    "results.*",
    "annotated",
    "annotated.*",
    "rectified",
    "rectified.*",
    "masks",
    "heatmaps",
    "uncertain",
    "crops",
    "report.*",
    "coco.json",
    "mot.txt",
    "voc",
    "yolo",
)


class RunFolder:
    """A staging folder `<out>.part` (mode 0700, locked) whose content `publish()` moves to `<out>`.

    Args:
        out: the final folder; None takes `runs/<task>/<source_name>`, or the first free of `-2`, `-3` …
        task: names the default folder.
        source_name: names the default folder; any text will do.
        overwrite: replace a finished run in `out`, on success only. A folder without `run.json` was not written by
            a run and is never replaced.
        inputs: files that are read; neither `out` nor a file in it may be one of them.

    Raises:
        UsageError: `output-is-input`.
        OutputError: `exists`, `output-busy` (another live run, by its pid), `output-is-symlink`, `output-unwritable`,
            `disk-full`.
    """

    def __init__(
        self,
        out: str | os.PathLike[str] | None,
        *,
        task: str = "run",
        source_name: str = "source",
        overwrite: bool = False,
        inputs: Iterable[str | os.PathLike[str]] = (),
    ) -> None:
        self.overwrite = overwrite
        self._lock: int | None = None
        self._made: list[Path] = []
        inputs = list(inputs)
        if out is not None:
            self._take(Path(out), inputs)
            return
        base = Path("runs") / _slug(task) / _slug(source_name)
        for number in range(1, 10_000):
            candidate = base if number == 1 else base.with_name(f"{base.name}-{number}")
            try:
                self.overwrite = False
                self._take(candidate, inputs)
                return
            except OutputError as error:
                if error.slug not in {"exists", "output-busy"}:
                    raise
        raise OutputError("exists", f"'{base}' and 9,998 numbered ones exist; pass --out")

    def _take(self, out: Path, inputs: list[str | os.PathLike[str]]) -> None:
        if not out.name or out.name == "..":
            raise OutputError(
                "output-unwritable", f"'{safe_text(out)}' does not name a folder of its own; choose another --out"
            )
        self.out, self.staging = out, out.with_name(out.name + ".part")
        with writing_to(out):
            self._check_place(inputs)
            try:
                self._make_staging()
                self._lock = self._acquire()
            except BaseException:
                self._remove_made()
                raise
        try:
            with writing_to(out):
                self._recover()
                self._check_free()
                self._clear()
        except BaseException:
            self.discard()
            raise

    def path(self, name: str) -> Path:
        """Where to write the output `name` until it is published; folders on the way are created."""
        path = self.staging / name
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, partial: bool = False) -> Path:
        """Moves everything to `out`, `run.json` last, and removes the staging folder; returns the final folder.

        A partial result never replaces a finished run: it stays in the staging folder, which is then returned.
        """
        if self._lock is None:
            raise ValueError("the run folder is no longer open")
        with writing_to(self.out):
            if os.path.lexists(self.out) and any(self.out.iterdir()):
                if partial or not self.overwrite:
                    self.release()
                    return self.staging
                self.out.rename(self._previous)
            (self.staging / PUBLISHING).touch()
            sync_folder(self.staging)
            try:
                self._move()
            except BaseException:
                self._move_back()
                raise
            self._drop_previous()
        self._finish()
        return self.out

    def discard(self) -> None:
        """Removes the staging folder and every empty folder made for it; never raises. `out` is untouched."""
        if self._lock is not None:
            self._finish()
            self._remove_made()

    def release(self) -> None:
        """Gives up the lock and leaves the staging folder for the next run that takes the same `out`."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.discard()

    @property
    def _previous(self) -> Path:
        return self.staging / REPLACED

    def _check_place(self, inputs: list[str | os.PathLike[str]]) -> None:
        check_not_input(self.out, inputs)
        if self.out.is_symlink():
            raise OutputError(
                "output-is-symlink",
                f"'{safe_text(self.out)}' is a symbolic link, which is not followed; name the folder",
            )
        if not os.path.lexists(self.out):
            return
        if not self.out.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "")
        for entry in self.out.iterdir():
            check_not_input(entry, inputs)

    def _check_free(self) -> None:
        if not os.path.lexists(self.out) or not any(self.out.iterdir()):
            return
        name = safe_text(self.out)
        if not self.overwrite:
            raise OutputError("exists", f"'{name}' already exists; pass --overwrite or choose another --out")
        if not (self.out / COMMIT).is_file():
            raise OutputError(
                "exists", f"'{name}' holds files but no {COMMIT}: not the folder of a run, so not replaced"
            )

    def _make_staging(self) -> None:
        missing = [p for p in self.staging.parents if not os.path.lexists(p)]
        for parent in reversed(missing):
            with contextlib.suppress(FileExistsError):
                parent.mkdir()
                self._made.append(parent)
        try:
            self.staging.mkdir(mode=0o700)
        except FileExistsError:
            # Left by a dead run or in use by a live one; the lock tells. Anything else there is not ours.
            if self.staging.is_symlink() or not self.staging.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "") from None

    def _acquire(self) -> int:
        # The kernel drops the lock when its holder dies, so that a stale one cannot be; the pid inside is for people.
        path = self.staging / LOCK
        while True:
            self.staging.mkdir(mode=0o700, exist_ok=True)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except FileNotFoundError:
                continue  # The holder finished and removed the folder between the two lines above.
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                    return descriptor
            except BlockingIOError:
                holder = safe_text(os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()) or "unknown"
                os.close(descriptor)
                raise OutputError(
                    "output-busy",
                    f"'{safe_text(self.out)}' is being written by process {holder}; wait, or choose another --out",
                ) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _clear(self) -> None:
        for entry in self.staging.iterdir():
            if entry.name not in {LOCK, REPLACED}:
                _remove(entry)

    def _recover(self) -> None:
        """Ends what a run that was killed while publishing had begun: its result was complete."""
        if (self.staging / PUBLISHING).exists():
            self._move()
            self._drop_previous()
        elif self._previous.is_dir() and not os.path.lexists(self.out):
            self._previous.rename(self.out)

    def _move(self) -> None:
        self.out.mkdir(exist_ok=True)
        entries = [p for p in self.staging.iterdir() if p.name not in {LOCK, PUBLISHING, REPLACED, COMMIT}]
        for entry in sorted(entries):
            entry.rename(self.out / entry.name)
        sync_folder(self.out)
        if (self.staging / COMMIT).exists():
            (self.staging / COMMIT).rename(self.out / COMMIT)
        sync_folder(self.out)
        sync_folder(self.out.parent)

    def _move_back(self) -> None:
        with contextlib.suppress(OSError):
            for entry in list(self.out.iterdir()):
                entry.rename(self.staging / entry.name)
            self.out.rmdir()
            (self.staging / PUBLISHING).unlink()
            if self._previous.is_dir():
                self._previous.rename(self.out)

    def _drop_previous(self) -> None:
        """Removes the outputs of a replaced run; whatever else lay in its folder moves on to the new one."""
        if not self._previous.is_dir():
            return
        for entry in sorted(self._previous.iterdir()):
            if any(fnmatch.fnmatchcase(entry.name, pattern) for pattern in OURS):
                _remove(entry)
            elif not os.path.lexists(self.out / entry.name):
                entry.rename(self.out / entry.name)
        with contextlib.suppress(OSError):
            self._previous.rmdir()

    def _finish(self) -> None:
        if not self._previous.exists():  # else a replaced run could not be put back: nothing may delete it
            shutil.rmtree(self.staging, ignore_errors=True)
        self.release()

    def _remove_made(self) -> None:
        with contextlib.suppress(OSError):
            self.staging.rmdir()
        for parent in reversed(self._made):
            with contextlib.suppress(OSError):
                parent.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _slug(text: str) -> str:
    """`text` as one tame folder name: letters, digits, `.`, `_` and `-`, at most 80 of them."""
    tame = "".join(c if c.isalnum() or c in "._-" else "-" for c in safe_text(text, 200)).strip(".-")
    return tame.encode()[:80].decode(errors="ignore") or "source"
