"""Where boxes go: Kalman filters of constant velocity over centre and size, for many boxes at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Motion"]

Floats = npt.NDArray[np.float64]

# Deviations as a share of the box's height, for one frame at 30 a second (Wojke et al., DeepSORT, ICIP 2017, its code).
PLACE, SPEED = 1 / 20, 1 / 160
FIRST_SPEED = 1 / 4  # of a box seen once: it may go anywhere


class Motion:
    """The state of N boxes: centre x, y, width and height with a velocity each, in pixels and frames.

    No coordinate depends on another, so each has a filter of two numbers.
    """

    def __init__(self) -> None:
        self.place = np.zeros((0, 4))
        self.speed = np.zeros((0, 4))
        self.spread = np.zeros((0, 4, 3))  # variances of the place, of both, of the speed

    def __len__(self) -> int:
        return len(self.place)

    def boxes(self) -> Floats:
        """The boxes (N, 4) xyxy where they are expected."""
        half = np.maximum(self.place[:, 2:], 1.0) / 2
        return np.concatenate([self.place[:, :2] - half, self.place[:, :2] + half], axis=1)

    def predict(self, steps: float) -> None:
        """Go on by so many frames, which need not be a whole number."""
        if not len(self) or steps <= 0:
            return
        scale = np.maximum(self.place[:, 3:], 1.0) ** 2  # of noise, which grows with the box
        self.place = self.place + self.speed * steps
        self.place[:, 2:] = np.maximum(self.place[:, 2:], 1.0)
        there, both, speed = np.moveaxis(self.spread, 2, 0)
        there = there + 2 * steps * both + steps**2 * speed + steps * PLACE**2 * scale
        both = both + steps * speed
        self.spread = np.stack([there, both, speed + steps * SPEED**2 * scale], axis=2)

    def correct(self, index: int, box: Floats) -> None:
        """Box `index` was seen at `box` (4,) xyxy."""
        seen = _centered(box[None])[0]
        there, both, speed = self.spread[index].T
        noise = (PLACE * max(1.0, float(seen[3]))) ** 2
        gain, turn = there / (there + noise), both / (there + noise)
        off = seen - self.place[index]
        self.place[index] += gain * off
        self.speed[index] += turn * off
        self.spread[index] = np.stack([(1 - gain) * there, (1 - gain) * both, speed - turn * both], axis=1)

    def add(self, boxes: Floats) -> None:
        """Further boxes (M, 4) xyxy, of which only the place is known."""
        place = _centered(boxes)
        scale = np.maximum(place[:, 3:], 1.0) ** 2
        spread = np.stack(
            [np.broadcast_to((2 * PLACE) ** 2 * scale, place.shape), np.zeros_like(place),
             np.broadcast_to(FIRST_SPEED**2 * scale, place.shape)], axis=2
        )  # fmt: skip
        self.place = np.concatenate([self.place, place])
        self.speed = np.concatenate([self.speed, np.zeros_like(place)])
        self.spread = np.concatenate([self.spread, spread])

    def rest(self, which: npt.NDArray[np.bool_]) -> None:
        """Those boxes no longer change their size: they were not seen."""
        self.speed[which, 2:] = 0.0

    def keep(self, which: npt.NDArray[np.bool_]) -> None:
        """Only those boxes."""
        self.place, self.speed, self.spread = self.place[which], self.speed[which], self.spread[which]


def _centered(boxes: Floats) -> Floats:
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)
