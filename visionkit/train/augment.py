"""Random changes of training images: place, size, turn, light, colour and gaps. NumPy and OpenCV, seeded."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["Augmentation", "base_matrix"]

Image = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How strongly training images are changed.

    Args:
        strength: 1 is the default of everything below, 0 changes nothing, 2 the most.
        flip: mirror half of the images. Off unless asked for: a mirrored digit, letter, sign or hand is another thing.
        turn: largest rotation, degrees.
        zoom: largest factor of size, either way; `squeeze` of width against height.
        shift: largest way, as a fraction of the side.
        light: largest change of brightness and contrast; `colour` of each channel's gain and of saturation.
        gap: fraction of images with a rectangle of one colour over up to a quarter of their area (DeVries and Taylor,
            Improved regularization of convolutional neural networks with cutout, 2017).
    """

    strength: float = 1.0
    flip: bool = False
    turn: float = 15.0
    zoom: float = 1.3
    squeeze: float = 1.12
    shift: float = 0.1
    light: float = 0.25
    colour: float = 0.15
    gap: float = 0.4

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 2:
            raise ValueError(f"`strength` must be between 0 and 2. Received: strength={self.strength}.")

    def __call__(
        self,
        image: Image,
        base: Matrix,
        size_hw: tuple[int, int],
        rng: np.random.Generator,
        *,
        border: tuple[float, ...] | None = None,
    ) -> Image:
        """A changed view of `image` as the network sees it: uint8 (H, W, 3) BGR of size `size_hw`.

        Args:
            image: uint8 (h, w, 3) BGR.
            base: float64 (2, 3), from the image's pixels to the view's when nothing is changed (`base_matrix`).
            border: BGR colour outside of the image; without, its edge goes on.
        """
        matrix = self.matrix(size_hw, rng) @ np.vstack([base, [0, 0, 1]])
        beyond = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
        view = cv2.warpAffine(
            image, matrix, size_hw[::-1], flags=cv2.INTER_LINEAR, borderMode=beyond, borderValue=border or (0.0,) * 3
        )
        return self._gap(self.colours(np.asarray(view, np.uint8), rng), rng)

    def matrix(self, size_hw: tuple[int, int], rng: np.random.Generator) -> Matrix:
        """A random affine map (2, 3) of the view onto itself, about its centre; pixel indices, as OpenCV has them."""
        height, width = size_hw
        k = self.strength
        angle = np.deg2rad(rng.uniform(-self.turn, self.turn) * k)
        zoom = self.zoom ** (k * rng.uniform(-1, 1))
        squeeze = self.squeeze ** (k * rng.uniform(-0.5, 0.5))
        shift = rng.uniform(-self.shift, self.shift, 2) * k * (width, height)
        mirror = -1.0 if self.flip and rng.random() < 0.5 else 1.0
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = turn @ np.diag([mirror * zoom * squeeze, zoom / squeeze])
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        return np.column_stack([linear, centre - linear @ centre + shift])

    def colours(self, view: Image, rng: np.random.Generator) -> Image:
        """The view with its light and colours changed at random."""
        k = self.strength
        gain = 1 + k * self.light * rng.uniform(-1, 1)
        offset = 128 * k * self.light * rng.uniform(-1, 1)
        channels = 1 + k * self.colour * rng.uniform(-1, 1, 3)
        grey = k * self.colour * rng.uniform(-1, 1)
        # one 3x3 map of the colours: (1 - grey) of each channel, grey of the mean, all scaled about middle grey
        mix = np.diag(channels) @ ((1 - grey) * np.eye(3) + grey / 3) * gain
        shift = 128 * (1 - gain) + offset
        table = np.column_stack([mix, np.full(3, shift)])
        return np.asarray(cv2.transform(view, table), np.uint8)

    def _gap(self, view: Image, rng: np.random.Generator) -> Image:
        height, width = view.shape[:2]
        place, size, colour = rng.random(2), rng.uniform(0.1, 0.5, 2), rng.integers(0, 256, 3)
        if rng.random() >= self.gap * min(self.strength, 1.0):
            return view
        tall, wide = max(1, round(size[0] * height)), max(1, round(size[1] * width))
        top, left = int(place[0] * (height - tall + 1)), int(place[1] * (width - wide + 1))
        out = view.copy()
        out[top : top + tall, left : left + wide] = colour
        return out


def base_matrix(window: tuple[float, float, float, float], size_hw: tuple[int, int]) -> Matrix:
    """The map (2, 3) from an image's pixel indices to those of the network's input, where nothing is changed.

    Args:
        window: the box xyxy of the image that fills the input, as `InputRule.window` tells it.
    """
    x1, y1, x2, y2 = window
    scale = np.array([size_hw[1] / (x2 - x1), size_hw[0] / (y2 - y1)])  # x, y
    start = np.array([x1, y1])
    # continuous coordinates: pixel i has its centre at i + 0.5
    return np.column_stack([np.diag(scale), (0.5 - start) * scale - 0.5])
