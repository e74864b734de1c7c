"""Files of lines, one or more for every result row, that are whole or absent; or the same into an open stream."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, BinaryIO, Self

from visionkit.io.files import OutputFile, writing_to

__all__ = ["LineWriter"]


class LineWriter:
    """Rows into a file that gets its name only when closed without an error; or into an open stream.

    Rows lie in a buffer of 64 KiB; `flush()` hands them to the system. A stream (say stdout) is flushed after every
    row, for its reader may be waiting, and never closed.

    Args:
        target: a path, or a binary stream.
        overwrite: replace an existing file, once this one is complete.

    Raises:
        OutputError: `exists`, `output-unwritable`, `disk-full` and the like, at any time up to `close()`.
    """

    def __init__(self, target: str | os.PathLike[str] | BinaryIO, *, overwrite: bool = False) -> None:
        self.rows = 0
        self._file: OutputFile | None = None
        self._stream: BinaryIO | None
        if isinstance(target, str | os.PathLike):
            self._file = OutputFile(target, overwrite=overwrite)
            with writing_to(target):
                self._stream = io.BufferedWriter(io.FileIO(self._file.temporary, "wb"), 1 << 16)
            self._name = os.fspath(target)
        else:
            self._stream, self._name = target, "standard output"

    def encode(self, row: Mapping[str, Any], first: bool) -> bytes:
        """The lines for `row`; before the `first` one goes what the file starts with."""
        raise NotImplementedError

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends one row."""
        if self._stream is None:
            raise ValueError("the writer is closed")
        line = self.encode(row, self.rows == 0)
        with writing_to(self._name):
            self._stream.write(line)
            if self._file is None:
                self._stream.flush()
        self.rows += 1

    def flush(self) -> None:
        """Hands every row so far to the operating system."""
        if self._stream is not None:
            with writing_to(self._name):
                self._stream.flush()

    def close(self) -> None:
        """Completes the file and gives it its name; a second call does nothing."""
        stream, self._stream = self._stream, None
        if stream is None or self._file is None:
            return
        try:
            with writing_to(self._name):
                stream.close()
            self._file.publish()
        except BaseException:
            self._file.discard()
            raise

    def abort(self) -> None:
        """Drops the file; never raises."""
        stream, self._stream = self._stream, None
        if stream is None or self._file is None:
            return
        with contextlib.suppress(OSError):
            stream.close()
        self._file.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
