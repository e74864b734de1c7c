"""The most likely classes as a panel in the corner of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from visionkit.draw.common import Color, Image, TextStyle, draw_text, line_width, plain, text_style
from visionkit.structures import Classification, DenseClassification, MultiClassification

__all__ = ["draw_classes"]

Names = Sequence[str] | Mapping[str, Sequence[str]] | None

# BGR
GROUND: Color = (26, 22, 18)
BAR: Color = (140, 94, 32)
BEST_BAR: Color = (176, 118, 24)
BRIGHT: Color = (255, 255, 255)
DIM: Color = (205, 205, 205)
HEAD: Color = (120, 210, 255)
OPACITY = 0.72
MAX_SHARE = 0.9  # of the image's width and height that the panel may take
LONGEST = 30  # letters of a name


def draw_classes(
    image: Image,
    result: Classification | MultiClassification | DenseClassification,
    class_names: Names = None,
    *,
    in_place: bool = False,
) -> Image:
    """`image` uint8 (H, W, 3) BGR with a panel in its upper left corner: names, probabilities, and bars as long.

    The panel grows with the image. Where it would cover more than nine tenths of its width the letters get smaller, to
    half; then names are cut; lines for which there is no height are left out.

    Args:
        image: what to draw on; copied unless `in_place`.
        result: classes, most likely first; of several heads, each under its name.
        class_names: by class id, or by head; an id without a name is shown as its number.
        in_place: draw onto `image` itself, which must be contiguous and writable, and return it.
    """
    canvas = image if in_place else image.copy()
    if isinstance(result, DenseClassification):
        result = result.overall
    if isinstance(result, MultiClassification):
        lines: list[tuple[str, float | None]] = []
        for head, classes in result.heads.items():
            names = class_names.get(head) if isinstance(class_names, Mapping) else class_names
            lines += [(head, None), *_lines(classes, names)]
    else:
        names = next(iter(class_names.values()), None) if isinstance(class_names, Mapping) else class_names
        lines = [*_lines(result, names)]
    if lines:
        _draw_panel(canvas, lines)
    return canvas


def _lines(result: Classification, names: Sequence[str] | None) -> list[tuple[str, float | None]]:
    """Name and probability of each class."""
    lines: list[tuple[str, float | None]] = []
    for class_id, confidence in zip(result.class_id, result.confidence, strict=True):
        known = names is not None and 0 <= class_id < len(names)
        name = plain(names[class_id] if known and names is not None else str(class_id))
        lines.append((name if len(name) <= LONGEST else name[: LONGEST - 2] + "..", float(confidence)))
    return lines


def _draw_panel(canvas: Image, lines: list[tuple[str, float | None]]) -> None:
    height, width = canvas.shape[:2]
    style, lines, box_w = _fitted(lines, line_width((height, width)), round(MAX_SHARE * width))
    row_h = style.size("Ag")[1]
    margin = max(1, style.pad)
    lines = lines[: max(1, int((MAX_SHARE * height - margin) // row_h))]
    left, top = margin, margin
    _darken(canvas, left, top, box_w, row_h * len(lines))
    best = True
    for place, (name, confidence) in enumerate(lines):
        y = top + place * row_h
        if confidence is None:
            draw_text(canvas, name, (left, y), HEAD, style)
            best = True
            continue
        long = round(min(max(confidence, 0.0), 1.0) * box_w)
        if long:
            corner = (min(left + long, width) - 1, min(y + row_h - 1, height) - 1)
            cv2.rectangle(canvas, (left, y + 1), corner, BEST_BAR if best else BAR, -1)
        told = _percent(confidence)
        color = BRIGHT if best else DIM
        draw_text(canvas, name, (left, y), color, style)
        draw_text(canvas, told, (left + box_w - style.size(told)[0], y), color, style)
        best = False


def _fitted(
    lines: list[tuple[str, float | None]], width: int, limit: int
) -> tuple[TextStyle, list[tuple[str, float | None]], int]:
    """The style, the lines and the width of the panel that stays within `limit` pixels."""
    for factor in (1.0, 0.75, 0.5):
        style = text_style(width, factor)
        figure = style.size("100.0 %")[0]
        needed = max(style.size(name)[0] + (0 if confidence is None else figure) for name, confidence in lines)
        if needed <= limit:
            return style, lines, max(needed, min(limit, 2 * figure))
    room = limit - figure
    cut = [(_cut(name, room, style), confidence) for name, confidence in lines]
    return style, cut, limit


def _cut(name: str, room: int, style: TextStyle) -> str:
    while len(name) > 1 and style.size(name)[0] > room:
        name = name[:-3].rstrip() + "." if len(name) > 3 else name[:-1]
    return name


def _percent(confidence: float) -> str:
    return f"{100 * confidence:.1f} %"


def _darken(canvas: Image, left: int, top: int, width: int, height: int) -> None:
    part = canvas[top : top + height, left : left + width]
    if part.size:
        ground = np.empty_like(part)
        ground[:] = GROUND
        cv2.addWeighted(ground, OPACITY, part, 1 - OPACITY, 0, dst=part)
