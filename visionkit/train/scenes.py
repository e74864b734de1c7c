"""Rendered scenes for tracking: moving objects over a moving background, with the true box of each frame."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.train.shapes import TEXTURE, Image, Sprite, Textures, random_sprite, recolor

__all__ = ["Placement", "Scene", "draw_sprite", "random_scene"]

SUBPIXEL = 4  # bits of fraction that cv2.fillPoly takes


@dataclass(frozen=True)
class Placement:
    """Where a sprite is in a frame: centre in pixels, height in pixels, turn in radians, pose, light gain, stretch."""

    x: float
    y: float
    height: float
    turn: float = 0.0
    pose: float = 0.0
    gain: float = 1.0
    stretch: float = 1.0
    shear: float = 0.0

    def matrix(self, aspect: float) -> npt.NDArray[np.float64]:
        """The 2x3 map from sprite coordinates to image coordinates."""
        half_h = self.height / 2
        half_w = half_h * aspect * self.stretch
        c, s = math.cos(self.turn), math.sin(self.turn)
        scale = np.array([[half_w, self.shear * half_h], [0, half_h]])
        return np.concatenate([np.array([[c, -s], [s, c]]) @ scale, [[self.x], [self.y]]], axis=1)


def _to_image(points: npt.NDArray[np.float64], matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return points @ matrix[:, :2].T + matrix[:, 2]


def sprite_box(sprite: Sprite, place: Placement, part_ids: list[int] | None = None) -> npt.NDArray[np.float32]:
    """The box float32 (4,) xyxy of the sprite, or of the named parts, at `place`, whole even where it is hidden."""
    matrix = place.matrix(sprite.aspect)
    outlines = sprite.outlines(place.pose)
    points = np.concatenate([_to_image(outlines[i], matrix) for i in part_ids or range(len(outlines))])
    return np.concatenate([points.min(0), points.max(0)]).astype(np.float32)


def draw_sprite(image: Image, sprite: Sprite, place: Placement) -> None:
    """Draw the sprite into `image` (uint8 (H, W, 3), changed in place), anti-aliased."""
    matrix = place.matrix(sprite.aspect)
    for part, outline in zip(sprite.parts, sprite.outlines(place.pose), strict=True):
        _draw_part(image, _to_image(outline, matrix), part.texture, matrix, place.gain)


def _draw_part(
    image: Image,
    points: npt.NDArray[np.float64],
    texture: Image,
    matrix: npt.NDArray[np.float64],
    gain: float,
) -> None:
    height, width = image.shape[:2]
    x0, y0 = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
    x1, y1 = np.minimum(np.ceil(points.max(0)).astype(int) + 2, (width, height))
    if x1 - x0 < 1 or y1 - y0 < 1:
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    # fillPoly counts pixel centres from 0: continuous coordinates lose half a pixel
    fixed = np.round((points - (x0 + 0.5, y0 + 0.5)) * (1 << SUBPIXEL)).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, SUBPIXEL)
    to_patch = np.array([[2 / TEXTURE, 0, -1], [0, 2 / TEXTURE, -1]])  # texture pixel -> sprite coordinates
    linear = matrix[:, :2] @ to_patch[:, :2]
    offset = matrix[:, :2] @ to_patch[:, 2] + matrix[:, 2] - (x0, y0)
    warp = np.concatenate([linear, offset[:, None]], axis=1)
    patch = cv2.warpAffine(texture, warp, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    if gain != 1.0:
        patch = cv2.convertScaleAbs(patch, alpha=gain)
    target = image[y0:y1, x0:x1]
    alpha = cv2.merge([mask, mask, mask])
    shown = cv2.multiply(patch, alpha, scale=1 / 255)
    hidden = cv2.multiply(target, 255 - alpha, scale=1 / 255)
    cv2.add(shown, hidden, dst=target)


@dataclass
class Scene:
    """A background, a target (index 0) and other sprites, with a placement each; `draw` renders one moment of it."""

    background: Image
    camera: npt.NDArray[np.float64]  # 2x3, background pixel -> image pixel
    sprites: list[Sprite]
    places: list[Placement]
    order: list[int]  # painting order
    size: int
    shadow: float = 0.0
    parts: list[int] | None = None  # the target is only these parts of sprite 0

    def box(self) -> npt.NDArray[np.float32]:
        """The true box of the target, float32 (4,) xyxy."""
        return sprite_box(self.sprites[0], self.places[0], self.parts)

    def draw(self, *, with_target: bool = True) -> Image:
        """The rendered image uint8 (size, size, 3) BGR."""
        image = cv2.warpAffine(
            self.background, self.camera, (self.size, self.size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        for i in self.order:
            if i == 0 and not with_target:
                continue
            if self.shadow and i == 0:
                self._draw_shadow(image)
            draw_sprite(image, self.sprites[i], self.places[i])
        return image

    def _draw_shadow(self, image: Image) -> None:
        x0, y0, x1, y1 = sprite_box(self.sprites[0], self.places[0])
        center = (round((x0 + x1) / 2 + (x1 - x0) * self.shadow / 3), round(float(y1)))
        axes = (max(1, round((x1 - x0) * 0.55)), max(1, round((y1 - y0) * 0.1)))
        if max(axes) < 4 * self.size:
            shade = image.copy()
            cv2.ellipse(shade, center, axes, 0, 0, 360, (20, 20, 20), -1, cv2.LINE_AA)
            cv2.addWeighted(image, 0.5, shade, 0.5, 0, dst=image)

    def moved(self, rng: np.random.Generator, amount: float) -> Scene:
        """The same scene some frames later: all moves, turns and bends, and the light changes, by `amount` in 0-1."""
        places = [_moved(place, rng, amount) for place in self.places]
        a = rng.normal(0, 0.03 * amount)
        zoom = math.exp(rng.normal(0, 0.06 * amount))
        turn = zoom * np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
        center = np.array([self.size / 2, self.size / 2])
        shift = center - turn @ center + rng.normal(0, 0.12 * amount * self.size, 2)
        camera = np.concatenate([turn @ self.camera[:, :2], (turn @ self.camera[:, 2] + shift)[:, None]], axis=1)
        return replace(self, camera=camera, places=places)

    def elsewhere(self, rng: np.random.Generator, textures: Textures) -> Scene:
        """The same sprites in front of another background."""
        background, camera = _background(rng, textures, self.size)
        return replace(self, background=background, camera=camera)


def _moved(place: Placement, rng: np.random.Generator, amount: float) -> Placement:
    step = place.height * 0.7 * amount
    return replace(
        place,
        x=place.x + rng.normal(0, step),
        y=place.y + rng.normal(0, step),
        height=place.height * math.exp(rng.normal(0, 0.22 * amount)),
        turn=place.turn + rng.normal(0, 0.3 * amount) * (2.5 if rng.random() < 0.15 else 1),
        pose=place.pose + rng.uniform(-3, 3) * amount,
        gain=float(np.clip(place.gain * math.exp(rng.normal(0, 0.15 * amount)), 0.4, 1.8)),
        stretch=place.stretch * math.exp(rng.normal(0, 0.15 * amount)),
        shear=place.shear + rng.normal(0, 0.12 * amount),
    )


def _background(rng: np.random.Generator, textures: Textures, size: int) -> tuple[Image, npt.NDArray[np.float64]]:
    """A background image and the camera that shows part of it."""
    if textures.images and rng.random() < 0.8:
        image = textures.images[rng.integers(len(textures.images))]
        fit = size / min(image.shape[:2])
        scale = fit * math.exp(rng.uniform(-0.2, 1.2))
        image = recolor(image, rng, 0.7) if image.shape[0] * image.shape[1] < 400_000 else image
    else:
        image = textures.patch(rng)
        scale = size / TEXTURE * rng.uniform(1, 3)
    flip = rng.choice((-1.0, 1.0))
    center = np.array([image.shape[1], image.shape[0]]) * rng.uniform(0.25, 0.75, 2)
    linear = np.array([[flip * scale, 0], [0, scale]])
    return image, np.concatenate([linear, (size / 2 - linear @ center)[:, None]], axis=1)


def _alike(sprite: Sprite, rng: np.random.Generator, textures: Textures) -> Sprite:
    """A look-alike: the same outlines with some parts in other colours."""
    parts = [replace(p, texture=textures.patch(rng) if rng.random() < 0.5 else p.texture) for p in sprite.parts]
    return replace(sprite, parts=parts)


def random_scene(rng: np.random.Generator, textures: Textures, height: float, size: int) -> Scene:
    """A scene of `size` pixels whose target is about `height` pixels large (geometric mean of its sides)."""
    background, camera = _background(rng, textures, size)
    target = random_sprite(rng, textures)
    sprites, places = [target], [_place(rng, size, height / math.sqrt(target.aspect), centered=True)]
    for _ in range(rng.choice((0, 1, 2, 3, 5), p=(0.2, 0.25, 0.25, 0.2, 0.1))):
        alike = rng.random() < 0.35
        other = _alike(target, rng, textures) if alike else random_sprite(rng, textures)
        tall = places[0].height if alike else height / math.sqrt(other.aspect)
        sprites.append(other)
        places.append(_place(rng, size, tall * math.exp(rng.normal(0, 0.35)), centered=False))
    order = [int(i) for i in rng.permutation(len(sprites))]
    if rng.random() < 0.6:  # mostly the target is in front
        order.remove(0)
        order.append(0)
    parts = _some_part(target, places[0], rng) if rng.random() < 0.2 else None
    shadow = float(rng.uniform(-1, 1)) if rng.random() < 0.25 else 0.0
    return Scene(background, camera, sprites, places, order, size, shadow, parts)


def _place(rng: np.random.Generator, size: int, height: float, *, centered: bool) -> Placement:
    spread = 0.02 if centered else 0.5
    x, y = size * (0.5 + rng.uniform(-spread, spread, 2))
    return Placement(
        float(x),
        float(y),
        height,
        turn=float(rng.normal(0, 0.15) * (4 if rng.random() < 0.15 else 1)),
        pose=float(rng.uniform(0, 6)),
        gain=float(rng.uniform(0.75, 1.25)),
    )


def _some_part(sprite: Sprite, place: Placement, rng: np.random.Generator) -> list[int] | None:
    """One part of the sprite that is large enough to be followed by itself; None where there is none."""
    sides = [sprite_box(sprite, place, [i]) for i in range(len(sprite.parts))]
    large = [i for i, box in enumerate(sides) if min(box[2] - box[0], box[3] - box[1]) >= 8]
    return [int(rng.choice(large))] if len(large) > 2 else None
