"""Training pairs for a Siamese tracker: an exemplar, a search region of the same object later, and the true box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.geometry.boxes import box_centers, box_sizes
from visionkit.geometry.crops import context_side, window_around
from visionkit.tasks.crop import cut, mean_color
from visionkit.train.motion import Sighting
from visionkit.train.scenes import random_scene
from visionkit.train.shapes import Image, Textures, recolor

__all__ = ["Pair", "PairSampler"]

Box = npt.NDArray[np.float32]
View = tuple[Image, Box]


@dataclass(frozen=True)
class Pair:
    """exemplar uint8 (z, z, 3), search uint8 (x, x, 3), both BGR; the object's boxes float32 (4,) xyxy in their pixels.

    `present` is False where the object is not in the search region at all.
    """

    exemplar: Image
    exemplar_box: Box
    search: Image
    box: Box
    present: bool


class PairSampler:
    """Draws pairs: mostly rendered scenes, some pieces of still images, some things that moved in clips.

    Args:
        images: uint8 (H, W, 3) BGR images, for backgrounds, textures and pieces; may be empty.
        sightings: things seen twice in clips; may be empty.
        exemplar_size: side of the exemplar in pixels.
        search_size: side of the search region in pixels.
        absent: share of rendered pairs whose object has left the search region.
    """

    def __init__(
        self,
        images: list[Image],
        sightings: Sequence[Sighting] = (),
        *,
        exemplar_size: int = 96,
        search_size: int = 192,
        absent: float = 0.12,
    ) -> None:
        self.textures = Textures(images)
        self.sightings = sightings
        self.exemplar_size, self.search_size, self.absent = exemplar_size, search_size, absent

    def __call__(self, rng: np.random.Generator) -> Pair:
        """One pair."""
        roll = rng.random()
        views = None
        if roll < 0.1 and self.sightings:
            views = self._seen(rng)
        elif roll < 0.2 and self.textures.images:
            views = self._piece(rng)
        first, later, present = views or self._rendered(rng)
        return self._pair(first, later, present, rng)

    def _rendered(self, rng: np.random.Generator) -> tuple[View, View, bool]:
        """A sprite in a scene, and the scene some time later."""
        height = math.exp(rng.uniform(math.log(16), math.log(80)))
        first = random_scene(rng, self.textures, height, int(max(72, 5.5 * height)))
        later = first.moved(rng, rng.beta(1.2, 1.6))
        if rng.random() < 0.15:
            later = later.elsewhere(rng, self.textures)
        present = rng.random() >= self.absent
        loose = _looseness(rng)
        before = first.draw(), _loosened(first.box(), loose)
        after = later.draw(with_target=present), _loosened(later.box(), loose)
        return before, after, present

    def _piece(self, rng: np.random.Generator) -> tuple[View, View, bool] | None:
        """A box somewhere in a still image, and the image turned and stretched; None where there is no texture."""
        image = self.textures.images[rng.integers(len(self.textures.images))]
        limit = min(image.shape[:2])
        wh = limit * math.exp(rng.uniform(math.log(0.08), math.log(0.3))) * np.exp(rng.normal(0, [0.3, 0.3]))
        center = np.array(image.shape[1::-1]) * rng.uniform(0.2, 0.8, 2)
        box = np.concatenate([center - wh / 2, center + wh / 2]).astype(np.float32)
        x0, y0, x1, y1 = (max(0, int(v)) for v in box)
        if image[y0:y1, x0:x1].std() < 15:
            return None
        turn, zoom = rng.normal(0, 0.15), math.exp(rng.normal(0, 0.15))
        c, s = zoom * math.cos(turn), zoom * math.sin(turn)
        linear = np.array([[c, -s], [s, c]]) @ np.diag(np.exp(rng.normal(0, 0.08, 2)))
        matrix = np.concatenate([linear, (center - linear @ center)[:, None]], axis=1)
        moved = cv2.warpAffine(image, matrix, image.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
        corners = box[[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2) @ linear.T + matrix[:, 2]
        # the sides of the turned box lie, in the mean, where its corners do
        ordered = np.sort(corners, axis=0)
        later = np.concatenate([ordered[:2].mean(0), ordered[2:].mean(0)]).astype(np.float32)
        return (image, box), (moved, later), True

    def _seen(self, rng: np.random.Generator) -> tuple[View, View, bool]:
        """A thing of a clip, forwards or backwards in time."""
        thing = self.sightings[int(rng.integers(len(self.sightings)))]
        first, later = (thing.first, thing.first_box), (thing.later, thing.later_box)
        return (first, later, True) if rng.random() < 0.5 else (later, first, True)

    def _pair(self, first: View, later: View, present: bool, rng: np.random.Generator) -> Pair:
        """Crops of both views, with what cameras and codecs do to them."""
        exemplar, exemplar_box = self._crop(*first, self.exemplar_size, rng, jitter=False)
        image, true = later
        if present and rng.random() < 0.2:
            image = _hide(image, true, rng)
        image = _degrade(image, float(box_sizes(true).mean()), rng)
        search, box = self._crop(image, true, self.search_size, rng, jitter=True)
        if rng.random() < 0.3:
            exemplar = _soften(exemplar, rng)
        if rng.random() < 0.5:
            exemplar, exemplar_box = _flip(exemplar, exemplar_box)
            search, box = _flip(search, box)
        return Pair(_noise(exemplar, rng), exemplar_box, _noise(recolor(search, rng, 0.5), rng), box, present)

    def _crop(
        self, image: Image, box: npt.NDArray[np.float32], size: int, rng: np.random.Generator, *, jitter: bool
    ) -> tuple[Image, npt.NDArray[np.float32]]:
        side = context_side(np.maximum(box_sizes(box), 2)) * size / self.exemplar_size
        center = box_centers(box).astype(float)
        if jitter:
            reach = 0.3 if rng.random() < 0.6 else 0.12
            center = center + rng.uniform(-reach, reach, 2) * side
            side *= math.exp(float(np.clip(rng.normal(0, 0.16), -0.5, 0.5)))
        window = window_around(center, side)
        return cut(image, window, size, mean_color(image)), window.to_window(box, size)


def _looseness(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """How far a drawn box lies outside of the object on each side, as a share of its size; the same in both frames."""
    return np.clip(rng.normal(0.02, 0.05, 4), -0.1, 0.2).astype(np.float32)


def _loosened(box: npt.NDArray[np.float32], loose: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    w, h = box_sizes(box)
    return box + loose * np.array([-w, -h, w, h], np.float32)


def _hide(image: Image, box: npt.NDArray[np.float32], rng: np.random.Generator) -> Image:
    """A bar or a patch of the image drawn over part of the box."""
    w, h = box_sizes(box)
    x, y = box_centers(box) + rng.uniform(-0.6, 0.6, 2) * (w, h)
    half_w, half_h = max(1.0, w * rng.uniform(0.1, 0.4)), max(1.0, h * rng.uniform(0.1, 0.6))
    image = image.copy()
    low = (int(x - half_w), int(y - half_h))
    color = image[rng.integers(len(image)), rng.integers(image.shape[1])].tolist()
    cv2.rectangle(image, low, (int(x + half_w), int(y + half_h)), color, -1)
    return image


def _degrade(image: Image, target: float, rng: np.random.Generator) -> Image:
    """Motion blur, defocus and coarse compression, in proportion to the target's size in pixels."""
    if rng.random() < 0.3:
        length = int(np.clip(target * rng.uniform(0.05, 0.45), 2, 31))
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, math.pi)
        c = (length - 1) / 2
        dx, dy = c * math.cos(angle), c * math.sin(angle)
        cv2.line(kernel, (round(c - dx), round(c - dy)), (round(c + dx), round(c + dy)), 1.0, 1)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    elif rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), max(0.3, target * rng.uniform(0.01, 0.07)))
    if rng.random() < 0.3:
        _, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 80))))
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return image


def _soften(image: Image, rng: np.random.Generator) -> Image:
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.6)).astype(np.uint8)


def _flip(image: Image, box: Box) -> View:
    """The image and the box mirrored left to right."""
    width = image.shape[1]
    mirrored = np.array([width - box[2], box[1], width - box[0], box[3]], np.float32)
    return np.ascontiguousarray(image[:, ::-1]), mirrored


def _noise(image: Image, rng: np.random.Generator) -> Image:
    if rng.random() < 0.5:
        return np.ascontiguousarray(image)
    cells = rng.integers(0, 256, image.shape, dtype=np.uint8)  # uniform noise is cheap and looks like sensor noise
    strength = rng.uniform(0.01, 0.12)
    return cv2.addWeighted(np.ascontiguousarray(image), 1.0, cells, strength, -127.5 * strength).astype(np.uint8)
