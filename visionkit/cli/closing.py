"""What the commands that run over a source share: the window, and the closing lines on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visionkit.pipeline import Item, RunResult

__all__ = ["WINDOW", "closing_lines", "show"]

WINDOW = "visionkit"


def closing_lines(result: RunResult, frames: int, told: str) -> list[str]:
    """The closing lines of a run: how fast it was, what was seen, where it lies, and what was not as it should be.

    Args:
        result: of the run.
        frames: how many frames came out.
        told: what was seen in them.
    """
    speed = frames / result.seconds["flow"] if result.seconds["flow"] > 0 else 0.0
    lines = [f"{frames} frames in {result.seconds['flow']:.1f} s ({speed:.0f} fps): {told}"]
    if result.out is not None:
        lines.append(f"Results in {result.out}")
    lines += [f"visionkit: warning: {warning}" for warning in result.warnings]
    if result.status == "interrupted":
        by = "Ctrl-C" if result.exit_code == 130 else "SIGTERM"
        where = "" if result.out is None else f"; what was finished is in {result.out}"
        lines.append(f"visionkit: error[interrupted]: Stopped by {by} after {frames} frames{where}.")
    return lines


def show(item: Item) -> bool:
    """Show a frame in the window; whether the run goes on (q and Escape end it)."""
    import cv2

    cv2.imshow(WINDOW, item.frame.image)
    return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)
