"""Tracking as SiamFC does: one exemplar, a pyramid of scales, a cosine window (Bertinetto et al., ECCVW 2016, 4.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.geometry.boxes import box_centers, box_sizes, clip_boxes
from visionkit.geometry.crops import Window, context_side, window_around
from visionkit.structures import Track
from visionkit.tasks.compiled import CompiledTask
from visionkit.tasks.crop import cut, mean_color
from visionkit.tasks.images import checked_box, checked_size
from visionkit.tasks.presence import Presence, PresenceOptions

__all__ = ["ResponseMatcher", "SiamFCOptions", "SiamFCTracker"]

Array = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]


class ResponseMatcher(Protocol):
    """The network as the tracker sees it; images are RGB uint8, square, of the two sizes."""

    exemplar_size: int
    search_size: int
    stride: int

    def encode(self, exemplar: Image) -> object:
        """What to look for, from the exemplar uint8 (z, z, 3) RGB."""

    def respond(self, target: object, searches: Image) -> Array:
        """Responses (S, n, n) to the search regions uint8 (S, x, x, 3) RGB."""


@dataclass(frozen=True)
class SiamFCOptions:
    """The paper's tracking parameters, three scales (SiamFC-3s) as in the authors' code.

    Args:
        scales: number of scales, odd.
        scale_step: ratio of neighbouring scales.
        scale_penalty: factor on the responses of all scales but the middle one.
        scale_rate: how fast the size follows the best scale.
        window_influence: share of the cosine window in the response.
        upsampling: factor by which the response is enlarged, bicubic.
        presence: scores that part the states; a score is the height of the response's peak over its mean, relative to
            the same in the first frame.
    """

    scales: int = 3
    scale_step: float = 1.0375
    scale_penalty: float = 0.9745
    scale_rate: float = 0.59
    window_influence: float = 0.176
    upsampling: int = 16
    presence: PresenceOptions = field(default_factory=PresenceOptions)


@dataclass
class _Memory:
    target: object
    center: npt.NDArray[np.float64]
    size: npt.NDArray[np.float64]
    first_size: npt.NDArray[np.float64]
    first_peak: float
    fill: tuple[float, float, float]
    presence: Presence


class SiamFCTracker(CompiledTask):
    """Follows the object of `init` through the images of `update`, in order; its shape is that of the first box.

    A displacement is measured in the search region of the scale that won, so in its pixels (the authors' code takes the
    middle scale's; the difference is below 4 % of the displacement).
    """

    def __init__(self, matcher: ResponseMatcher, options: SiamFCOptions | None = None) -> None:
        super().__init__(matcher)
        self.matcher = matcher
        self.options = options or SiamFCOptions()
        self._memory: _Memory | None = None

    def init(self, image: Image, xyxy: npt.ArrayLike) -> Track:
        """Remember the object in box `xyxy` (4,) of `image` uint8 (H, W, 3) BGR.

        Raises:
            ValueError: the image is not uint8 (H, W, 3), or no part of the box lies inside it.
        """
        box = checked_box(xyxy, checked_size(image))
        size, center = box_sizes(box).astype(np.float64), box_centers(box).astype(np.float64)
        fill = mean_color(image)
        window = window_around(center, context_side(size))
        exemplar = cut(image, window, self.matcher.exemplar_size, fill)
        target = self.matcher.encode(np.ascontiguousarray(exemplar[..., ::-1]))
        memory = _Memory(target, center, size, size, 1.0, fill, Presence(self.options.presence))
        middle = self._responses(image, memory)[0][self.options.scales // 2]
        memory.first_peak = max(float(middle.max() - middle.mean()), 1e-9)
        self._memory = memory
        return Track(box, 1.0, "tracking")

    def update(self, image: Image) -> Track:
        """Where the object is in the next image uint8 (H, W, 3) BGR.

        Raises:
            RuntimeError: `init` was not called.
            ValueError: the image is not uint8 (H, W, 3).
        """
        memory, options = self._memory, self.options
        if memory is None:
            raise RuntimeError("`update` needs an object to follow: call `init(image, xyxy)` with the first image.")
        size_hw = checked_size(image)
        responses, windows = self._responses(image, memory)
        middle = options.scales // 2
        penalty = np.full(options.scales, options.scale_penalty)
        penalty[middle] = 1.0
        best = int(np.argmax(responses.max(axis=(1, 2)) * penalty))
        raw = responses[best]
        score = float(np.clip((raw.max() - raw.mean()) / memory.first_peak, 0.0, 1.0))
        if memory.presence.observe(score):
            point = self._peak(raw)
            limit = np.array(size_hw[::-1], np.float64)
            memory.center = np.clip(windows[best].to_image(point, self.matcher.search_size), 0, limit).astype(
                np.float64
            )
            growth = 1 - options.scale_rate + options.scale_rate * options.scale_step ** (best - middle)
            memory.size = np.clip(memory.size * growth, 0.2 * memory.first_size, 5 * memory.first_size)
        box = np.concatenate([memory.center - memory.size / 2, memory.center + memory.size / 2])
        return Track(clip_boxes(box, size_hw), score, memory.presence.state)

    def _responses(self, image: Image, memory: _Memory) -> tuple[Array, list[Window]]:
        """Enlarged responses (S, m, m) of all scales around the last place, and their windows."""
        options, size = self.options, self.matcher.search_size
        side = context_side(memory.size) * size / self.matcher.exemplar_size
        steps = options.scale_step ** (np.arange(options.scales) - options.scales // 2)
        windows = [window_around(memory.center, side * step) for step in steps]
        searches = np.stack([cut(image, window, size, memory.fill)[..., ::-1] for window in windows])
        responses = self.matcher.respond(memory.target, searches)
        wide = responses.shape[1] * options.upsampling
        return np.stack([cv2.resize(r, (wide, wide), interpolation=cv2.INTER_CUBIC) for r in responses]), windows

    def _peak(self, response: Array) -> Array:
        """The best place (2,) as x, y in pixels of the search region, with the cosine window mixed in."""
        options, count = self.options, response.shape[0]
        line = np.hanning(count)
        window = np.outer(line, line)
        mixed = response - response.min()
        mixed = mixed / max(float(mixed.sum()), 1e-12)
        mixed = (1 - options.window_influence) * mixed + options.window_influence * window / window.sum()
        row, column = np.unravel_index(int(np.argmax(mixed)), mixed.shape)
        # pixel u of the enlarged map is cell (u + 0.5) / upsampling - 0.5 of the response
        cells = (np.array([column, row]) + 0.5) / options.upsampling - 0.5
        middle = (count / options.upsampling - 1) / 2
        return (self.matcher.search_size / 2 + (cells - middle) * self.matcher.stride).astype(np.float32)
