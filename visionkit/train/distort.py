"""Photos put down crooked: turned, scaled and shifted by a seed. What spatial transformers are measured on."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["Distortion"]

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Distortion:
    """Each image turned, scaled and put down somewhere on a larger canvas: the "RTS" of Jaderberg et al., NIPS 2015.

    The canvas has `canvas` times the image's sides and the median colour of its edge. The picture is turned by up to
    `turn` degrees and scaled by `smallest` to `largest`, evenly in the logarithm; then shifted each way from the middle
    by up to what it would leave free of the canvas were it not turned, and `over` of its own side more.

    Args:
        seed: what is drawn for an image with a name (`named`) depends on this and the name alone.
    """

    seed: int = 0
    turn: float = 60.0
    smallest: float = 0.6
    largest: float = 1.0
    canvas: float = 1.5
    over: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest or self.turn < 0 or self.over < 0 or self.canvas < 1:
            raise ValueError(
                "`turn` and `over` must not be negative, `smallest` positive and at most `largest`, `canvas` at least "
                f"1. Received: turn={self.turn}, over={self.over}, smallest={self.smallest}, largest={self.largest}, "
                f"canvas={self.canvas}."
            )

    def named(self, image: Image, name: str) -> Image:
        """The image uint8 (h, w, 3) as it always is distorted under this name, on its canvas (H, W, 3)."""
        return self(image, np.random.default_rng((self.seed, zlib.crc32(name.encode()))))

    def __call__(self, image: Image, rng: np.random.Generator, share: float = 1.0) -> Image:
        """The image uint8 (h, w, 3), distorted at random, on its canvas (H, W, 3).

        Args:
            share: of the distortion, 0 to 1; at 0 the picture fills the canvas, upright.
        """
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        border = [float(level) for level in np.median(edge, axis=0)]
        matrix = self.matrix((image.shape[0], image.shape[1]), rng, share)
        height, width = self._canvas_hw(image.shape)
        warped = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=border)
        return np.asarray(warped, np.uint8)

    def matrix(self, size_hw: tuple[int, int], rng: np.random.Generator, share: float = 1.0) -> npt.NDArray[np.float64]:
        """The map (2, 3) from the image's pixel indices to those of its canvas."""
        angle, zoom, *way = rng.uniform((-1, 0, -1, -1), 1)
        angle = np.deg2rad(self.turn) * angle * share
        scale = (self.smallest * (self.largest / self.smallest) ** zoom) ** share * self.canvas ** (1 - share)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        room = max(0.0, (self.canvas - scale) / 2) + self.over * scale * share
        size, canvas = (np.array(sides[::-1], np.float64) for sides in (size_hw, self._canvas_hw(size_hw)))
        middle = (canvas - 1) / 2 + np.array(way) * room * size
        return np.column_stack([turn, middle - turn @ ((size - 1) / 2)])

    def _canvas_hw(self, size_hw: tuple[int, ...]) -> tuple[int, int]:
        return round(size_hw[0] * self.canvas), round(size_hw[1] * self.canvas)
