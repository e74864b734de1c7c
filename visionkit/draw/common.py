"""What every drawing shares: widths and text that grow with the image, and the ink."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["INK", "SHADOW", "Color", "Image", "TextStyle", "draw_text", "line_width", "plain", "text_style"]

Image = npt.NDArray[np.uint8]
Color = tuple[int, int, int]

FONT = cv2.FONT_HERSHEY_SIMPLEX
INK: Color = (24, 20, 16)
SHADOW: Color = (20, 20, 20)


def line_width(size_hw: tuple[int, ...]) -> int:
    """Width of lines in pixels for an image of this size: 1 at 240 lines, 2 at 480, 3 at 720, 4 at 1080, 8 at 2160."""
    return max(1, round(min(size_hw[0], size_hw[1] * 9 / 12) / 256))


def plain(text: str) -> str:
    """`text` in the letters that OpenCV's font has: plain ASCII, anything else as `?`."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)


@dataclass(frozen=True, slots=True)
class TextStyle:
    """How text is written.

    Args:
        scale: of OpenCV's font, whose capitals are 21 pixels high at 1.
        pen: width of its strokes in pixels.
        pad: pixels free around a line of text.
    """

    scale: float
    pen: int
    pad: int

    def size(self, text: str) -> tuple[int, int]:
        """Width and height in pixels of a line of text with what is free around it."""
        (width, height), base = cv2.getTextSize(plain(text), FONT, self.scale, self.pen)
        return width + 2 * self.pad, height + base + 2 * self.pad


def text_style(width: int, factor: float = 1.0) -> TextStyle:
    """Text that goes with lines of this width."""
    scale = max(0.4, 0.2 + 0.2 * width) * factor
    return TextStyle(scale, max(1, round(scale * 1.4)), max(2, round(3 * scale) + 1))


def draw_text(canvas: Image, text: str, left_top: tuple[int, int], color: Color, style: TextStyle) -> None:
    """Write one line onto `canvas` in place; `left_top` is the corner of what is free around it."""
    text = plain(text)
    (_, height), _ = cv2.getTextSize(text, FONT, style.scale, style.pen)
    place = (left_top[0] + style.pad, left_top[1] + style.pad + height)
    cv2.putText(canvas, text, place, FONT, style.scale, color, style.pen, cv2.LINE_AA)
