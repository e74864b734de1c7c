"""Pictures of shapes with exact masks: background, discs, squares and triangles, which a network learns in seconds."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
NAMES = ("background", "disc", "square", "triangle")
COLOURS = ((90, 90, 90), (60, 60, 200), (60, 190, 60), (200, 80, 60))  # BGR, by class


def scene(
    rng: np.random.Generator, size_hw: tuple[int, int] = (40, 56), *, count: int = 3, telling: bool = True
) -> tuple[Image, Image]:
    """A picture uint8 (H, W, 3) BGR and its mask uint8 (H, W); shapes overlap, colours and light vary.

    Args:
        telling: each class has its colour; otherwise colours are random, and only the outline tells the class.
    """
    height, width = size_hw
    image = np.full((height, width, 3), 90.0) + rng.normal(0, 15, 3)
    mask = np.zeros(size_hw, np.uint8)
    for _ in range(count):
        kind = int(rng.integers(1, 4))
        side = float(rng.uniform(0.15, 0.32)) * min(size_hw)
        centre = rng.uniform(0.15, 0.85, 2) * (width, height)
        part = np.zeros(size_hw, np.uint8)
        if kind == 1:
            cv2.circle(part, (round(centre[0]), round(centre[1])), max(2, round(side)), 1, -1)
        else:
            corners = 4 if kind == 2 else 3
            angles = rng.uniform(0, 6.3) + np.arange(corners) * 2 * np.pi / corners
            points = centre + 1.3 * side * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            cv2.fillPoly(part, [np.round(points).astype(np.int32)], 1)
        colour = np.array(COLOURS[kind]) + rng.normal(0, 20, 3) if telling else rng.uniform(0, 255, 3)
        image[part == 1] = colour
        mask[part == 1] = kind
    noisy = image * rng.uniform(0.8, 1.2) + rng.normal(0, 12, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8), mask


def write_camvid(root: Path, counts: dict[str, int], size_hw: tuple[int, int] = (40, 56), *, seed: int = 0) -> Path:
    """Pictures in CamVid's layout: <root>/<part>/0000.png beside <root>/<part>annot/0000.png."""
    for number, (part, count) in enumerate(counts.items()):
        for folder in (part, f"{part}annot"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            image, mask = scene(np.random.default_rng((seed, number, k)), size_hw)
            cv2.imwrite(str(root / part / f"{k:04d}.png"), image)
            cv2.imwrite(str(root / f"{part}annot" / f"{k:04d}.png"), mask)
    return root


def palette_png(numbers: npt.NDArray[np.uint8], palette: npt.NDArray[np.uint8], bits: int = 8) -> bytes:
    """A PNG of indices uint8 (H, W) with a palette (K, 3) RGB, `bits` a pixel; written here, byte by byte."""
    height, width = numbers.shape
    each = 8 // bits
    padded = np.zeros((height, -(-width // each) * each), np.uint8)
    padded[:, :width] = numbers
    packed = np.zeros((height, padded.shape[1] // each), np.uint8)
    for place in range(each):
        packed |= padded[:, place::each] << (8 - bits * (place + 1))
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", width, height, bits, 3, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"PLTE", palette.tobytes()), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
