"""Images and masks made of cut-out objects on other pictures: material for a segmenter where nobody drew masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.train.composite_material import Kind
from visionkit.train.cutouts import Cutout
from visionkit.train.heads import random_head, skin_patch, skin_tone
from visionkit.train.scenes import Placement, draw_sprite
from visionkit.train.shapes import Part, Sprite, Textures, random_color, random_sprite, recolor

__all__ = ["Compositor", "write_composites"]

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Compositor:
    """Makes pictures of a size with masks: class k + 1 for the k-th kind, 0 for the rest.

    Args:
        objects: cut-outs of each kind.
        backgrounds: pictures by where they come from; each source is as frequent as the others.
        empty: fraction of pictures without an object.
        most: objects in a picture.
        low, high: an object's height as a fraction of the picture's.
        sleeve: fraction of objects whose lower end goes on in something else, as an arm in a sleeve.
        skin: the kind, if any, that is bare skin: rendered heads in its colours belong to it as well, some arms are
            bare, its tone varies, and no other rendered thing has a face.
        plain: fraction of pictures that are an object's photo as it was taken.
        vary: how far tones of skin go; above 1 there are also uneven light, longer smears and things printed in black
            and white.
    """

    objects: Sequence[Sequence[Cutout]]
    backgrounds: Sequence[Sequence[Image]]
    size_hw: tuple[int, int]
    empty: float = 0.15
    most: int = 3
    low: float = 0.14
    high: float = 0.95
    sleeve: float = 0.65
    skin: int | None = None
    plain: float = 0.0
    vary: float = 1.0
    textures: Textures = field(init=False)

    def __post_init__(self) -> None:
        pictures = [picture for source in self.backgrounds for picture in source]
        object.__setattr__(self, "textures", Textures(pictures))

    def __call__(self, rng: np.random.Generator) -> tuple[Image, Image]:
        """A picture uint8 (H, W, 3) BGR and its mask uint8 (H, W)."""
        if rng.random() < self.plain:
            image, mask = self._photo(rng)
            return self._camera(image, rng), mask
        image = self._background(rng)
        mask = np.zeros(self.size_hw, np.uint8)
        self._strangers(image, rng, int(rng.integers(0, 4)))
        if rng.random() >= self.empty:
            if self.skin is not None:
                self._heads(image, mask, rng, self.skin)
            for _ in range(int(rng.integers(1, self.most + 1))):
                kind = int(rng.integers(len(self.objects)))
                self._paste(image, mask, self._chosen(kind, rng), kind + 1, rng)
        if rng.random() < 0.2:  # something in front of the objects
            before = image.copy()
            self._strangers(image, rng, 1)
            mask[(image != before).any(axis=2)] = 0
        return self._camera(image, rng), mask

    def _camera(self, image: Image, rng: np.random.Generator) -> Image:
        return _camera(_uneven(image, rng) if self.vary > 1 and rng.random() < 0.4 else image, rng)

    def _chosen(self, kind: int, rng: np.random.Generator, *, other_tone: bool = True) -> Cutout:
        cutout = self.objects[kind][int(rng.integers(len(self.objects[kind])))]
        if kind != self.skin or not other_tone:
            return cutout
        return replace(cutout, image=skin_tone(cutout.image, rng, self.vary))

    def _heads(self, image: Image, mask: Image, rng: np.random.Generator, kind: int) -> None:
        for _ in range(int(rng.choice((0, 1, 2), p=(0.45, 0.4, 0.15)))):
            head = random_head(self._chosen(kind, rng), self.textures, rng)
            self._paste(image, mask, head, kind + 1, rng)

    def _photo(self, rng: np.random.Generator) -> tuple[Image, Image]:
        """An object's own photo, larger, smaller, turned; what lies beyond it goes on as its edge."""
        height, width = self.size_hw
        kind = int(rng.integers(len(self.objects)))
        cutout = self._chosen(kind, rng, other_tone=rng.random() < 0.5)
        tall, wide = cutout.alpha.shape
        matrix = cv2.getRotationMatrix2D(
            (wide / 2, tall / 2), float(rng.normal(0, 20)), height / tall * math.exp(rng.uniform(-0.9, 0.6))
        )
        matrix[:, 2] += rng.uniform(0.25, 0.75, 2) * (width, height) - (wide / 2, tall / 2)
        if rng.random() < 0.5:
            matrix[0] = -matrix[0]
            matrix[0, 2] += width
        seen = [
            cv2.warpAffine(layer, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for layer in (np.asarray(recolor(cutout.image, rng, 0.6), np.uint8), cutout.alpha)
        ]
        return np.asarray(seen[0], np.uint8), np.where(np.asarray(seen[1]) > 127, kind + 1, 0).astype(np.uint8)

    def _background(self, rng: np.random.Generator) -> Image:
        height, width = self.size_hw
        if not self.backgrounds or rng.random() < 0.15:
            patch = self.textures.patch(rng, _warm(rng) if rng.random() < 0.4 else None)
            return np.asarray(cv2.resize(patch, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
        source = self.backgrounds[int(rng.integers(len(self.backgrounds)))]
        picture = source[int(rng.integers(len(source)))]
        fit = max(height / picture.shape[0], width / picture.shape[1])
        scale = fit * math.exp(rng.uniform(0, 0.9))
        size_wh = tuple(math.ceil(n * scale) for n in picture.shape[1::-1])
        large = cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        y, x = rng.integers(large.shape[0] - height + 1), rng.integers(large.shape[1] - width + 1)
        piece = np.asarray(large[y : y + height, x : x + width], np.uint8)
        piece = piece[:, :: -1 if rng.random() < 0.5 else 1]
        return np.ascontiguousarray(recolor(piece, rng, 0.6), np.uint8)

    def _strangers(self, image: Image, rng: np.random.Generator, count: int) -> None:
        """Things that are no object, drawn into `image`."""
        height, width = self.size_hw
        for _ in range(count):
            sprite = self._stranger(rng)
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            tall = height * math.exp(rng.uniform(math.log(0.1), math.log(0.9)))
            place = Placement(float(x), float(y), tall, turn=float(rng.normal(0, 0.3)), pose=float(rng.uniform(0, 6)))
            draw_sprite(image, sprite, place)

    def _stranger(self, rng: np.random.Generator) -> Sprite:
        if self.skin is None:
            return random_sprite(rng, self.textures)
        if self.vary > 1 and rng.random() < 0.3:
            sprite = random_sprite(rng, self.textures, without=("figure", "face", "photo"))
            for part in sprite.parts:  # a print: its texture in two tones
                grey = cv2.cvtColor(self.textures.patch(rng), cv2.COLOR_BGR2GRAY)
                part.texture = (
                    np.where(grey > np.median(grey), rng.integers(150, 250), rng.integers(5, 70))[..., None]
                    .repeat(3, axis=2)
                    .astype(np.uint8)
                )
            return sprite
        if rng.random() < 0.3:  # wood, leather, sand: coloured as skin is
            box = Part(np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]), self.textures.patch(rng, _warm(rng)))
            return Sprite([box], aspect=math.exp(rng.normal(0, 0.9)))
        return random_sprite(rng, self.textures, without=("figure", "face"))

    def _paste(self, image: Image, mask: Image, cutout: Cutout, number: int, rng: np.random.Generator) -> None:
        """Put an object into `image` and its number into `mask`."""
        height, width = self.size_hw
        rows, columns = np.nonzero(cutout.alpha > 127)
        tall = max(1, rows.max() - rows.min())
        size = height * math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        scale = size / tall
        turn = rng.uniform(-math.pi, math.pi) if rng.random() < 0.35 else rng.normal(0, 0.6)
        mirror = -1.0 if rng.random() < 0.5 else 1.0
        c, s = math.cos(turn) * scale, math.sin(turn) * scale
        stretch = math.exp(rng.normal(0, 0.08))
        linear = np.array([[c, -s], [s, c]]) @ np.diag([mirror * stretch, 1 / stretch])
        centre = np.array([(columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2])
        target = np.array([rng.uniform(0.0, 1.0) * width, rng.uniform(0.0, 1.0) * height])
        matrix = np.column_stack([linear, target - linear @ centre])
        cutout = replace(cutout, image=np.asarray(recolor(cutout.image, rng, 0.5), np.uint8))
        if cutout.part is None and rng.random() < self.sleeve:
            bare = self.skin == number - 1 and rng.random() < 0.3
            self._sleeve(image, mask, cutout, matrix, rng, number if bare else 0)
        layers = [cutout.image, cutout.alpha] + ([] if cutout.part is None else [cutout.part])
        if scale < 0.7:  # warping alone would skip pixels
            small_wh = tuple(max(2, round(n * scale * 1.2)) for n in cutout.alpha.shape[::-1])
            ratio = np.array([cutout.alpha.shape[1] / small_wh[0], cutout.alpha.shape[0] / small_wh[1]])
            matrix = np.column_stack([matrix[:, :2] @ np.diag(ratio), matrix[:, 2]])
            layers = [np.asarray(cv2.resize(a, small_wh, interpolation=cv2.INTER_AREA), np.uint8) for a in layers]
        borders = [cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT, cv2.BORDER_CONSTANT]
        seen = [
            cv2.warpAffine(layer, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=border)
            for layer, border in zip(layers, borders, strict=False)
        ]
        if rng.random() < min(0.5, 0.3 * self.vary):
            kernel = _smear(rng, round(12 * min(self.vary, 1.5)))
            seen = [cv2.filter2D(layer, -1, kernel) for layer in seen]
        cover = np.asarray(seen[1])
        part = (cover.astype(np.float32) / 255)[..., None]
        image[:] = np.clip(seen[0] * part + image * (1 - part), 0, 255).astype(np.uint8)
        belongs = np.where(np.asarray(seen[-1]) > 127, number, 0)
        mask[:] = np.where(cover > 127, belongs, mask)

    def _sleeve(
        self,
        image: Image,
        mask: Image,
        cutout: Cutout,
        matrix: npt.NDArray[np.float64],
        rng: np.random.Generator,
        number: int,
    ) -> None:
        """Draw what an object that leaves its photo below goes on in: background, or a bare arm of class `number`."""
        solid = cutout.alpha > 127
        last = np.flatnonzero(solid[-3:].any(axis=0))
        if len(last) < 4:
            return
        left, right = float(last.min()), float(last.max())
        wide, bottom = right - left, float(len(solid))
        flare, length = rng.uniform(0.1, 0.6) * wide, rng.uniform(0.6, 4.0) * wide
        over = rng.uniform(0.0, 0.15) * wide
        corners = np.array(
            [
                [left - 0.12 * wide, bottom - 4 - over],
                [right + 0.12 * wide, bottom - 4 - over],
                [right + flare, bottom + length],
                [left - flare, bottom + length],
            ]
        )
        points = corners @ matrix[:, :2].T + matrix[:, 2]
        middle, half = (points.min(0) + points.max(0)) / 2, np.maximum((points.max(0) - points.min(0)) / 2, 1.0)
        stuff = skin_patch(cutout, rng) if number else self.textures.patch(rng, random_color(rng))
        part = Part((points - middle) / half, stuff)
        before = image.copy()
        sprite = Sprite([part], aspect=float(half[0] / half[1]))
        draw_sprite(image, sprite, Placement(float(middle[0]), float(middle[1]), float(2 * half[1])))
        mask[(image != before).any(axis=2)] = number


def _warm(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A colour BGR of wood, sand, leather or cardboard, which skin can have too."""
    light = rng.uniform(60, 245)
    red, blue = 1.0, rng.uniform(0.4, 0.95)
    return light * np.array([blue, (blue + red) / 2 + rng.uniform(-0.06, 0.08), red])


def _smear(rng: np.random.Generator, longest: int) -> npt.NDArray[np.float32]:
    """A kernel that smears along one direction, as motion does."""
    length = int(rng.integers(3, longest))
    kernel = np.zeros((length, length), np.float32)
    angle, middle = rng.uniform(0, math.pi), (length - 1) / 2
    for k in np.linspace(-middle, middle, 4 * length):
        kernel[round(middle + k * math.sin(angle)), round(middle + k * math.cos(angle))] = 1
    return kernel / kernel.sum()


def _uneven(image: Image, rng: np.random.Generator) -> Image:
    """The picture with light that falls off to one side, and of a lamp's colour."""
    height, width = image.shape[:2]
    angle = rng.uniform(0, 2 * math.pi)
    across = (np.arange(width) / width - 0.5)[None] * math.cos(angle)
    along = (np.arange(height) / height - 0.5)[:, None] * math.sin(angle)
    fall = np.exp((across + along) * rng.uniform(0, 1.6) + rng.normal(0, 0.2))[..., None]
    lamp = np.array([1 - rng.uniform(-0.15, 0.3), 1.0, 1 + rng.uniform(-0.05, 0.2)])
    return np.clip(image * fall * lamp, 0, 255).astype(np.uint8)


def _camera(image: Image, rng: np.random.Generator) -> Image:
    """The picture with blur and noise of a camera."""
    out = image
    if rng.random() < 0.4:
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), rng.uniform(0.4, 1.4)), np.uint8)
    if rng.random() < 0.4:
        noise = rng.normal(0, rng.uniform(1, 8), out.shape)
        out = np.clip(out + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.3:
        _, coded = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 80))])
        out = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return out


def write_composites(
    kinds: Sequence[Kind],
    backgrounds: Sequence[Sequence[Image]],
    out: Path,
    *,
    counts: Mapping[str, int],
    size_hw: tuple[int, int],
    seed: int = 0,
    skin: str | None = None,
    plain: float = 0.0,
    vary: float = 1.0,
) -> None:
    """Write `counts` pictures of each part with their masks: <out>/<part>/images/*.jpg, masks/*.png, labels.txt.

    `skin` names the kind that is bare skin (`Compositor`). The same seed and material give the same files.
    """
    number_of_skin = None if skin is None else [kind.name for kind in kinds].index(skin)
    for number, (part, count) in enumerate(sorted(counts.items())):
        objects = [kind.train if part == "train" else kind.val for kind in kinds]
        compositor = Compositor(objects, backgrounds, size_hw, skin=number_of_skin, plain=plain, vary=vary)
        for folder in ("images", "masks"):
            (out / part / folder).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            image, mask = compositor(np.random.default_rng((seed, number, k)))
            cv2.imwrite(str(out / part / "images" / f"{k:05d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
            cv2.imwrite(str(out / part / "masks" / f"{k:05d}.png"), mask)
    names = ["background", *(kind.name for kind in kinds)]
    (out / "labels.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
