"""Crops out of an image along any map of the plane, by OpenCV's samplers, averaged where they would skip pixels."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.geometry.homography import apply_homography, index_homography

__all__ = ["BORDERS", "MAX_SIDE", "homography_map", "warp", "warp_along"]

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Map = Callable[[Floats], Floats]

BORDERS = {"zero": cv2.BORDER_CONSTANT, "clamp": cv2.BORDER_REPLICATE}
MAX_SIDE = 32_766  # OpenCV counts pixels of a warp in 16 bits
MAX_SAMPLES = 1 << 25  # of one averaged crop; 32 megapixels are what the largest cameras see
SLACK = 0.25  # pixels that samples may be further apart than one
KNOTS = 128
PROBES = 17  # places a side at which the map is measured


def warp(
    image: Image,
    homography: npt.ArrayLike,
    size_hw: tuple[int, int],
    *,
    antialias: bool = False,
    border: str = "zero",
) -> Image:
    """The crop uint8 (h, w, 3) that `homography` cuts out of an image, bilinear.

    Args:
        image: uint8 (H, W, 3); it is only read.
        homography: (3, 3), from continuous pixels of the crop to those of the image.
        size_hw: of the crop.
        antialias: average what one pixel of the crop covers. Without, it is read at one place, and what lies between
            two places is skipped: stripes and small letters of a region that shrinks to a third turn into noise.
        border: what lies where there is no image: `zero` is black, `clamp` the nearest pixel of its edge.
    """
    matrix = np.asarray(homography, np.float64)
    factors = _factors(homography_map(matrix), size_hw, image.shape[:2]) if antialias else (1, 1)
    height, width = (n * factor for n, factor in zip(size_hw, factors, strict=True))
    fine = matrix / np.array([factors[1], factors[0], 1.0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    found = cv2.warpPerspective(
        image, _indices(fine.tobytes()), (width, height), flags=flags, borderMode=BORDERS[border]
    )
    return _averaged(np.asarray(found, np.uint8), size_hw)


def warp_along(
    image: Image, places: Map, size_hw: tuple[int, int], *, antialias: bool = False, border: str = "zero"
) -> Image:
    """The same along any smooth map from continuous points (P, 2) xy of the crop to those of the image.

    Of a large crop the map is asked at 128 x 128 places, and what lies between is linear: within a third of a pixel for
    a spline whose control points move by a fifth of a frame of 1080p.
    """
    factors = _factors(places, size_hw, image.shape[:2]) if antialias else (1, 1)
    height, width = (n * factor for n, factor in zip(size_hw, factors, strict=True))
    where = (_places(places, size_hw, (height, width)) - 0.5).astype(np.float32)
    found = cv2.remap(image, where[..., 0], where[..., 1], cv2.INTER_LINEAR, borderMode=BORDERS[border])
    return _averaged(np.asarray(found, np.uint8), size_hw)


def homography_map(homography: npt.ArrayLike) -> Map:
    """A matrix as a function of points."""
    return lambda points: apply_homography(homography, points)


@functools.lru_cache(maxsize=64)
def _indices(homography: bytes) -> Floats:
    """`index_homography` of a matrix, remembered: fixed corners ask for the same in every frame."""
    return index_homography(np.frombuffer(homography).reshape(3, 3))


def _averaged(fine: Image, size_hw: tuple[int, int]) -> Image:
    if fine.shape[:2] == size_hw:
        return fine
    return np.asarray(cv2.resize(fine, size_hw[::-1], interpolation=cv2.INTER_AREA), np.uint8)


def _places(places: Map, size_hw: tuple[int, int], fine_hw: tuple[int, int]) -> Floats:
    """Where the middles of the samples lie, (h, w, 2)."""
    ends = zip(size_hw, fine_hw, strict=True)
    y, x = ((np.arange(n) + 0.5) * (whole / n) for whole, n in ends)
    knots = [_thinned(line) for line in (y, x)]
    grid = np.stack(np.meshgrid(knots[1], knots[0]), axis=-1)
    found = places(grid.reshape(-1, 2)).reshape(grid.shape)
    if len(y) > KNOTS:
        found = _between(found, y, knots[0])
    if len(x) > KNOTS:
        found = _between(found.transpose(1, 0, 2), x, knots[1]).transpose(1, 0, 2)
    return np.asarray(found)


def _thinned(line: npt.NDArray[Any]) -> Floats:
    """At most `KNOTS` even places from the first to the last of a line."""
    ends = (float(line[0]), float(line[-1]))
    return np.asarray(line if len(line) <= KNOTS else np.linspace(*ends, KNOTS), np.float64)


def _between(values: Floats, line: npt.NDArray[Any], knots: Floats) -> Floats:
    """Values (K, …) at `knots`, evenly spread, as those at `line`, linear between two."""
    share = np.clip((line - knots[0]) / (knots[1] - knots[0]), 0, len(knots) - 1)
    low = np.minimum(share.astype(np.int64), len(knots) - 2)
    weight = (share - low)[:, None, None]
    return np.asarray(values[low] * (1 - weight) + values[low + 1] * weight)


def _factors(places: Map, size_hw: tuple[int, int], image_hw: tuple[int, int]) -> tuple[int, int]:
    """Samples down and across in each pixel of the crop, so that neighbours are at most 1.25 pixels apart.

    Never more in all than `MAX_SAMPLES`, or four for each pixel of the image, whichever is less: the near edge of a
    region seen at a slant would ask for any number of them.
    """
    height, width = size_hw
    y, x = (np.linspace(0.5, n - 0.5, PROBES) for n in size_hw)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    steps = [np.array([0.0, 0.5]), np.array([0.5, 0.0])]
    spread = [np.linalg.norm(places(grid + step) - places(grid - step), axis=1) for step in steps]
    wanted = [max(1.0, math.ceil(float(np.nan_to_num(one, nan=1.0, posinf=1e6).max()) - SLACK)) for one in spread]
    room = min(MAX_SAMPLES, max(4 * image_hw[0] * image_hw[1], height * width)) / (height * width)
    if wanted[0] * wanted[1] > room:
        shrink = math.sqrt(room / (wanted[0] * wanted[1]))
        wanted = [max(1.0, one * shrink) for one in wanted]
    down, across = (min(int(one), MAX_SIDE // n) for one, n in zip(wanted, size_hw, strict=True))
    return max(1, down), max(1, across)
