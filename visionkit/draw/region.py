"""The region that was straightened: its outline over the image, and the straight crop beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.draw.common import INK, SHADOW, Color, Image, draw_text, line_width, plain, text_style
from visionkit.structures import Classification, MultiClassification, Rectified

__all__ = ["draw_region_classes", "draw_regions"]

# BGR. Told apart by lightness as well as by hue.
OUTLINES: tuple[Color, ...] = ((90, 225, 255), (230, 160, 60), (120, 90, 230), (120, 220, 80))
SHARE = 0.28  # of the image's height, and of its width, that a crop may take
FARTHEST = 1 << 14  # pixels outside of the image that a line is followed
LONGEST = 24  # letters of a name
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


def draw_region_classes(
    image: Image,
    places: Sequence[npt.ArrayLike],
    found: Sequence[Classification | MultiClassification | None],
    class_names: Any = None,
    *,
    in_place: bool = False,
) -> Image:
    """`image` uint8 (H, W, 3) BGR with the likeliest class of each region on a label at its lower edge.

    A label has the colour that `draw_regions` gives the outline in the same place of its list, and stays inside of the
    image.

    Args:
        image: what to draw on; copied unless `in_place`.
        places: outline (P, 2) xy of each region, or of the box it was found in.
        found: what is in each; None where nothing was asked.
        class_names: by class id, or by head; an id without a name is shown as its number.
        in_place: draw onto `image` itself, which must be contiguous and writable, and return it.
    """
    canvas = image if in_place else image.copy()
    for number, (outline, classes) in enumerate(zip(places, found, strict=True)):
        text = "" if classes is None else _best(classes, class_names)
        if text:
            _draw_chip(canvas, np.asarray(outline, np.float64), text, OUTLINES[number % len(OUTLINES)])
    return canvas


def _best(found: Classification | MultiClassification, class_names: Any) -> str:
    """The likeliest class, of each head where there are several, with its probability."""
    heads = found.heads if isinstance(found, MultiClassification) else {"": found}
    told = []
    for head, classes in heads.items():
        names = class_names.get(head, ()) if isinstance(class_names, Mapping) else class_names or ()
        if len(classes):
            number = int(classes.class_id[0])
            name = plain(str(names[number]) if number < len(names) else str(number))
            short = name if len(name) <= LONGEST else name[: LONGEST - 2] + ".."
            told.append(f"{short} {float(classes.confidence[0]):.2f}")
    return " / ".join(told)


def _draw_chip(canvas: Image, outline: npt.NDArray[np.float64], text: str, color: Color) -> None:
    height, width = canvas.shape[:2]
    style = text_style(line_width((height, width)))
    chip_w, chip_h = style.size(text)
    near = np.clip(np.nan_to_num(outline), -FARTHEST, FARTHEST)
    left = int(np.clip(near[:, 0].mean() - chip_w / 2, 0, max(0, width - chip_w)))
    top = int(np.clip(near[:, 1].max() - chip_h, 0, max(0, height - chip_h)))
    cv2.rectangle(canvas, (left, top), (left + chip_w, top + chip_h), color, -1)
    draw_text(canvas, text, (left, top), INK, style)


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
