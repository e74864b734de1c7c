"""Random views of an image together with its mask: scale, crop, mirror, light and colour. NumPy and OpenCV, seeded."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.train.augment import Augmentation
from visionkit.train.mask_folders import VOID

__all__ = ["SegmentAugmentation", "ViewMatrix"]

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]
ViewMatrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SegmentAugmentation:
    """How strongly training images and their masks are changed.

    Args:
        strength: 1 is the default of everything below, 0 changes nothing but the crop's place, 2 the most.
        flip: mirror half of the images.
        zoom: largest factor of size, either way; `squeeze` of width against height.
        turn: largest rotation, degrees.
        light: largest change of brightness and contrast; `colour` of each channel's gain and of saturation.
        still: fraction of views without any change of scale, turn or colour.
    """

    strength: float = 1.0
    flip: bool = True
    zoom: float = 1.6
    squeeze: float = 1.15
    turn: float = 4.0
    light: float = 0.25
    colour: float = 0.12
    still: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 2:
            raise ValueError(f"`strength` must be between 0 and 2. Received: strength={self.strength}.")

    def __call__(
        self,
        image: Image,
        mask: Mask,
        scale_wh: tuple[float, float],
        crop_hw: tuple[int, int],
        rng: np.random.Generator,
    ) -> tuple[Image, Mask]:
        """A changed view of `image` uint8 (H, W, 3) BGR and of its `mask` uint8 (H, W), both of `crop_hw`.

        The image is sampled between its pixels, the mask at the nearest one; what lies outside of the image continues
        its edge and is void.

        Args:
            scale_wh: pixels of the view for one pixel of the image, where nothing is changed.
        """
        k = 0.0 if rng.random() < self.still else self.strength
        matrix = self.matrix((image.shape[0], image.shape[1]), scale_wh, crop_hw, rng, strength=k)
        size_wh = (crop_hw[1], crop_hw[0])
        seen = cv2.warpAffine(image, matrix, size_wh, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        labels = cv2.warpAffine(
            mask, matrix, size_wh, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=(VOID,)
        )
        changed = Augmentation(strength=k, light=self.light, colour=self.colour).colours(
            np.asarray(seen, np.uint8), rng
        )
        return changed, np.asarray(labels, np.uint8)

    def matrix(
        self,
        size_hw: tuple[int, int],
        scale_wh: tuple[float, float],
        crop_hw: tuple[int, int],
        rng: np.random.Generator,
        *,
        strength: float | None = None,
    ) -> ViewMatrix:
        """A random map (2, 3) from the image's pixel indices to those of the view."""
        k = self.strength if strength is None else strength
        zoom = self.zoom ** (k * rng.uniform(-1, 1))
        squeeze = self.squeeze ** (k * rng.uniform(-0.5, 0.5))
        angle = np.deg2rad(rng.uniform(-self.turn, self.turn) * k)
        mirror = -1.0 if self.flip and rng.random() < 0.5 else 1.0
        place = rng.random(2)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        scale = np.array(scale_wh) * zoom * (squeeze, 1 / squeeze)
        linear = turn @ np.diag(scale * (mirror, 1.0))
        whole = np.array(size_hw[::-1]) * scale  # of the scaled image, x and y
        room = whole - np.array(crop_hw[::-1])
        # whole pixels where there is room to choose from; a smaller image lies anywhere inside of the view
        start = np.where(room > 0, np.floor(place * (room + 1)).clip(0, np.maximum(room, 0)), np.rint(place * room))
        # the image's centre lands at the scaled image's centre less the crop's start (continuous coordinates)
        middle = np.array(size_hw[::-1]) / 2
        shift = whole / 2 - start - linear @ middle
        # continuous coordinates: pixel i has its centre at i + 0.5
        offset = linear @ np.array([0.5, 0.5]) + shift - 0.5
        return np.column_stack([linear, offset])
