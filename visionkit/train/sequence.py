"""A rendered clip with known boxes: one textured thing on a Lissajous path, larger and smaller, past a look-alike."""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.train.scenes import Placement, draw_sprite, sprite_box
from visionkit.train.shapes import TEXTURE, Image, Part, Sprite

__all__ = ["rendered_sequence"]

Box = npt.NDArray[np.float32]


def rendered_sequence(
    frames: int = 60, size_hw: tuple[int, int] = (240, 320), *, seed: int = 0, hidden: range | None = None
) -> Iterator[tuple[Image, Box]]:
    """Images uint8 (H, W, 3) BGR and the target's true box float32 (4,) xyxy, frame by frame.

    The target, a sixth of the image's height, goes once around a 3:2 Lissajous curve in `frames` frames while it grows
    and shrinks by a quarter. Another thing of the same outline stands still in a corner. In the frames `hidden` a
    curtain covers the whole image.
    """
    rng = np.random.default_rng(seed)
    height, width = size_hw
    ground = _ground(rng, size_hw)
    target, other = _thing(rng), _thing(rng)
    rest = Placement(0.12 * width, 0.14 * height, height / 6)
    for i in range(frames):
        t = 2 * math.pi * i / max(frames, 1)
        place = Placement(
            width * (0.5 + 0.33 * math.sin(2 * t + 0.4)),
            height * (0.5 + 0.30 * math.sin(3 * t)),
            height / 6 * (1 + 0.25 * math.sin(2 * t)),
        )
        image = ground.copy()
        draw_sprite(image, other, rest)
        draw_sprite(image, target, place)
        if hidden is not None and i in hidden:
            image = np.full_like(image, 96)
        yield image, sprite_box(target, place)


def _ground(rng: np.random.Generator, size_hw: tuple[int, int]) -> Image:
    """Soft clouds of three grains."""
    height, width = size_hw
    ground = np.zeros((height, width, 3), np.float32)
    for cells in (4, 12, 40):
        noise = rng.uniform(-1, 1, (cells * 3 // 4, cells, 3)).astype(np.float32)
        ground += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * (40 if cells < 40 else 20)
    return np.clip(ground + 110, 0, 255).astype(np.uint8)


def _thing(rng: np.random.Generator) -> Sprite:
    """A rounded square of coloured blocks."""
    blocks = rng.integers(0, 256, (5, 5, 3)).astype(np.uint8)
    texture = cv2.resize(blocks, (TEXTURE, TEXTURE), interpolation=cv2.INTER_NEAREST)
    t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    c, s = np.cos(t), np.sin(t)
    outline = np.stack([np.sign(c) * np.abs(c) ** 0.4, np.sign(s) * np.abs(s) ** 0.4], axis=1)
    return Sprite([Part(outline, np.asarray(texture))])
