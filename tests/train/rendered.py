"""Folders of rendered pictures: coloured shapes that a tiny network tells apart within seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

__all__ = ["SHAPES", "write_shapes"]

SHAPES = ("circle", "cross", "square")


def shape(kind: str, rng: np.random.Generator, size_hw: tuple[int, int] = (28, 34)) -> np.ndarray:
    height, width = size_hw
    image = np.full((height, width, 3), rng.integers(0, 90, 3), np.uint8)
    colour = tuple(int(c) for c in rng.integers(140, 256, 3))
    x, y = int(rng.integers(12, width - 12)), int(rng.integers(11, height - 11))
    r = int(rng.integers(6, 9))
    if kind == "circle":
        cv2.circle(image, (x, y), r, colour, -1)
    elif kind == "square":
        cv2.rectangle(image, (x - r + 1, y - r + 1), (x + r - 1, y + r - 1), colour, -1)
    else:
        cv2.line(image, (x - r, y - r), (x + r, y + r), colour, 3)
        cv2.line(image, (x - r, y + r), (x + r, y - r), colour, 3)
    return image


def write_shapes(root: Path, per_class: int, seed: int = 0, *, shuffled: bool = False) -> Path:
    """One folder a shape under `root`; `shuffled` puts every picture into a folder drawn at random."""
    rng = np.random.default_rng(seed)
    for kind in SHAPES:
        (root / kind).mkdir(parents=True, exist_ok=True)
    for number in range(per_class):
        for kind in SHAPES:
            home = SHAPES[rng.integers(len(SHAPES))] if shuffled else kind
            path = root / home / f"{kind[:2]}{number}.png"
            path.write_bytes(cv2.imencode(".png", shape(kind, rng))[1].tobytes())
    return root
