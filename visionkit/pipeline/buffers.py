"""The bounded hand-over between two threads of the runner, and the order among the workers of one stage."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["ByteQueue", "Cancelled", "Turns"]

T = TypeVar("T")


class Cancelled(Exception):  # noqa: N818 - a message between threads, never shown
    """The line was torn down while this thread waited."""


class ByteQueue(Generic[T]):
    """A first-in-first-out queue for one producer and one consumer, bounded by the bytes it holds and by their number.

    One entry always fits, however large, so that a frame above the bound passes alone instead of blocking for ever.
    Waiting threads sleep on a condition and are woken by the other side; nothing polls.

    Args:
        max_bytes: the most bytes held; entries say their own size in `put`.
        max_items: the most entries held.
    """

    def __init__(self, max_bytes: int, max_items: int) -> None:
        if max_bytes < 1 or max_items < 1:
            raise ValueError(
                f"`max_bytes` and `max_items` must be positive. Received: max_bytes={max_bytes}, max_items={max_items}."
            )
        self.max_bytes, self.max_items = max_bytes, max_items
        self.held_bytes = 0
        self.peak_bytes = 0
        self._entries: deque[tuple[T, int]] = deque()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)  # at most one side waits, so one condition serves both
        self._ended = False
        self._cancelled = False

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entry: T, nbytes: int) -> None:
        """Append `entry`, waiting for room. Raises `Cancelled` when the line is torn down."""
        with self._changed:
            while not self._cancelled and not self._has_room(nbytes):
                self._changed.wait()
            if self._cancelled:
                raise Cancelled
            self._entries.append((entry, nbytes))
            self.held_bytes += nbytes
            self.peak_bytes = max(self.peak_bytes, self.held_bytes)
            self._changed.notify()

    def get(self) -> T | None:
        """The oldest entry, waiting for one; None when the producer has ended and nothing is left."""
        with self._changed:
            while not self._cancelled and not self._entries and not self._ended:
                self._changed.wait()
            if self._cancelled:
                raise Cancelled
            if not self._entries:
                return None
            entry, nbytes = self._entries.popleft()
            self.held_bytes -= nbytes
            self._changed.notify()
            return entry

    def end(self) -> None:
        """The producer has nothing more to say; what is held is still handed out."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Drop what is held and wake both sides with `Cancelled`."""
        with self._changed:
            self._cancelled = True
            self._entries.clear()
            self.held_bytes = 0
            self._changed.notify_all()

    def _has_room(self, nbytes: int) -> bool:
        if not self._entries:
            return True
        return len(self._entries) < self.max_items and self.held_bytes + nbytes <= self.max_bytes


class Turns:
    """Keeps the workers of one stage in line: one takes at a time, and they give in the order in which they took.

    Args:
        workers: how many there are.
    """

    def __init__(self, workers: int) -> None:
        self._alone = workers == 1
        self._staying = workers
        self._inlet = threading.Lock()
        self._changed = threading.Condition()
        self._taken = self._given = 0
        self._cancelled = False

    @contextlib.contextmanager
    def taking(self) -> Iterator[int]:
        """Within, no other worker takes; yields the ticket to give by."""
        with self._inlet:
            ticket = self._taken
            self._taken += 1
            yield ticket

    @contextlib.contextmanager
    def giving(self, ticket: int) -> Iterator[None]:
        """Within, all who took before have given, and nobody else gives. Raises `Cancelled` in a line torn down."""
        if self._alone:
            yield
            return
        with self._changed:
            while self._given != ticket and not self._cancelled:
                self._changed.wait()
            if self._cancelled:
                raise Cancelled
        yield  # not locked: whoever waits for room here must not keep `cancel` out
        with self._changed:
            self._given += 1
            self._changed.notify_all()

    def leave(self) -> bool:
        """A worker goes home; whether it was the last."""
        with self._changed:
            self._staying -= 1
            return self._staying == 0

    def cancel(self) -> None:
        """Wake all who wait for their turn with `Cancelled`."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()
