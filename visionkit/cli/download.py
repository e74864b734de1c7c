"""A download as the user sees it: what comes and under which licence, then a bar on a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

import click

from visionkit.cli.text import clean

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["DownloadBar", "announce"]


def announce(offer: str) -> None:
    """Say on stderr what is about to be fetched."""
    if sys.stderr is not None:
        click.echo(f"Fetching {clean(offer)}", err=True)


class DownloadBar:
    """Bytes, speed and time left on stderr; silent when stderr is no terminal.

    It is called with the bytes that are here and the bytes in all, or None where nobody knows.
    """

    def __init__(self, title: str, *, enabled: bool | None = None) -> None:
        self._title = title
        self._enabled = bool(sys.stderr is not None and sys.stderr.isatty()) if enabled is None else enabled
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> DownloadBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, done: int, total: int | None) -> None:
        if not self._enabled:
            return
        if self._progress is None or self._task is None:
            self._progress = _bar()
            self._task = self._progress.add_task(clean(self._title), total=total)
            self._progress.start()
        self._progress.update(self._task, completed=done, total=total)


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
