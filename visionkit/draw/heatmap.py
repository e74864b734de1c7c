"""The probability of one class at every place of an image, as a coloured map over it."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.draw.common import SHADOW, Color, Image, TextStyle, draw_text, line_width, plain, text_style

__all__ = ["draw_heatmap"]

Floats = npt.NDArray[np.float32]

BRIGHT: Color = (255, 255, 255)
NAME: Color = (120, 210, 255)
GROUND: Color = (26, 22, 18)
OPACITY = 0.72  # of the legend's ground
STRONGEST = 0.7  # opacity of the map where the probability is 1
LINE_AT = 0.5  # the class is more likely than all others together
DIMMED = 0.85  # of the image's lightness where the class is not
COLOR_LEFT = 0.2  # of the image's own colours: the others belong to the map
BAR_LETTERS = 7  # length of the legend's bar


def draw_heatmap(
    image: Image,
    probs: Floats,
    x: Floats,
    y: Floats,
    label: str = "",
    *,
    line_at: float | None = LINE_AT,
    in_place: bool = False,
) -> Image:
    """`image` uint8 (H, W, 3) BGR under a map of probabilities, with a line around what is above one half and a legend.

    The colours always run from 0 to 1, so that frames compare. Between the places of the map it is interpolated; beyond
    the outer ones the nearest counts.

    Args:
        image: what to draw on; copied unless `in_place`.
        probs: float32 (h, w) in [0, 1].
        x, y: centres (w,) and (h,) of the map's places, evenly spaced, absolute pixels.
        label: name of the class, before the colours; plain ASCII is drawn, other characters appear as `?`.
        line_at: where the line runs; None for no line.
        in_place: draw onto `image` itself, which must be contiguous and writable, and return it.
    """
    canvas = image if in_place else image.copy()
    size_hw = canvas.shape[:2]
    spread = _spread(probs, x, y, (size_hw[0], size_hw[1]))
    levels = np.asarray(cv2.convertScaleAbs(spread, alpha=255.0), np.uint8)
    opacity = np.asarray(cv2.LUT(levels, _opacities()), np.float32)
    pale = np.asarray(cv2.cvtColor(cv2.cvtColor(canvas, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)
    cv2.addWeighted(canvas, DIMMED * COLOR_LEFT, pale, DIMMED * (1 - COLOR_LEFT), 0, dst=canvas)
    cv2.blendLinear(canvas, np.asarray(cv2.applyColorMap(levels, _colors())), 1 - opacity, opacity, dst=canvas)
    if line_at is not None:
        _outline(canvas, levels, line_at)
    _draw_legend(canvas, label, float(probs.max(initial=0.0)))
    return canvas


def _spread(probs: Floats, x: Floats, y: Floats, size_hw: tuple[int, int]) -> Floats:
    """The map at every pixel of the image, float32 (H, W)."""
    (step_x, start_x), (step_y, start_y) = _axis(x), _axis(y)
    # pixel i's centre is i + 0.5, that of a place in `probs` is its index
    matrix = np.array(
        [[1 / step_x, 0, (0.5 - start_x) / step_x], [0, 1 / step_y, (0.5 - start_y) / step_y]], np.float64
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    whole = cv2.warpAffine(
        np.clip(probs, 0, 1).astype(np.float32), matrix, size_hw[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(whole, np.float32)


def _axis(centers: Floats) -> tuple[float, float]:
    """Step and start; a single place reaches everywhere."""
    return (float(centers[1] - centers[0]) if len(centers) > 1 else 1.0), float(centers[0])


@functools.cache
def _colors() -> Image:
    """(256, 1, 3) BGR, from violet over red to a light yellow: lighter is more, in grey too."""
    levels = np.linspace(60, 255, 256).round().astype(np.uint8)[:, None]
    return np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), np.uint8)


@functools.cache
def _opacities() -> Floats:
    """(1, 256): nothing below 1 %, then soon something, since even a few per cent of a thousand classes are a lot."""
    levels = np.arange(256, dtype=np.float32) / 255
    return (STRONGEST * np.sqrt(np.clip(levels - 0.01, 0, 1)))[None].astype(np.float32)


def _outline(canvas: Image, levels: Image, line_at: float) -> None:
    """A line around the places where the map is above `line_at`; none along the image's edge."""
    inside = (levels >= round(255 * line_at)).astype(np.uint8)
    framed = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    contours, _ = cv2.findContours(framed, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE, offset=(-1, -1))
    width = line_width(canvas.shape[:2])
    if width > 1:
        cv2.drawContours(canvas, contours, -1, SHADOW, width + 2, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, BRIGHT, width, cv2.LINE_AA if width > 1 else cv2.LINE_8)


def _draw_legend(canvas: Image, label: str, peak: float) -> None:
    """Name of the class, the colours from 0 to 1 with a mark at the map's highest value, in the lower left corner."""
    height, width = canvas.shape[:2]
    style, label = _fitted(plain(label), width, line_width((height, width)))
    name_w, row_h, digit_w = style.size(label)[0], style.size("Ag")[1], style.size("0")[0]
    bar_w = BAR_LETTERS * digit_w
    whole_w = name_w + bar_w + 3 * digit_w
    if row_h > height or whole_w > width:
        return
    left, top = style.pad, height - row_h - style.pad
    if top < 0 or left + whole_w > width:
        left, top = 0, height - row_h
    part = canvas[top : top + row_h, left : left + whole_w]
    cv2.addWeighted(np.full_like(part, GROUND), OPACITY, part, 1 - OPACITY, 0, dst=part)
    draw_text(canvas, label, (left, top), NAME, style)
    bar = left + name_w + 2 * digit_w
    draw_text(canvas, "0", (bar - digit_w, top), BRIGHT, style)
    draw_text(canvas, "1", (bar + bar_w, top), BRIGHT, style)
    strip = np.asarray(cv2.resize(_colors().reshape(1, 256, 3), (bar_w, row_h - 2 * style.pad)))
    canvas[top + style.pad : top + row_h - style.pad, bar : bar + bar_w] = strip
    mark = bar + round(min(max(peak, 0.0), 1.0) * (bar_w - 1))
    cv2.rectangle(canvas, (mark - style.pen, top + 1), (mark + style.pen, top + row_h - 2), BRIGHT, -1)
    cv2.rectangle(canvas, (mark - style.pen, top + 1), (mark + style.pen, top + row_h - 2), SHADOW, 1)


def _fitted(label: str, width: int, line: int) -> tuple[TextStyle, str]:
    """Letters and a label that leave room for the bar; smaller first, then cut."""
    for factor in (1.0, 0.75, 0.5):
        style = text_style(line, factor)
        room = width - (BAR_LETTERS + 4) * style.size("0")[0]
        if style.size(label)[0] <= room:
            return style, label
    while len(label) > 1 and style.size(label)[0] > room:
        label = label[:-3].rstrip() + "." if len(label) > 3 else label[:-1]
    return style, label
