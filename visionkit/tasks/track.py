"""Following one object through a video with a Siamese network: state, search, penalties, and admitting loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from visionkit.geometry.boxes import box_centers, box_sizes, clip_boxes, iou_pairwise
from visionkit.geometry.crops import Window, context_side, window_around
from visionkit.structures import Track
from visionkit.tasks.compiled import CompiledTask
from visionkit.tasks.crop import cut, mean_color
from visionkit.tasks.images import checked_box, checked_size
from visionkit.tasks.presence import Presence, PresenceOptions

__all__ = ["Matcher", "SiamTracker", "TrackerOptions"]

Array = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]


class Matcher(Protocol):
    """The network as the tracker sees it; images are RGB uint8, square, of the two sizes."""

    exemplar_size: int
    search_size: int

    def encode(self, exemplar: Image, box: Array) -> Any:
        """What to look for: the object in `box` (4,) xyxy of the exemplar uint8 (z, z, 3) RGB."""

    def match(self, target: Any, search: Image) -> tuple[Array, Array]:
        """Scores (K,) in [0, 1] and boxes (K, 4) xyxy in pixels of the search region uint8 (x, x, 3) RGB."""


@dataclass(frozen=True)
class TrackerOptions:
    """How the tracker weighs what the network says.

    Args:
        window_influence: share of the cosine window in the ranking of candidates; 0 looks only at the score.
        size_penalty: how strongly a change of size or shape from the last frame counts against a candidate.
        size_rate: how fast the size follows, before it is scaled by the score.
        renewal: share of the object's later looks in the exemplar that is searched for; 0 keeps the first frame's.
        renewal_rate: how fast those later looks follow the object.
        renewal_score: they follow only in frames that score at least this.
        growth: how much of its side the search window gains with each frame in which the object is not seen.
        max_growth: limit of that growth.
        presence: scores that part the states.
    """

    window_influence: float = 0.25
    size_penalty: float = 0.12
    size_rate: float = 0.6
    renewal: float = 0.5
    renewal_rate: float = 0.35
    renewal_score: float = 0.35
    growth: float = 0.1
    max_growth: float = 2.0
    presence: PresenceOptions = field(default_factory=PresenceOptions)


@dataclass
class _Memory:
    """What the tracker carries from frame to frame."""

    first: Any  # the object of `init`
    recent: Any  # what it looks like lately
    target: Any  # what is searched for
    center: npt.NDArray[np.float64]
    size: npt.NDArray[np.float64]  # width, height
    size_hw: tuple[int, int]
    presence: Presence
    scan: int = 0


class SiamTracker(CompiledTask):
    """Follows the object of `init` through the images of `update`, in order.

    Args:
        matcher: the network.
        options: weights and thresholds.
    """

    def __init__(self, matcher: Matcher, options: TrackerOptions | None = None) -> None:
        super().__init__(matcher)
        self.matcher = matcher
        self.options = options or TrackerOptions()
        self._memory: _Memory | None = None
        self._hann: Array | None = None

    def init(self, image: Image, xyxy: npt.ArrayLike) -> Track:
        """Remember the object in box `xyxy` (4,) of `image` uint8 (H, W, 3) BGR.

        Raises:
            ValueError: the image is not uint8 (H, W, 3), or no part of the box lies inside it.
        """
        size_hw = checked_size(image)
        inside = checked_box(xyxy, size_hw)
        size = np.maximum(box_sizes(inside).astype(np.float64), 2.0)
        center = box_centers(inside).astype(np.float64)
        target = self._encode(image, center, size)
        self._memory = _Memory(target, target, target, center, size, size_hw, Presence(self.options.presence))
        return Track(inside, 1.0, "tracking")

    def update(self, image: Image) -> Track:
        """Where the object is in the next image uint8 (H, W, 3) BGR.

        Raises:
            RuntimeError: `init` was not called.
            ValueError: the image is not uint8 (H, W, 3).
        """
        memory = self._memory
        if memory is None:
            raise RuntimeError("`update` needs an object to follow: call `init(image, xyxy)` with the first image.")
        size_hw = checked_size(image)
        if size_hw != memory.size_hw:  # the picture changed its size: so does everything in it
            ratio = np.array(size_hw[::-1], np.float64) / memory.size_hw[::-1]
            memory.center, memory.size, memory.size_hw = memory.center * ratio, memory.size * ratio, size_hw
        box, score, factor = self._look(image, self._window(memory), memory)
        if memory.presence.lost:
            other = self._look(image, self._scan_window(memory), memory, local=False)
            if other[1] > score:
                box, score, factor = other
        track = self._decide(memory, box, score, factor)
        if self.options.renewal and track.state == "tracking" and score >= self.options.renewal_score:
            self._renew(image, memory)
        return track

    def _encode(self, image: Image, center: npt.NDArray[np.float64], size: npt.NDArray[np.float64]) -> Any:
        """The object at `center` of `size` as the network knows it."""
        window = window_around(center, context_side(size))
        exemplar = cut(image, window, self.matcher.exemplar_size, mean_color(image))
        box = window.to_window(np.concatenate([center - size / 2, center + size / 2]), self.matcher.exemplar_size)
        return self.matcher.encode(np.ascontiguousarray(exemplar[..., ::-1]), box)

    def _renew(self, image: Image, memory: _Memory) -> None:
        """Let the exemplar follow the object's looks; its first ones always keep their share."""
        latest = self._encode(image, memory.center, memory.size)
        memory.recent = memory.recent.blended(latest, self.options.renewal_rate)
        memory.target = memory.first.blended(memory.recent, self.options.renewal)

    def _window(self, memory: _Memory) -> Window:
        """The search window around the last place, larger the longer the object is missing."""
        growth = min(1 + self.options.growth * memory.presence.misses, self.options.max_growth)
        scale = self.matcher.search_size / self.matcher.exemplar_size
        return window_around(memory.center, context_side(memory.size) * scale * growth)

    def _scan_window(self, memory: _Memory) -> Window:
        """The next of the windows that cover the whole image, one a frame, while the object is lost."""
        side = context_side(memory.size) * self.matcher.search_size / self.matcher.exemplar_size
        height, width = memory.size_hw
        side = max(side, 0.2 * max(height, width))
        across, down = (max(1, math.ceil(length / (side * 0.6))) for length in (width, height))
        memory.scan += 1
        row, column = divmod(memory.scan % (across * down), across)
        return window_around(((column + 0.5) * width / across, (row + 0.5) * height / down), side)

    def _look(
        self, image: Image, window: Window, memory: _Memory, *, local: bool = True
    ) -> tuple[npt.NDArray[np.float64], float, float]:
        """The best candidate in a window: its box in the image, its score, and how little it differs in size (0-1)."""
        size = self.matcher.search_size
        search = cut(image, window, size, mean_color(image))
        scores, boxes = self.matcher.match(memory.target, np.ascontiguousarray(search[..., ::-1]))
        likeness = self._likeness(boxes, memory.size * size / window.side)
        ranked = scores * likeness
        if local:
            ranked = (
                ranked * (1 - self.options.window_influence) + self._cosine(len(scores)) * self.options.window_influence
            )
        best = int(np.argmax(ranked))
        box = _consensus(boxes, scores, best)
        return window.to_image(box, size).astype(np.float64), float(scores[best]), float(likeness[best])

    def _likeness(self, boxes: Array, size: npt.NDArray[np.float64]) -> Array:
        """How little each box differs in size and shape from the last, in (0, 1] (Li et al., SiamRPN, CVPR 2018)."""
        wh = np.maximum(box_sizes(boxes), 1e-3)
        margin = 0.5 * wh.sum(axis=1)
        side = np.sqrt((wh[:, 0] + margin) * (wh[:, 1] + margin)) / context_side(size)
        shape = (wh[:, 0] / wh[:, 1]) / (size[0] / size[1])
        change = np.maximum(side, 1 / side) * np.maximum(shape, 1 / shape)
        return np.exp(-(change - 1) * self.options.size_penalty).astype(np.float32)

    def _cosine(self, count: int) -> Array:
        if self._hann is None or len(self._hann) != count:
            line = np.hanning(math.isqrt(count) + 2)[1:-1]
            self._hann = np.outer(line, line).ravel().astype(np.float32)
        return self._hann

    def _decide(self, memory: _Memory, box: npt.NDArray[np.float64], score: float, likeness: float) -> Track:
        """Move to the candidate if it is the object, or stay."""
        presence = memory.presence
        if presence.observe(score):
            found_again = presence.state == "reacquired"
            rate = 1.0 if found_again else self.options.size_rate * likeness * min(1.0, score * 1.2)
            limit = np.array(memory.size_hw[::-1], np.float64)
            memory.size = np.clip(memory.size * (1 - rate) + (box[2:] - box[:2]) * rate, 4.0, limit)
            memory.center = np.clip((box[:2] + box[2:]) / 2, 0, limit)
        return Track(self._box(memory), score, presence.state)

    def _box(self, memory: _Memory) -> Array:
        box = np.concatenate([memory.center - memory.size / 2, memory.center + memory.size / 2])
        return clip_boxes(box, memory.size_hw)


def _consensus(boxes: Array, scores: Array, best: int) -> Array:
    """The best box averaged with those that agree with it, weighted by score."""
    near = np.flatnonzero(scores >= 0.7 * scores[best])
    agree = near[iou_pairwise(boxes[best][None], boxes[near])[0] > 0.6]
    if len(agree) == 0:
        return boxes[best]
    return np.average(boxes[agree], axis=0, weights=scores[agree] + 1e-6).astype(np.float32)
