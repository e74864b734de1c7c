"""The stage that follows one object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError, UsageError
from visionkit.pipeline.stage import Item, Stage
from visionkit.structures import Frame, Track

if TYPE_CHECKING:
    from visionkit.io import MediaInfo

__all__ = ["TrackStage", "Tracker", "clipped_box"]


class Tracker(Protocol):
    """What follows an object; images are uint8 (H, W, 3) BGR."""

    def init(self, image: npt.NDArray[np.uint8], xyxy: npt.ArrayLike, /) -> Track | None:
        """Remember the object in the box."""

    def update(self, image: npt.NDArray[np.uint8], /) -> Track:
        """Where it is in the next image."""


class TrackStage(Stage):
    """Follows the object that fills `xyxy` in the first frame; the result of each frame is a `Track`.

    Args:
        tracker: a tracker, which stays the caller's to close; or a function that makes one, called when the source and
            the outputs have proved good, and then closed by the stage.
        xyxy: float (4,), the object in the first frame, absolute pixels. What lies outside of the frame is cut off.
    """

    def __init__(self, tracker: Tracker | Callable[[], Tracker], xyxy: npt.ArrayLike) -> None:
        super().__init__("track")
        self._xyxy = np.asarray(xyxy, np.float32)
        if self._xyxy.shape != (4,) or not np.isfinite(self._xyxy).all():
            raise ValueError(f"`xyxy` must be four finite numbers. Received: xyxy={xyxy!r}.")
        self._given = tracker
        self._tracker: Tracker | None = None
        self._started = False

    def check(self, info: MediaInfo, first: Frame) -> None:
        """Refuse a box that does not touch the first frame (UsageError `box-outside`)."""
        clipped_box(self._xyxy, first.size_hw)

    def setup(self, info: MediaInfo, first: Frame) -> None:
        """Load the tracker, unless it was given."""
        self._tracker = self._given() if callable(self._given) else self._given
        self._started = False

    def process(self, items: Sequence[Item]) -> None:
        """Start on the first item, follow in the others."""
        for item in items:
            item.results[self.name] = self._follow(item.frame)

    def describe(self) -> dict[str, Any] | None:
        """What the tracker says about its model."""
        describe = getattr(self._tracker, "describe", None)
        return None if describe is None else dict(describe())

    def close(self) -> None:
        """Close the tracker that `setup` loaded, where it can be closed."""
        close = getattr(self._tracker, "close", None)
        if self._tracker is not self._given and close is not None:
            close()

    def _follow(self, frame: Frame) -> Track:
        if self._tracker is None:
            raise RuntimeError("`setup` comes before the first frame.")
        if not self._started:
            box = clipped_box(self._xyxy, frame.size_hw)
            self._tracker.init(frame.image, box)
            self._started = True
            return Track(box, 1.0, "tracking")
        track = self._tracker.update(frame.image)
        if not (np.isfinite(track.xyxy).all() and np.isfinite(track.confidence)):
            raise ModelError("model-not-finite", "the tracker's answer is not finite")
        return track


def clipped_box(xyxy: npt.NDArray[np.float32], size_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
    """The part of a box float32 (4,) that lies inside a frame.

    Raises:
        UsageError: `box-outside`; no part of it does.
    """
    height, width = size_hw
    limit = np.array([width, height, width, height], np.float32)
    inside = np.clip(xyxy, 0, limit)
    if inside[2] - inside[0] < 1 or inside[3] - inside[1] < 1:
        x1, y1, x2, y2 = (f"{value:g}" for value in xyxy)
        raise UsageError(
            "box-outside",
            f"The box from ({x1}, {y1}) to ({x2}, {y2}) lies outside of the first frame, which is {width} wide and "
            f"{height} high. Expected X,Y,W,H in its pixels, at least one pixel of it inside.",
        )
    return inside.astype(np.float32)
