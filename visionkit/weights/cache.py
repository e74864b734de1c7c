"""The folder of fetched and imported weights: made, locked, written without a moment of half a file."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from visionkit.errors import ModelError, OutputError
from visionkit.resources import cache_dir
from visionkit.weights.card import Weights, fetched_path

__all__ = ["kept_place", "lock", "not_the_weights", "place_of", "publish", "same_hash", "write_failed"]

LOOK_AGAIN_S = 0.2


def place_of(entry: Weights) -> Path:
    """Where the weights of an address are kept; the folder is there and can be written.

    Raises:
        OutputError: `cache-unwritable`.
    """
    path = fetched_path(entry)
    if path is None:
        raise OutputError("cache-unwritable", "There is no home folder to keep weights in. Set VISIONKIT_CACHE.")
    return _with_folder(path)


def kept_place(name: str) -> Path:
    """Where a user's own weights of that file name are kept, apart from the official ones.

    Raises:
        OutputError: `cache-unwritable`.
    """
    folder = cache_dir(create=False)
    if folder is None:
        raise OutputError("cache-unwritable", "There is no home folder to keep weights in. Set VISIONKIT_CACHE.")
    return _with_folder(folder / "weights" / "own" / name)


def _with_folder(path: Path) -> Path:
    reason = "it may not be written"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = str(error.strerror)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(
            "cache-unwritable",
            f"The folder for weights {path.parent} cannot be used: {reason}. Set VISIONKIT_CACHE to one that can.",
        )
    return path


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Within, nobody else writes `path`; whoever comes second waits, and a lock dies with its process."""
    with path.with_name(f".{path.name}.lock").open("wb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(LOOK_AGAIN_S)
        yield


def publish(part: Path, final: Path) -> None:
    """Give the complete file `part` its final name, once it is on the disk."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(final)
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_failed(path: Path, error: OSError) -> OutputError:
    """The error of a write to `path` that the system refused."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            "disk-full", f"The disk of {path.parent} is full. Free space, or set VISIONKIT_CACHE to another disk."
        )
    return OutputError("cache-unwritable", f"{path} cannot be written: {error.strerror}. Set VISIONKIT_CACHE.")


def same_hash(found: str, entry: Weights) -> bool:
    """Whether a sha256 is the one that the card gives, whole or by its beginning."""
    return found.startswith(entry.sha256)


def not_the_weights(path: str, found: str, wanted: str, remedy: str) -> ModelError:
    """The error of a file whose sha256 is another than the card's."""
    return ModelError("hash-mismatch", f"{path} has the sha256 {found[:16]}…, and the card says {wanted}. {remedy}")
