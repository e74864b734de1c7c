"""A progress bar on a terminal, and nothing anywhere else."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

    from visionkit.io import MediaInfo

__all__ = ["ProgressBar", "expected_frames"]


def expected_frames(
    info: MediaInfo, *, start_s: float | None = None, end_s: float | None = None, stride: int = 1
) -> int | None:
    """About how many frames a run will see, from what the source declares; None where it declares nothing usable."""
    count, fps = info.frame_count, info.fps
    if count is None or count < 1:
        return None
    if start_s or end_s is not None:
        if not fps:
            return None
        begin = round((start_s or 0.0) * fps)
        finish = count if end_s is None else min(count, round(end_s * fps))
        count = finish - begin
    return max(1, -(-count // max(1, stride)))


class ProgressBar:
    """Frames, frames a second and time left, on stderr; silent when stderr is not a terminal.

    The bar never passes 100 %: a source that holds more than it declared keeps counting beside a full bar.

    Args:
        title: what is being done.
        total: expected number of frames; None when unknown.
        enabled: None decides by whether stderr is a terminal.
    """

    def __init__(self, title: str, total: int | None, *, enabled: bool | None = None) -> None:
        self.title, self.total, self.count = title, total, 0
        self.enabled = bool(sys.stderr is not None and sys.stderr.isatty()) if enabled is None else enabled
        self._progress: Progress | None = None

    def __enter__(self) -> ProgressBar:
        if self.enabled:
            self._progress = _rich_progress()
            self._task = self._progress.add_task(self.title, total=self.total, seen="0", speed="")
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._show(self._progress)
            self._progress.stop()

    def advance(self) -> None:
        """One more frame is done."""
        self.count += 1
        if self._progress is not None:
            self._show(self._progress)

    def _show(self, progress: Progress) -> None:
        task = progress.tasks[self._task]
        elapsed = task.elapsed or 0.0
        done = self.count if self.total is None else min(self.count, self.total)
        seen = str(self.count) if self.total is None else f"{self.count}/{self.total}"
        speed = f"{self.count / elapsed:.0f} fps" if elapsed > 0 else ""
        progress.update(self._task, completed=done, seen=seen, speed=speed)


def _rich_progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[seen]}"),
        TextColumn("{task.fields[speed]}", style="cyan"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=8)
