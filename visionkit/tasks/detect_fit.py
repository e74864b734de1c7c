"""How an image goes into a detector: its size there, its place, plain bilinear samples of it, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.tasks.input_rule import FRAMED, InputRule

__all__ = ["DetectFit", "detect_fit"]

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Size = tuple[int, int]

STEP = 32  # sides of an input that is not of one size are multiples of it, as in torchvision


@dataclass(frozen=True)
class DetectFit:
    """How images of one size go in.

    Args:
        size_hw: of the images.
        resized_hw: the size they are brought to.
        input_hw: of the network's input.
        corner_yx: where the resized image begins in it; around it are zeros (the mean colour).
    """

    size_hw: Size
    resized_hw: Size
    input_hw: Size
    corner_yx: Size

    def __call__(self, image: Image, rule: InputRule, out: Floats) -> None:
        """Write the input float32 (h, w, 3) of an image uint8 (H, W, 3) BGR into `out`, all of it."""
        (top, left), (height, width) = self.corner_yx, self.resized_hw
        part = sampled(image, self.resized_hw)
        if rule.channel_order == "rgb":
            cv2.cvtColor(part, cv2.COLOR_BGR2RGB, dst=part)
        if self.resized_hw != self.input_hw:
            out[:] = rule.frame
        # rows of width * 3 numbers: NumPy's loops over three channels would be slow
        rows = out.reshape(len(out), -1)[top : top + height, 3 * left : 3 * (left + width)]
        scale = 1.0 / np.asarray(rule.std, np.float64)
        shift = -np.asarray(rule.mean, np.float64) * scale
        np.multiply(part.reshape(height, -1), np.tile(scale.astype(np.float32), width), out=rows)
        rows += np.tile(shift.astype(np.float32), width)

    def to_image(self, xyxy: Floats) -> Floats:
        """Boxes (N, 4) of the input in pixels of the image, cut to it."""
        (top, left), (height, width) = self.corner_yx, self.size_hw
        scale = np.array([width / self.resized_hw[1], height / self.resized_hw[0]] * 2, np.float32)
        boxes = (xyxy - np.array([left, top, left, top], np.float32)) * scale
        return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))


def detect_fit(rule: InputRule, size_hw: Size) -> DetectFit:
    """How an image of `size_hw` goes in under a card's rule.

    `stretch` fills the input; `letterbox` fits the image in, centred, the mean colour around it; `corner` fits it in at
    the upper left, which is `shortest_side` for a network of one size. `shortest_side` itself is
    torchvision's: the shorter side becomes the smaller number of the card's `size_hw`, unless the longer one would
    exceed the larger number; sides are rounded down, and the input is the next multiple of 32 with zeros behind the
    image, right and below (torchvision/models/detection/transform.py).
    """
    if rule.resize == "stretch":
        return DetectFit(size_hw, rule.size_hw, rule.size_hw, (0, 0))
    if rule.resize in FRAMED:
        height, width = rule.size_hw
        scale = min(height / size_hw[0], width / size_hw[1])
        whole = int if rule.resize == "corner" else round
        fit_h, fit_w = (max(1, min(c, whole(n * scale))) for n, c in zip(size_hw, rule.size_hw, strict=True))
        corner_yx = ((height - fit_h) // 2, (width - fit_w) // 2) if rule.resize == "letterbox" else (0, 0)
        return DetectFit(size_hw, (fit_h, fit_w), rule.size_hw, corner_yx)
    short, long = min(rule.size_hw), max(rule.size_hw)
    ratio = min(short / min(size_hw), long / max(size_hw))
    fit_h, fit_w = (max(1, int(side * ratio)) for side in size_hw)
    padded = (-(-fit_h // STEP) * STEP, -(-fit_w // STEP) * STEP)
    return DetectFit(size_hw, (fit_h, fit_w), padded, (0, 0))


def sampled(image: Image, size_hw: Size) -> Floats:
    """An image uint8 (H, W, C) at another size by plain bilinear samples at pixel centres, float32, not rounded.

    Detectors are trained on these in torchvision (no averaging where the image shrinks). Rows that no sample touches
    are not looked at, which spares most of a large image.
    """
    height, width = size_hw
    if image.shape[:2] == size_hw:
        return image.astype(np.float32)
    if image.shape[0] < 2.5 * height:
        return _resized(image.astype(np.float32), size_hw)
    place = np.clip((np.arange(height) + 0.5) * (image.shape[0] / height) - 0.5, 0, image.shape[0] - 1)
    upper = place.astype(np.int64)
    weight = (place - upper).astype(np.float32)[:, None, None]
    rows: Any = image[upper].astype(np.float32)
    rows *= 1 - weight
    rows += image[np.minimum(upper + 1, image.shape[0] - 1)] * weight
    return _resized(rows, (height, width))


def _resized(values: Floats, size_hw: Size) -> Floats:
    found = cv2.resize(values, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(found, np.float32)


def same_fits(fits: Sequence[DetectFit], batch: int) -> list[tuple[int, int]]:
    """Ranges of neighbours, at most `batch` long, whose inputs are of one size."""
    ranges: list[tuple[int, int]] = []
    for place, fit in enumerate(fits):
        if ranges:
            begin, end = ranges[-1]
            if end - begin < batch and fits[begin].input_hw == fit.input_hw:
                ranges[-1] = (begin, place + 1)
                continue
        ranges.append((place, place + 1))
    return ranges
