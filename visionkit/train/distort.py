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
    """Each image turned, scaled and shifted within its own canvas: the "RTS" of Jaderberg et al., NIPS 2015, harder.

    The picture is turned by up to `turn` degrees and scaled by `smallest` to `largest` about its middle, evenly in the
    logarithm; then shifted each way by up to what its smaller side leaves free of the canvas, and `over` of its own
    side more. What it leaves free has the median colour of its edge.

    Args:
        seed: what is drawn for an image with a name (`named`) depends on this and the name alone.
    """

    seed: int = 0
    turn: float = 90.0
    smallest: float = 0.4
    largest: float = 1.0
    over: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= self.largest or self.turn < 0 or self.over < 0:
            raise ValueError(
                "`turn` and `over` must not be negative, `smallest` positive and at most `largest`. Received: "
                f"turn={self.turn}, over={self.over}, smallest={self.smallest}, largest={self.largest}."
            )

    def named(self, image: Image, name: str) -> Image:
        """The image uint8 (H, W, 3) as it always is distorted under this name."""
        return self(image, np.random.default_rng((self.seed, zlib.crc32(name.encode()))))

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """The image uint8 (H, W, 3), distorted at random."""
        height, width = image.shape[:2]
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        border = [float(level) for level in np.median(edge, axis=0)]
        warped = cv2.warpAffine(
            image, self.matrix((height, width), rng), (width, height), flags=cv2.INTER_LINEAR, borderValue=border
        )
        return np.asarray(warped, np.uint8)

    def matrix(self, size_hw: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """The map (2, 3) from the image's pixel indices to those of the distorted one."""
        angle, zoom, *way = rng.uniform((-1, 0, -1, -1), 1)
        angle = np.deg2rad(self.turn) * angle
        scale = self.smallest * (self.largest / self.smallest) ** zoom
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        room = max(0.0, (1 - scale) / 2) + self.over * scale
        size = np.array(size_hw[::-1], np.float64)
        centre = (size - 1) / 2
        return np.column_stack([turn, centre - turn @ centre + np.array(way) * room * size])
