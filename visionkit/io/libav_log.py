"""Messages of FFmpeg's libraries while a reader is open: counted, kept from the terminal, restored afterwards.

PyAV's log level is one for the process. It is raised when the first reader opens, unless the application has set one,
and put back when the last one closes. Only errors are seen; those of another thread go to the logger `libav`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["LogWatch", "captured_errors", "error_count"]


class LogWatch:
    """Holds the log level while at least one reader is open."""

    _lock = threading.Lock()
    _open = 0
    _before: tuple[int | None, bool] = (None, True)

    def __init__(self) -> None:
        import av.logging

        with LogWatch._lock:
            if LogWatch._open == 0:
                LogWatch._before = (av.logging.get_level(), av.logging.get_skip_repeated())
                logger = logging.getLogger("libav")
                if not any(isinstance(handler, logging.NullHandler) for handler in logger.handlers):
                    logger.addHandler(logging.NullHandler())
                level = av.logging.get_level()
                if level is None or level < av.logging.ERROR:
                    av.logging.set_level(av.logging.ERROR)
                av.logging.set_skip_repeated(False)
            LogWatch._open += 1
        self._held = True

    def close(self) -> None:
        """Give the level back; safe to call twice."""
        import av.logging

        with LogWatch._lock:
            if not self._held:
                return
            self._held = False
            LogWatch._open -= 1
            if LogWatch._open == 0:
                av.logging.set_level(LogWatch._before[0])
                av.logging.set_skip_repeated(LogWatch._before[1])


def error_count() -> int:
    """Errors that FFmpeg has logged in this process so far, from any thread."""
    import av.logging

    module: Any = av.logging  # `get_last_error` is missing from PyAV's stubs
    return int(module.get_last_error()[0])


@contextmanager
def captured_errors() -> Iterator[list[tuple[int, str, str]]]:
    """The errors logged by this thread inside the block, as (level, origin, message)."""
    import av.logging

    errors: list[tuple[int, str, str]] = []
    with av.logging.Capture(local=True) as logs:
        try:
            yield errors
        finally:
            errors += [entry for entry in logs if entry[0] <= av.logging.ERROR]
