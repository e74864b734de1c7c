"""Procedural objects for rendered scenes: parts with outlines in [-1, 1] x [-1, 1], joints that move, and textures."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["Part", "Sprite", "Textures", "random_sprite"]

TEXTURE = 64
Points = npt.NDArray[np.float64]
Image = npt.NDArray[Any]  # uint8 (H, W, 3) BGR


@dataclass
class Part:
    """One piece of a sprite: a closed outline (N, 2) in sprite coordinates, its texture, the joint it turns about."""

    outline: Points
    texture: Image
    joint: tuple[float, float] = (0.0, 0.0)
    swing: float = 0.0  # radians at the end of a stride
    phase: float = 0.0


@dataclass
class Sprite:
    """An object made of parts, drawn in order; `bend` is the amplitude of its soft deformation."""

    parts: list[Part]
    aspect: float = 1.0  # width / height
    bend: float = 0.0
    waves: Points = field(default_factory=lambda: np.zeros((2, 3)))

    def outlines(self, pose: float) -> list[Points]:
        """The outline of every part at `pose` (a phase in radians: a walk, a flutter)."""
        return [self._posed(part, pose) for part in self.parts]

    def _posed(self, part: Part, pose: float) -> Points:
        points = part.outline
        if part.swing:
            angle = part.swing * math.sin(pose + part.phase)
            turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
            points = (points - part.joint) @ turn + part.joint
        if self.bend:
            wave = points @ self.waves[:, :2].T + self.waves[:, 2] + pose
            points = points + self.bend * np.sin(wave)
        return points


class Textures:
    """Source of texture patches uint8 (64, 64, 3): procedural ones, and pieces of `images` where there are any."""

    def __init__(self, images: list[Image]) -> None:
        self.images = images

    def image(self, rng: np.random.Generator, low: float = 0.1, high: float = 0.6) -> Image | None:
        """A random square piece of a random image, flipped and recoloured at random; None without images."""
        if not self.images:
            return None
        image = self.images[rng.integers(len(self.images))]
        height, width = image.shape[:2]
        side = int(max(8, min(height, width) * rng.uniform(low, high)))
        y, x = rng.integers(max(1, height - side)), rng.integers(max(1, width - side))
        piece = cv2.resize(image[y : y + side, x : x + side], (TEXTURE, TEXTURE), interpolation=cv2.INTER_AREA)
        return recolor(piece[:, :: rng.choice((-1, 1))], rng, 0.5)

    def patch(self, rng: np.random.Generator, color: npt.NDArray[np.float64] | None = None) -> Image:
        """A texture patch, mostly procedural, tinted by `color` (BGR 0-255) when given."""
        roll = rng.random()
        if roll < 0.3 and color is None and (piece := self.image(rng)) is not None:
            return piece
        base = random_color(rng) if color is None else color
        other = np.clip(base + rng.normal(0, 45, 3), 0, 255)
        mix = _pattern(rng)[..., None] if roll < 0.8 else np.zeros((TEXTURE, TEXTURE, 1))
        grain = rng.normal(0, rng.uniform(0, 8), (TEXTURE, TEXTURE, 1))
        return np.clip(base * (1 - mix) + other * mix + grain, 0, 255).astype(np.uint8)


def random_color(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A colour BGR in 0-255, greyish half of the time as the world is."""
    grey = rng.uniform(10, 245)
    return np.clip(grey + rng.normal(0, 12 if rng.random() < 0.5 else 60, 3), 0, 255)


def recolor(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """The image with a random gain and offset per channel, and grey sometimes."""
    gain = 1 + rng.normal(0, 0.15 * strength, 3) + rng.normal(0, 0.2 * strength)
    shift = rng.normal(0, 12 * strength, 3) + rng.normal(0, 15 * strength)
    table = np.clip(np.arange(256)[:, None] * gain + shift, 0, 255).astype(np.uint8)
    out = cv2.LUT(np.ascontiguousarray(image), table.reshape(256, 1, 3))
    if rng.random() < 0.1 * strength:
        out = cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return out


def _pattern(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A field (64, 64) in [0, 1]: stripes, checks, spots, a ramp or clouds."""
    y, x = np.mgrid[0:TEXTURE, 0:TEXTURE] / TEXTURE
    kind = rng.integers(5)
    angle, frequency, phase = rng.uniform(0, math.pi), rng.uniform(2, 9), rng.uniform(0, 6)
    along = x * math.cos(angle) + y * math.sin(angle)
    if kind == 0:
        return 0.5 + 0.5 * np.sign(np.sin(2 * math.pi * frequency * along + phase))
    if kind == 1:
        across = y * math.cos(angle) - x * math.sin(angle)
        return ((np.floor(along * frequency) + np.floor(across * frequency)) % 2).astype(float)
    if kind == 2:
        return (np.sin(2 * math.pi * frequency * x + phase) * np.sin(2 * math.pi * frequency * y) > 0.3).astype(float)
    if kind == 3:
        return np.clip(along, 0, 1)
    clouds = np.zeros((TEXTURE, TEXTURE))
    for cells in (3, 6, 12):
        noise = rng.random((cells, cells)).astype(np.float32)
        clouds += cv2.resize(noise, (TEXTURE, TEXTURE), interpolation=cv2.INTER_CUBIC) * 3 / cells
    low, high = clouds.min(), clouds.max()
    return (clouds - low) / max(high - low, 1e-6)


def _ellipse(cx: float, cy: float, rx: float, ry: float, power: float = 2.0, count: int = 20) -> Points:
    t = np.linspace(0, 2 * math.pi, count, endpoint=False)
    c, s = np.cos(t), np.sin(t)
    return np.stack(
        [cx + rx * np.sign(c) * np.abs(c) ** (2 / power), cy + ry * np.sign(s) * np.abs(s) ** (2 / power)], axis=1
    )


def _quad(x0: float, y0: float, x1: float, y1: float, w0: float, w1: float) -> Points:
    """A tapered limb from (x0, y0) to (x1, y1), of widths w0 and w1."""
    dx, dy = x1 - x0, y1 - y0
    nx, ny = -dy / math.hypot(dx, dy) / 2, dx / math.hypot(dx, dy) / 2
    return np.array(
        [
            [x0 + nx * w0, y0 + ny * w0],
            [x1 + nx * w1, y1 + ny * w1],
            [x1 - nx * w1, y1 - ny * w1],
            [x0 - nx * w0, y0 - ny * w0],
        ]
    )


def _blob_outline(rng: np.random.Generator, roughness: float, count: int = 28) -> Points:
    t = np.linspace(0, 2 * math.pi, count, endpoint=False)
    radius = np.ones(count)
    for k in range(2, 6):
        radius += roughness / k * rng.normal() * np.cos(k * t + rng.uniform(0, 6))
    points = np.clip(radius, 0.25, 2)[:, None] * np.stack([np.cos(t), np.sin(t)], axis=1)
    low, high = points.min(0), points.max(0)
    return (points - low) / (high - low) * 2 - 1


def _blob(rng: np.random.Generator, textures: Textures) -> Sprite:
    parts = [Part(_blob_outline(rng, rng.uniform(0, 0.6)), textures.patch(rng))]
    for _ in range(rng.integers(0, 5)):
        center, size = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.1, 0.45, 2)
        parts.append(Part(_blob_outline(rng, 0.3) * size + center, textures.patch(rng), swing=rng.uniform(0, 0.2)))
    return Sprite(parts, aspect=math.exp(rng.normal(0, 0.45)))


def _photo(rng: np.random.Generator, textures: Textures) -> Sprite:
    texture = textures.image(rng, 0.15, 0.9)
    outline = (
        _ellipse(0, 0, 1, 1, rng.uniform(1.8, 12), 32)
        if rng.random() < 0.5
        else _blob_outline(rng, rng.uniform(0, 0.4))
    )
    patch = textures.patch(rng) if texture is None else texture
    return Sprite([Part(outline, patch)], aspect=math.exp(rng.normal(0, 0.4)))


def _figure(rng: np.random.Generator, textures: Textures) -> Sprite:
    skin = np.array([rng.uniform(40, 190), rng.uniform(60, 210), rng.uniform(90, 240)])
    top, bottom = random_color(rng), random_color(rng) * rng.uniform(0.3, 1)
    stride, arm, width = rng.uniform(0.1, 0.7), rng.uniform(0.1, 0.9), rng.uniform(0.7, 1.4)
    hip, shoulder = 0.1 + rng.uniform(-0.08, 0.1), -0.62
    leg = textures.patch(rng, bottom)
    sleeve = textures.patch(rng, top if rng.random() < 0.6 else skin)
    parts = []
    for side, phase in ((-1, 0.0), (1, math.pi)):
        x = 0.22 * side * width
        parts.append(Part(_quad(x, hip, x, 1.0, 0.42 * width, 0.26 * width), leg, (x, hip), stride, phase))
    far = _quad(-0.42 * width, shoulder, -0.5 * width, 0.15, 0.24, 0.18)
    parts.append(Part(far, sleeve, (-0.42 * width, shoulder), arm, math.pi))
    torso = _ellipse(0, (shoulder + hip) / 2, 0.48 * width, (hip - shoulder) / 2 + 0.14, rng.uniform(2.2, 6))
    parts.append(Part(torso, textures.patch(rng, top)))
    near = _quad(0.42 * width, shoulder, 0.5 * width, 0.15, 0.24, 0.18)
    parts.append(Part(near, sleeve, (0.42 * width, shoulder), arm, 0.0))
    parts.append(Part(_ellipse(0, -0.84, 0.25, 0.17), textures.patch(rng, skin)))
    hair = _ellipse(0, -0.9, 0.26, 0.1)
    parts.append(Part(hair, textures.patch(rng, random_color(rng) * 0.5)))
    if rng.random() < 0.3:  # a bag, a board, a stick
        held = _quad(rng.uniform(-0.6, 0.6), rng.uniform(-0.4, 0.2), rng.uniform(-0.9, 0.9), 0.6, 0.2, 0.3)
        parts.append(Part(held, textures.patch(rng), swing=rng.uniform(0, 0.3)))
    return Sprite(parts, aspect=rng.uniform(0.32, 0.55))


def _vehicle(rng: np.random.Generator, textures: Textures) -> Sprite:
    paint = random_color(rng)
    dark = textures.patch(rng, np.full(3, rng.uniform(15, 60)))
    cabin_left, cabin_right = rng.uniform(-0.8, -0.3), rng.uniform(0.2, 0.8)
    roof = np.array([[cabin_left, -0.1], [cabin_left + 0.22, -1], [cabin_right - 0.22, -1], [cabin_right, -0.1]])
    parts = [
        Part(roof, textures.patch(rng, paint)),
        Part(roof * [0.84, 0.75] + [0.0, -0.12], textures.patch(rng, np.full(3, rng.uniform(40, 190)))),
        Part(_ellipse(0, 0.25, 1, 0.5, rng.uniform(3, 8)), textures.patch(rng, paint)),
    ]
    for x in (-0.6, 0.6):
        parts.append(Part(_ellipse(x, 0.72, 0.2, 0.28), dark))
        parts.append(Part(_ellipse(x, 0.72, 0.1, 0.14), textures.patch(rng, np.full(3, 170.0)), (x, 0.72), 3.0))
    parts.append(Part(_ellipse(0.9, 0.2, 0.08, 0.12), textures.patch(rng, np.array([120.0, 200, 240]))))
    return Sprite(parts, aspect=rng.uniform(1.1, 2.6))


def _face(rng: np.random.Generator, textures: Textures) -> Sprite:
    skin = np.array([rng.uniform(40, 190), rng.uniform(60, 210), rng.uniform(90, 240)])
    hair = random_color(rng) * rng.uniform(0.2, 0.8)
    dark = textures.patch(rng, np.full(3, rng.uniform(10, 70)))
    parts = [
        Part(_ellipse(0, -0.15, 1, 0.85), textures.patch(rng, hair)),
        Part(_ellipse(0, 0.12, 0.85, 0.88, 2.2), textures.patch(rng, skin)),
        Part(_ellipse(-0.35, -0.05, 0.15, 0.08), dark),
        Part(_ellipse(0.35, -0.05, 0.15, 0.08), dark),
        Part(_ellipse(0, 0.25, 0.1, 0.18), textures.patch(rng, skin * 0.85)),
        Part(_ellipse(0, 0.55, 0.3, 0.07), textures.patch(rng, skin * np.array([0.6, 0.6, 0.8])), swing=0.1),
    ]
    return Sprite(parts, aspect=rng.uniform(0.65, 1.0))


KINDS: dict[str, tuple[float, Callable[[np.random.Generator, Textures], Sprite]]] = {
    "blob": (0.28, _blob),
    "photo": (0.27, _photo),
    "figure": (0.22, _figure),
    "vehicle": (0.12, _vehicle),
    "face": (0.11, _face),
}


def random_sprite(rng: np.random.Generator, textures: Textures, without: tuple[str, ...] = ()) -> Sprite:
    """A random object of one of the `KINDS` but those `without`, at their frequencies."""
    names = [name for name in KINDS if name not in without]
    shares = np.array([KINDS[name][0] for name in names])
    kind = names[rng.choice(len(names), p=shares / shares.sum())]
    sprite = KINDS[kind][1](rng, textures)
    if rng.random() < 0.5:
        sprite.bend = rng.uniform(0.02, 0.1)
        sprite.waves = np.concatenate([rng.uniform(-3, 3, (2, 2)), rng.uniform(0, 6, (2, 1))], axis=1)
    return sprite
