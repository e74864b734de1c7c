"""A grid of windows over an image."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WindowGrid"]

Size = tuple[int, int]


@dataclass(frozen=True)
class WindowGrid:
    """Where the windows of a dense classifier lie: window (r, c) has its corner at `(r, c) * stride_hw`.

    Args:
        window_hw: size of the crop that the classifier takes, in pixels.
        stride_hw: from one window to the next in one pass, in pixels.
        edge: why a window's answer is not that of its crop, naming the first layer that is to blame; None where it is.
    """

    window_hw: Size
    stride_hw: Size
    edge: str | None
