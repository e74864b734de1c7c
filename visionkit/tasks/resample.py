"""Resizing that averages what it shrinks, as Pillow's bilinear filter does; a crop costs only its own size."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["Span", "resample"]

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[Any]

# Whole pixels are averaged first where this many become one: less work, the same within a grey level.
REDUCE_FROM = 4.0
# Products stay below the size from which OpenBLAS wakes its own threads, which would spin beside the network's.
BAND, WIDE_BAND, WIDE = 8, 4, 2.5
# Sums that lie midway between two levels are common, and arithmetic's last digit must not choose: the upper one.
MIDWAY = 0.00137


@dataclass(frozen=True, slots=True)
class Span:
    """Entries `start` to `stop` of one axis of an image of `length` pixels that is resized to `resized`.

    Nothing outside of them is computed: a crop out of an image enlarged a thousand times costs what the crop does.
    """

    length: int
    resized: int
    start: int
    stop: int

    @property
    def whole(self) -> bool:
        """Whether this axis stays as it is."""
        return self.start == 0 and self.length == self.resized == self.stop


@dataclass(frozen=True, slots=True)
class _Band:
    """Entries `begin` to `end` of the result: `weights` times the source's entries `start` to `stop`."""

    begin: int
    end: int
    start: int
    stop: int
    weights: Floats


@dataclass(frozen=True, slots=True)
class _Axis:
    """Pixels `begin` to `end` of the source, averaged by `factor`, then combined by `bands`."""

    begin: int
    end: int
    factor: int
    size: int
    bands: tuple[_Band, ...]


def resample(image: Image, rows: Span, columns: Span) -> Image:
    """The part of the resized image that the spans describe, uint8 (rows, columns, C); `image` itself if all of it.

    The filter is a triangle of two steps of the result (of the source where it enlarges), which is what torchvision's
    transforms do to a photograph (`bilinear`, antialiased). Each axis is a product with a banded matrix. Pillow rounds
    after each axis, this once: they differ by 1 at most, and by 5 where whole pixels were averaged first (from 4 to 1).
    Levels midway go up, as there, on every machine and in an exported graph alike.

    Args:
        image: uint8 (H, W, C), any strides.
        rows, columns: of the result, in the resized image.
    """
    if rows.whole and columns.whole:
        return image
    y, x = _axis(rows), _axis(columns)
    window = _window(image, y, x)
    channels = window.shape[2]
    part: Floats = window.astype(np.float32).reshape(len(window), -1)  # (h, w * C)
    part = _combined(y, part).reshape(y.size, -1, channels)
    part = np.asarray(cv2.transpose(part)).reshape(-1, y.size * channels)  # (w, rows * C)
    part = _combined(x, part).reshape(x.size, y.size, channels)
    # rounds; all is within 0 and 255
    out: Image = np.asarray(cv2.convertScaleAbs(cv2.transpose(part), alpha=1, beta=MIDWAY), np.uint8)
    return out.reshape(y.size, x.size, channels)


def _window(image: Image, y: _Axis, x: _Axis) -> Image:
    """The pixels that the result depends on, averaged by whole factors."""
    window = image[y.begin : y.end, x.begin : x.end]
    if y.factor == x.factor == 1:
        return window
    below, beside = y.end - y.begin - window.shape[0], x.end - x.begin - window.shape[1]
    if below or beside:  # the last block is not whole
        window = np.asarray(cv2.copyMakeBorder(window, 0, below, 0, beside, cv2.BORDER_REPLICATE))
    size_wh = (window.shape[1] // x.factor, window.shape[0] // y.factor)
    small: Image = np.asarray(cv2.resize(window, size_wh, interpolation=cv2.INTER_AREA))
    return small.reshape(size_wh[1], size_wh[0], image.shape[2])


def _combined(axis: _Axis, part: Floats) -> Floats:
    out = np.empty((axis.size, part.shape[1]), np.float32)
    for band in axis.bands:
        np.matmul(band.weights, part[band.start : band.stop], out=out[band.begin : band.end])
    return out


@functools.lru_cache(maxsize=64)
def _axis(span: Span) -> _Axis:
    ratio = span.length / span.resized
    factor = int(ratio / 2) if ratio >= REDUCE_FROM else 1
    reach = max(1.0, ratio)
    begin = max(0, math.floor((span.start + 0.5) * ratio - reach)) // factor * factor
    end = min(span.length, math.ceil((span.stop - 0.5) * ratio + reach))
    end = begin + -(-(end - begin) // factor) * factor
    centers = ((np.arange(span.start, span.stop) + 0.5) * ratio - begin) / factor
    bands = _bands(centers, max(1.0, ratio / factor), (end - begin) // factor)
    return _Axis(begin, end, factor, span.stop - span.start, bands)


def _bands(centers: npt.NDArray[np.float64], reach: float, count: int) -> tuple[_Band, ...]:
    """Weights of a triangle of half-width `reach` around each centre over `count` pixels, in bands of a few centres."""
    bands, step = [], BAND if reach < WIDE else WIDE_BAND
    for begin in range(0, len(centers), step):
        part = centers[begin : begin + step]
        start = max(0, math.floor(part[0] - reach))
        stop = min(count, math.ceil(part[-1] + reach) + 1)
        distance = np.abs(np.arange(start, stop) + 0.5 - part[:, None])
        weights = np.maximum(0.0, 1.0 - distance / reach)
        weights /= weights.sum(axis=1, keepdims=True)
        bands.append(_Band(begin, begin + len(part), start, stop, weights.astype(np.float32)))
    return tuple(bands)
