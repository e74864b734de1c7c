"""The classes of an image's pixels as colours over it, with a legend; and how sure the network was."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.draw.common import SHADOW, Color, Image, TextStyle, draw_text, line_width, plain, text_style
from visionkit.draw.heatmap import draw_heatmap
from visionkit.structures import Segmentation

__all__ = ["BACKGROUND_NAMES", "CLASS_COLORS", "draw_segmentation", "draw_uncertainty"]

Names = Sequence[str] | Mapping[str, Sequence[str]] | None

# RGB. The first seven are Okabe and Ito's; each further one is the colour in a grid of RGB that is farthest from those
# before it in CIELAB, for usual, protanopic, deuteranopic and tritanopic eyes alike (Machado et al., 2009): at least 42
# for the eighth, 20 for the fifteenth, 14 for the last.
CLASS_COLORS: tuple[Color, ...] = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0)),
    *((204, 121, 167), (135, 0, 255), (195, 240, 195), (135, 60, 45), (105, 255, 135), (150, 120, 255)),
    *((150, 165, 90), (90, 60, 195), (120, 75, 120), (180, 15, 0), (255, 180, 210), (210, 15, 180)),
    *((225, 0, 90), (255, 120, 150), (195, 225, 90), (135, 210, 135), (120, 150, 240), (90, 90, 240)),
)
# Classes of these names are what is left over; they are not coloured.
BACKGROUND_NAMES = frozenset({"background", "__background__", "void", "unlabelled", "unlabeled", "ignore"})

BRIGHT: Color = (255, 255, 255)
DIM: Color = (205, 205, 205)
GROUND: Color = (26, 22, 18)
OPACITY = 0.5  # of the colours
LEGEND_OPACITY = 0.78
MAX_SHARE = 0.9  # of the image's width and height that the legend may take
LONGEST = 30  # letters of a name


def draw_segmentation(
    image: Image,
    result: Segmentation,
    class_names: Names = None,
    *,
    palette: Sequence[Color] = (),
    legend: bool = True,
    in_place: bool = False,
) -> Image:
    """`image` uint8 (H, W, 3) BGR with its classes as colours over it, dark lines between them, and a legend.

    Background is left as it is. The legend names the classes that are there, with their share of the image.

    Args:
        image: what to draw on; copied unless `in_place`.
        result: of that image.
        class_names: by class id; an id without a name is shown as its number. Names in `BACKGROUND_NAMES` are not
            coloured.
        palette: colours RGB by class id; without, `CLASS_COLORS` in turn, background left out.
        legend: draw it.
        in_place: draw onto `image` itself, which must be contiguous and writable, and return it.
    """
    canvas = image if in_place else image.copy()
    ids = result.class_map
    if ids.shape != canvas.shape[:2]:
        raise ValueError(f"`result` must be of the image's size {canvas.shape[:2]}. Received: {ids.shape}.")
    names = _names(class_names)
    counts = np.bincount(ids.ravel())
    present = [int(class_id) for class_id in np.flatnonzero(counts)]
    count = max(len(names), len(counts))
    backgrounds = frozenset(i for i, name in enumerate(names) if name.strip().casefold() in BACKGROUND_NAMES)
    colors = _colors(count, backgrounds, tuple(palette))
    small = ids.astype(np.uint8) if count <= 256 else (ids % 256).astype(np.uint8)
    shown = [class_id for class_id in present if class_id not in backgrounds]
    if shown:
        _color(canvas, small, colors, backgrounds)
        _outline(canvas, ids)
    if legend and shown:
        rows = [(_named(names, i), counts[i] / ids.size, _bgr(colors, i)) for i in shown]
        _draw_legend(canvas, rows)
    return canvas


def draw_uncertainty(image: Image, entropy: npt.NDArray[np.float32], *, in_place: bool = False) -> Image:
    """`image` uint8 (H, W, 3) BGR under a map of entropy float32 (h, w) in [0, 1], which covers it evenly."""
    height, width = image.shape[:2]
    rows, columns = entropy.shape
    x = ((np.arange(columns) + 0.5) * (width / columns)).astype(np.float32)
    y = ((np.arange(rows) + 0.5) * (height / rows)).astype(np.float32)
    return draw_heatmap(image, entropy, x, y, "uncertainty", line_at=None, in_place=in_place)


def _names(class_names: Names) -> tuple[str, ...]:
    if isinstance(class_names, Mapping):
        class_names = next(iter(class_names.values()), ())
    return () if class_names is None else tuple(str(name) for name in class_names)


def _named(names: Sequence[str], class_id: int) -> str:
    name = plain(names[class_id]).strip() if class_id < len(names) else ""
    name = name or str(class_id)
    return name if len(name) <= LONGEST else name[: LONGEST - 2] + ".."


@functools.lru_cache(maxsize=16)
def _colors(count: int, backgrounds: frozenset[int], palette: tuple[Color, ...]) -> Image:
    """(256, 1, 3) BGR by class id."""
    table = np.zeros((256, 1, 3), np.uint8)
    turn = 0
    for class_id in range(min(256, count)):
        if class_id in backgrounds:
            continue
        color = palette[class_id] if class_id < len(palette) else CLASS_COLORS[turn % len(CLASS_COLORS)]
        table[class_id, 0] = color[::-1]
        turn += 1
    return table


def _bgr(colors: Image, class_id: int) -> Color:
    blue, green, red = (int(level) for level in colors[class_id % 256, 0])
    return blue, green, red


def _color(canvas: Image, ids: Image, colors: Image, backgrounds: frozenset[int]) -> None:
    painted = cv2.applyColorMap(ids, colors)
    cv2.addWeighted(painted, OPACITY, canvas, 1 - OPACITY, 0, dst=painted)
    if not backgrounds:
        canvas[:] = painted
        return
    table = np.full(256, 255, np.uint8)
    table[[class_id for class_id in backgrounds if class_id < 256]] = 0
    cv2.copyTo(painted, cv2.LUT(ids, table), canvas)


def _outline(canvas: Image, ids: npt.NDArray[np.integer[Any]]) -> None:
    """A dark line where classes meet, of the width of lines in such an image."""
    side = line_width(canvas.shape[:2]) + 1
    values = ids if ids.dtype in (np.uint8, np.uint16) else ids.astype(np.uint16)
    edges = cv2.morphologyEx(values, cv2.MORPH_GRADIENT, np.ones((side, side), np.uint8))
    dark = np.empty_like(canvas)
    dark[:] = SHADOW
    cv2.copyTo(dark, (edges != 0).astype(np.uint8), canvas)


def _draw_legend(canvas: Image, rows: list[tuple[str, float, Color]]) -> None:
    """Colour, name and share of each class, in the upper left corner, in the order of class ids."""
    height, width = canvas.shape[:2]
    style, room = _fitted(rows, line_width((height, width)), width, height)
    row_h, digit = style.size("Ag")[1], style.size("0")[0]
    margin = max(1, style.pad)
    fits = int((MAX_SHARE * height - margin) // row_h)
    if fits < 1 or room < 3 * digit:
        return
    rows = _most(rows, fits)
    figure = style.size("100 %")[0]
    cut = [_cut(name, room - figure - row_h, style) for name, _, _ in rows]
    box_w = min(room, row_h + figure + max(style.size(name)[0] for name in cut))
    part = canvas[margin : margin + row_h * len(rows), margin : margin + box_w]
    ground = np.empty_like(part)
    ground[:] = GROUND
    cv2.addWeighted(ground, LEGEND_OPACITY, part, 1 - LEGEND_OPACITY, 0, dst=part)
    gap = max(1, row_h // 6)
    for place, (name, (_, share, color)) in enumerate(zip(cut, rows, strict=True)):
        top = margin + place * row_h
        corner = (margin + gap, top + gap)
        if share >= 0:
            cv2.rectangle(canvas, corner, (margin + row_h - gap - 1, top + row_h - gap - 1), color, -1)
        draw_text(canvas, name, (margin + row_h, top), BRIGHT, style)
        if share >= 0:
            told = _percent(share)
            draw_text(canvas, told, (margin + box_w - style.size(told)[0], top), DIM, style)


def _fitted(rows: list[tuple[str, float, Color]], line: int, width: int, height: int) -> tuple[TextStyle, int]:
    """Letters small enough for the names' width and the rows' height, and the width there is for the legend."""
    room = round(MAX_SHARE * width)
    for factor in (1.0, 0.75, 0.5):
        style = text_style(line, factor)
        row_h = style.size("Ag")[1]
        needed = row_h + style.size("100 %")[0] + max(style.size(name)[0] for name, _, _ in rows)
        if needed <= room and row_h * len(rows) <= MAX_SHARE * height - style.pad:
            break
    return style, room


def _most(rows: list[tuple[str, float, Color]], fits: int) -> list[tuple[str, float, Color]]:
    """The largest classes, as many as there is height for, and a line that says how many are left out."""
    if len(rows) <= fits:
        return rows
    kept = max(1, fits - 1)
    largest = sorted(range(len(rows)), key=lambda place: -rows[place][1])[:kept]
    listed = [rows[place] for place in sorted(largest)]
    return [*listed, (f"+ {len(rows) - kept} more", -1.0, BRIGHT)][:fits]


def _cut(name: str, room: int, style: TextStyle) -> str:
    while len(name) > 1 and style.size(name)[0] > room:
        name = name[:-3].rstrip() + "." if len(name) > 3 else name[:-1]
    return name


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.005 else "<1 %"
