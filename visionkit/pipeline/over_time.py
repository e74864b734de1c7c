"""What a stage knows from the order of a video's frames: whether one follows another, and how labels flicker."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.structures import Frame

if TYPE_CHECKING:
    from visionkit.crf import Flicker

__all__ = ["FLICKER_PIXELS", "Continuity", "FlickerMeter", "flicker_size"]

LONG_MS = 500.0
FLICKER_PIXELS = 1 << 16  # of the images whose motion is looked for: 2 ms of processor time a frame
DIGITS = 6

Labels = npt.NDArray[np.integer[Any]]
Size = tuple[int, int]


class Continuity:
    """Whether each frame directly follows the one before: call it with one after the other.

    It does not where frames between them are lost, by their indices or by the time that has passed (half a second and
    four usual steps), where one of the two is damaged, and where the size changes. The usual step is the smallest seen,
    so that every n-th frame of a video follow each other as well.
    """

    def __init__(self) -> None:
        self._before: Frame | None = None
        self._step, self._step_ms = math.inf, math.inf

    def __call__(self, frame: Frame) -> bool:
        """Whether `frame` goes on from the last one that was shown; False for the first."""
        before, self._before = self._before, _without_pixels(frame)
        if before is None:
            return False
        step, step_ms = frame.index - before.index, (frame.pts_ms or 0.0) - (before.pts_ms or 0.0)
        if step > 0:
            self._step = min(self._step, step)
        if step_ms > 0:
            self._step_ms = min(self._step_ms, step_ms)
        if before.damaged or frame.damaged or before.size_hw != frame.size_hw:
            return False
        return 0 < step <= self._step and 0 <= step_ms <= max(LONG_MS, 4 * self._step_ms)


def _without_pixels(frame: Frame) -> Frame:
    """The same frame with an image that takes no memory: the runner may draw on the other, or let go of it."""
    shadow = np.broadcast_to(np.zeros(1, np.uint8), frame.image.shape)
    return Frame(shadow, frame.index, frame.pts_ms, frame.duration_ms, frame.source, frame.damaged)


class FlickerMeter:
    """The flicker index (`visionkit.crf.flicker_index`) of one or several kinds of labels, its mean over a video.

    Motion is looked for in a small image, and labels are compared at its pixels: the index is a share of pixels, which
    a tenth of them tells as well. Pairs of frames where the motion is not found (cuts) do not count.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, Flicker] = {}
        self._size_hw: Size | None = None

    def __call__(self, image: npt.NDArray[np.uint8], maps: Mapping[str, Labels]) -> None:
        """Take the next frame: its image uint8 (H, W, 3) and its labels by kind, each (h, w) of any size."""
        import cv2

        from visionkit.crf import Flicker

        size_hw = self._size_hw = flicker_size((image.shape[0], image.shape[1]))
        if min(size_hw) < 16:  # optical flow needs a patch or two
            return
        small = np.asarray(cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        for kind, labels in maps.items():
            self._kinds.setdefault(kind, Flicker())(small, _shrunk(labels, size_hw))

    def cut(self) -> None:
        """Forget the last frame; the sums are kept."""
        from visionkit.crf import Flicker

        self._kinds = {kind: Flicker(known.total, known.frames) for kind, known in self._kinds.items()}

    def summary(self) -> dict[str, Any] | None:
        """The mean index by kind, over how many pairs of frames, at which size; None where there was no pair."""
        pairs = max((kind.frames for kind in self._kinds.values()), default=0)
        if not pairs or self._size_hw is None:
            return None
        means = {name: round(kind.mean, DIGITS) for name, kind in self._kinds.items() if kind.frames}
        return {**means, "pairs": pairs, "size_hw": list(self._size_hw)}


def flicker_size(size_hw: Size) -> Size:
    """Height and width at which labels of frames of a size are compared."""
    shrink = min(1.0, math.sqrt(FLICKER_PIXELS / (size_hw[0] * size_hw[1])))
    return max(1, round(size_hw[0] * shrink)), max(1, round(size_hw[1] * shrink))


def _shrunk(labels: Labels, size_hw: Size) -> Labels:
    """The labels at the centres of a smaller image's pixels."""
    if labels.shape == size_hw:
        return labels
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * (m / n)).astype(np.intp), m - 1)
        for n, m in zip(size_hw, labels.shape, strict=True)
    )
    return labels[rows[:, None], columns]
