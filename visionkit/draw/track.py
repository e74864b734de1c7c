"""Tracks over an image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np

from visionkit.draw.common import INK, SHADOW, Color, Image, draw_text, line_width, text_style
from visionkit.structures import Track, TrackState

__all__ = ["STATE_COLORS", "TrackDrawer", "draw_track"]

# BGR. Told apart by lightness as well as by hue, so that they stay apart for colour-blind eyes and in grey.
STATE_COLORS: MappingProxyType[TrackState, Color] = MappingProxyType(
    {
        "tracking": (110, 220, 60),
        "uncertain": (40, 190, 255),
        "lost": (70, 70, 235),
        "reacquired": (250, 190, 70),
    }
)


def draw_track(
    image: Image,
    track: Track,
    label: str = "",
    *,
    trail: Sequence[tuple[float, float]] = (),
    in_place: bool = False,
) -> Image:
    """`image` uint8 (H, W, 3) BGR with the box, its state and confidence drawn on it.

    The box is solid while the object is seen; a lost one is shown dashed where it was last seen. Lines and text grow
    with the image.

    Args:
        image: what to draw on; copied unless `in_place`.
        track: the box, absolute pixels, and its state.
        label: what the object is called, before the state; plain ASCII is drawn, other characters appear as `?`.
        trail: recent centres (x, y), oldest first, drawn as a fading line.
        in_place: draw onto `image` itself, which must be contiguous and writable, and return it.
    """
    canvas = image if in_place else image.copy()
    color = STATE_COLORS[track.state]
    width = line_width(canvas.shape[:2])
    _draw_trail(canvas, trail, color, width)
    x1, y1, x2, y2 = (round(float(value)) for value in track.xyxy)
    box = (x1, y1, max(x2 - 1, x1), max(y2 - 1, y1))  # the last pixel inside
    draw_box = _dashed_box if track.state == "lost" else _solid_box
    if width > 1:  # a rim that keeps the colour visible on any ground; it would smother a line of one pixel
        draw_box(canvas, box, SHADOW, width + 2)
    draw_box(canvas, box, color, width)
    words = f"{label} {track.state}" if label else track.state
    _draw_chip(canvas, box, f"{words} {track.confidence:.2f}", color, width)
    return canvas


class TrackDrawer:
    """Draws the tracks of consecutive frames with the path the object took; one drawer a video.

    Args:
        label: as `draw_track`.
        length: how many centres the trail holds; 0 for none.
    """

    def __init__(self, label: str = "", *, length: int = 24) -> None:
        self.label, self.length = label, length
        self._centers: list[tuple[float, float]] = []

    def __call__(self, image: Image, track: Track) -> None:
        """Draw onto `image` uint8 (H, W, 3) BGR in place."""
        x1, y1, x2, y2 = (float(value) for value in track.xyxy)
        if track.state == "lost" or track.state == "reacquired":
            self._centers.clear()  # no line across the gap
        if track.state != "lost" and self.length:
            self._centers = [*self._centers[1 - self.length :], ((x1 + x2) / 2, (y1 + y2) / 2)]
        draw_track(image, track, self.label, trail=self._centers, in_place=True)


def _solid_box(canvas: Image, box: tuple[int, int, int, int], color: Color, width: int) -> None:
    cv2.rectangle(canvas, box[:2], box[2:], color, width, _line_type(width))


def _line_type(width: int) -> int:
    return cv2.LINE_AA if width > 1 else cv2.LINE_8  # smoothing would thin out an upright line of one pixel


def _dashed_box(canvas: Image, box: tuple[int, int, int, int], color: Color, width: int) -> None:
    x1, y1, x2, y2 = box
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    dash = 5.0 * line_width(canvas.shape[:2])
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        length = float(np.hypot(bx - ax, by - ay))
        count = max(1, round(length / (2 * dash)))  # dashes with equal gaps, one at each end
        steps = np.linspace(0.0, 1.0, 2 * (2 * count) + 1)[0::2]
        for begin, end in zip(steps[0::2], steps[1::2], strict=False):
            start = (round(ax + (bx - ax) * begin), round(ay + (by - ay) * begin))
            cv2.line(
                canvas,
                start,
                (round(ax + (bx - ax) * end), round(ay + (by - ay) * end)),
                color,
                width,
                _line_type(width),
            )


def _draw_trail(canvas: Image, trail: Sequence[tuple[float, float]], color: Color, width: int) -> None:
    if len(trail) < 2:
        return
    points = [(round(x), round(y)) for x, y in trail]
    for place, (begin, end) in enumerate(itertools.pairwise(points), 1):
        share = place / (len(points) - 1)
        faded: Any = tuple(round(channel * (0.35 + 0.65 * share)) for channel in color)
        cv2.line(canvas, begin, end, faded, max(1, round(width * share)), cv2.LINE_AA)


def _draw_chip(canvas: Image, box: tuple[int, int, int, int], text: str, color: Color, width: int) -> None:
    """A filled label on the box: above it, or inside along its top where there is no room above."""
    height, span = canvas.shape[:2]
    style = text_style(width)
    chip_w, chip_h = style.size(text)
    left = int(np.clip(box[0] - width // 2, 0, max(0, span - chip_w)))
    top = box[1] - width // 2 - chip_h
    if top < 0:
        top = int(np.clip(box[1] + width, 0, max(0, height - chip_h)))
    cv2.rectangle(canvas, (left, top), (left + chip_w, top + chip_h), color, -1)
    draw_text(canvas, text, (left, top), INK, style)
