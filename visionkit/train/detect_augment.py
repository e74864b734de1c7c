"""Random views of images together with their boxes: crop, zoom, mirror, quarter turns, mosaics, light and colour.

Crops and zooms as Liu et al., SSD, ECCV 2016, sections 2.2 and 3.6 (expansion), have them; four images in one view as
Bochkovskiy et al., YOLOv4, 2020, section 3.4. NumPy and OpenCV, seeded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.train.augment import Augmentation

__all__ = ["DetectAugmentation", "DetectView"]

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
FLIPS = ("none", "horizontal", "both")


@dataclass(frozen=True, eq=False)
class DetectView:
    """An image with boxes.

    Args:
        image: uint8 (H, W, 3) BGR.
        xyxy: float64 (N, 4).
        class_id: int64 (N,).
        ignored: bool (N,), boxes that are neither object nor background.
    """

    image: Image
    xyxy: Floats
    class_id: npt.NDArray[np.int64]
    ignored: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DetectAugmentation:
    """How strongly training images and their boxes are changed.

    Args:
        strength: 1 is the default of everything below, 0 changes nothing, 2 the most.
        flip: `none`, `horizontal`, or `both` where up and down mean nothing, as under a microscope.
        turns: turn by quarters as well, where that means nothing either.
        zoom_in, zoom_out: largest factor of size either way; beyond the image lies its mean colour.
        squeeze: of width against height.
        mosaic: fraction of views made of four images.
        light: largest change of brightness and contrast; `colour` of each channel's gain and of saturation.
        still: fraction of views of the whole image, not zoomed.
        least: share of a box that must be seen; of less, it does not count.
    """

    strength: float = 1.0
    flip: str = "horizontal"
    turns: bool = False
    zoom_in: float = 1.8
    zoom_out: float = 1.5
    squeeze: float = 1.2
    mosaic: float = 0.3
    light: float = 0.25
    colour: float = 0.15
    still: float = 0.2
    least: float = 0.35

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 2:
            raise ValueError(f"`strength` must be between 0 and 2. Received: strength={self.strength}.")
        if self.flip not in FLIPS:
            raise ValueError(f"`flip` must be one of {', '.join(FLIPS)}. Received: flip={self.flip!r}.")

    def __call__(
        self, draw: Callable[[int], DetectView], size_hw: tuple[int, int], rng: np.random.Generator, fill: Image
    ) -> DetectView:
        """A changed view of size `size_hw`.

        Args:
            draw: gives the view's own image for 0, and others, chosen by the number, for the rest of a mosaic.
            fill: uint8 (3,) BGR, what lies beyond an image.
        """
        quiet = self.strength == 0
        if not quiet and rng.random() < self.mosaic * min(1.0, self.strength):
            view = self._mosaic(draw, size_hw, rng, fill)
        else:
            still = quiet or rng.random() < self.still
            view = self._tile(draw(0), size_hw, size_hw, rng, fill, still=still)
        change = Augmentation(strength=self.strength, light=self.light, colour=self.colour)
        return view if quiet else replace(view, image=change.colours(view.image, rng))

    def _mosaic(
        self, draw: Callable[[int], DetectView], size_hw: tuple[int, int], rng: np.random.Generator, fill: Image
    ) -> DetectView:
        """Four views around a point."""
        middle = [round(side * rng.uniform(0.3, 0.7)) for side in size_hw]
        image = np.empty((*size_hw, 3), np.uint8)
        parts = []
        for k in range(4):
            y1, y2 = ((0, middle[0]), (middle[0], size_hw[0]))[k // 2]
            x1, x2 = ((0, middle[1]), (middle[1], size_hw[1]))[k % 2]
            part = self._tile(draw(k), (y2 - y1, x2 - x1), size_hw, rng, fill, still=False)
            image[y1:y2, x1:x2] = part.image
            parts.append(replace(part, xyxy=part.xyxy + np.array([x1, y1, x1, y1])))
        return DetectView(
            image,
            np.concatenate([part.xyxy for part in parts]),
            np.concatenate([part.class_id for part in parts]),
            np.concatenate([part.ignored for part in parts]),
        )

    def _tile(
        self,
        view: DetectView,
        tile_hw: tuple[int, int],
        whole_hw: tuple[int, int],
        rng: np.random.Generator,
        fill: Image,
        *,
        still: bool,
    ) -> DetectView:
        """A part of an image, scaled about as if the whole image filled `whole_hw`."""
        before = view.image.shape[:2]
        view = self._turned(view, rng)
        k = 0.0 if still else self.strength
        zoom = np.exp(rng.uniform(-np.log(self.zoom_out), np.log(self.zoom_in)) * k)
        squeeze = self.squeeze ** (k * rng.uniform(-0.5, 0.5))
        sizes = view.image.shape[:2]
        scale = [whole_hw[axis] / before[axis] for axis in (0, 1)]
        if sizes != before:  # turned: what was across goes down, at its own scale
            scale.reverse()
        spans = [
            _span(sizes[axis], tile_hw[axis], scale[axis] * zoom * factor, rng)
            for axis, factor in ((0, 1 / squeeze), (1, squeeze))
        ]
        return _cut(view, spans, tile_hw, fill, self.least)

    def _turned(self, view: DetectView, rng: np.random.Generator) -> DetectView:
        image, boxes = view.image, view.xyxy
        draws = rng.random(3)
        if self.strength == 0:
            return view
        if self.flip != "none" and draws[0] < 0.5:
            image = image[:, ::-1]
            boxes = np.stack([image.shape[1] - boxes[:, 2], boxes[:, 1], image.shape[1] - boxes[:, 0], boxes[:, 3]], 1)
        if self.flip == "both" and draws[1] < 0.5:
            image = image[::-1]
            boxes = np.stack([boxes[:, 0], image.shape[0] - boxes[:, 3], boxes[:, 2], image.shape[0] - boxes[:, 1]], 1)
        if self.turns and draws[2] < 0.5:
            image, boxes = image.transpose(1, 0, 2), boxes[:, [1, 0, 3, 2]]
        return replace(view, image=image, xyxy=boxes)


@dataclass(frozen=True, slots=True)
class _Span:
    """Pixels `start` to `stop` of an image's side that become `low` to `high` of a view's."""

    start: int
    stop: int
    low: int
    high: int

    @property
    def scale(self) -> float:
        return (self.high - self.low) / (self.stop - self.start)


def _span(side: int, out: int, scale: float, rng: np.random.Generator) -> _Span:
    """A random place of a view of `out` pixels on an image's side at a scale."""
    wanted = max(1, round(out / scale))
    if wanted <= side:
        start = int(rng.integers(0, side - wanted + 1))
        return _Span(start, start + wanted, 0, out)
    length = max(1, min(out, round(side * scale)))
    low = int(rng.integers(0, out - length + 1))
    return _Span(0, side, low, low + length)


def _cut(view: DetectView, spans: list[_Span], tile_hw: tuple[int, int], fill: Image, least: float) -> DetectView:
    y, x = spans
    part = view.image[y.start : y.stop, x.start : x.stop]
    how = cv2.INTER_AREA if min(y.scale, x.scale) < 1 else cv2.INTER_LINEAR
    size_wh = (x.high - x.low, y.high - y.low)
    part = np.asarray(cv2.resize(np.ascontiguousarray(part), size_wh, interpolation=how), np.uint8)
    image = np.empty((*tile_hw, 3), np.uint8)
    if part.shape[:2] != tile_hw:
        image[:] = fill
    image[y.low : y.high, x.low : x.high] = part
    scale = np.array([x.scale, y.scale] * 2)
    boxes = (view.xyxy - np.array([x.start, y.start] * 2)) * scale + np.array([x.low, y.low] * 2)
    limit = np.array([[x.low, y.low] * 2, [x.high, y.high] * 2], np.float64)
    cut = np.clip(boxes, limit[0], limit[1])
    seen = (cut[:, 2:] - cut[:, :2]).prod(axis=1) / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-9)
    there = (seen > 0.02) & ((cut[:, 2:] - cut[:, :2]).min(axis=1, initial=np.inf) >= 2)
    ignored = view.ignored | (seen < least)
    return DetectView(image, cut[there], view.class_id[there], ignored[there])
