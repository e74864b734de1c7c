"""Cutting a window out of an image: the one place where trackers, their training and their tests sample pixels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.geometry.crops import Window

__all__ = ["cut", "mean_color"]


def mean_color(image: npt.NDArray[np.uint8]) -> tuple[float, float, float]:
    """Mean of each channel of an image uint8 (H, W, 3), what a window shows outside of the image."""
    blue, green, red, _ = cv2.mean(image)
    return blue, green, red


def cut(
    image: npt.NDArray[np.uint8], window: Window, size: int, fill: tuple[float, float, float]
) -> npt.NDArray[np.uint8]:
    """The pixels of `window`, resized to uint8 (size, size, 3); outside of the image they are `fill`.

    Enlarging interpolates linearly, shrinking averages, both with half-pixel centres, as `Window.to_image` expects.
    """
    height, width = image.shape[:2]
    left, top = max(window.x0, 0), max(window.y0, 0)
    right, bottom = min(window.x0 + window.side, width), min(window.y0 + window.side, height)
    if right <= left or bottom <= top:
        return np.full((size, size, 3), np.round(fill), np.uint8)
    patch: npt.NDArray[Any] = image[top:bottom, left:right]
    if patch.shape[:2] != (window.side, window.side):
        if window.side >= 2 * size:
            return _cut_large(patch, (left - window.x0, top - window.y0), window.side, size, fill)
        patch = cv2.copyMakeBorder(
            patch,
            top - window.y0,
            window.y0 + window.side - bottom,
            left - window.x0,
            window.x0 + window.side - right,
            cv2.BORDER_CONSTANT,
            value=fill,
        )
    shrink = window.side > size
    return np.asarray(cv2.resize(patch, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR))


def _cut_large(
    visible: npt.NDArray[Any], offset_xy: tuple[int, int], side: int, size: int, fill: tuple[float, float, float]
) -> npt.NDArray[np.uint8]:
    """A large window: its visible part, at `offset_xy` in it, is shrunk before it is placed.

    Padding the whole window first would cost tens of milliseconds where a large object leaves the image.
    """
    height, width = visible.shape[:2]
    times = side // size
    small = cv2.resize(visible, (-(-width // times), -(-height // times)), interpolation=cv2.INTER_AREA)
    # pixel j of the window has its centre at (j + 0.5) * side / size; pixel i of `small` at (i + 0.5) / ratio + offset
    rows = []
    for ratio, offset in zip((small.shape[1] / width, small.shape[0] / height), offset_xy, strict=True):
        step = side / size * ratio
        rows.append((step, (0.5 * side / size - offset) * ratio - 0.5))
    matrix = np.array([[rows[0][0], 0, rows[0][1]], [0, rows[1][0], rows[1][1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    out = cv2.warpAffine(small, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=fill)
    return np.asarray(out)
