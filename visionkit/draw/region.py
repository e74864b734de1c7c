"""The region that was straightened: its outline over the image, and the straight crop beside it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.draw.common import SHADOW, Color, Image, line_width
from visionkit.structures import Rectified

__all__ = ["draw_regions"]

# BGR. Told apart by lightness as well as by hue.
OUTLINES: tuple[Color, ...] = ((90, 225, 255), (230, 160, 60), (120, 90, 230), (120, 220, 80))
BRIGHT: Color = (255, 255, 255)
SHARE = 0.28  # of the image's height, and of its width, that a crop may take
FARTHEST = 1 << 14  # pixels outside of the image that a line is followed
SHIFT = 4  # bits behind the point of OpenCV's coordinates


def draw_regions(
    image: Image, regions: Sequence[Rectified | None], *, inset: bool = True, in_place: bool = False
) -> Image:
    """`image` uint8 (H, W, 3) BGR with each region's outline, and its crop in the upper right corner.

    A dot marks where the crop's top left corner lies, so that a region that is turned or mirrored can be told. Lines
    grow with the image; several regions have a colour each, and their crops the same in a frame.

    Args:
        image: what to draw on; copied unless `in_place`.
        regions: None for one that failed, which keeps its colour free.
        inset: draw the crops.
        in_place: draw onto `image` itself, which must be contiguous and writable, and return it.
    """
    canvas = image if in_place else image.copy()
    top = 0
    for place, region in enumerate(regions):
        if region is None:
            continue
        color = OUTLINES[place % len(OUTLINES)]
        _draw_outline(canvas, region.outline, color)
        if inset:
            top = _draw_inset(canvas, region.image, color, top)
    return canvas


def _draw_outline(canvas: Image, outline: npt.NDArray[np.float64], color: Color) -> None:
    width = line_width(canvas.shape[:2])
    near = np.clip(np.nan_to_num(outline) - 0.5, -FARTHEST, FARTHEST)
    points = np.rint(near * 2**SHIFT).astype(np.int32)
    if width > 1:
        cv2.polylines(canvas, [points], True, SHADOW, width + 2, cv2.LINE_AA, SHIFT)
    cv2.polylines(canvas, [points], True, color, width, cv2.LINE_AA, SHIFT)
    first = (int(points[0, 0]), int(points[0, 1]))
    for radius, ink in ((2 * width + 2, SHADOW), (2 * width + 1, color)):
        cv2.circle(canvas, first, radius << SHIFT, ink, -1, cv2.LINE_AA, SHIFT)


def _draw_inset(canvas: Image, crop: Image, color: Color, top: int) -> int:
    """The crop at the right edge below `top`; returns where the next one begins. Left out where there is no room."""
    height, width = canvas.shape[:2]
    rim = line_width((height, width))
    scale = min(SHARE * height / crop.shape[0], SHARE * width / crop.shape[1])
    inner_h, inner_w = (max(1, round(n * scale)) for n in crop.shape[:2])
    outer_h, outer_w = inner_h + 2 * rim, inner_w + 2 * rim
    left, top = width - outer_w - 2 * rim, top + 2 * rim
    if left < 0 or top + outer_h > height:
        return top
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    part = canvas[top : top + outer_h, left : left + outer_w]
    part[:] = color
    part[rim : rim + inner_h, rim : rim + inner_w] = cv2.resize(crop, (inner_w, inner_h), interpolation=way)
    return top + outer_h
