"""Ctrl-C and SIGTERM while a run is under way: the first asks it to stop and drain, the second ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupts"]


class Interrupts:
    """While entered, the first SIGINT or SIGTERM calls `stop`; a second one raises KeyboardInterrupt or SystemExit.

    Outside of the main thread, where Python allows no handlers, it does nothing.

    Args:
        stop: asks the run to end; called from a signal handler, so it only sets a flag.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self.received: int | None = None
        self._stop = stop
        self._previous: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM, 0 where neither came."""
        return 0 if self.received is None else 128 + self.received

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def press(self) -> None:
        """Act as if Ctrl-C had been pressed once."""
        if self.received is None:
            self.received = signal.SIGINT
            self._stop()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = number
            self._stop()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(128 + number)
