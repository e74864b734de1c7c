"""What an SSD head means: its boxes on an image, their codec, and what is kept of its answer.

A value without Keras, so that the network, the task, training and export share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.geometry.anchors import ssd_boxes

__all__ = ["FIRST_STRIDES", "SSDRule"]

Size = tuple[int, int]

FIRST_STRIDES = (8, 16)
EXTRAS = (512, 256, 256, 128)
RATIOS = (2.0, 3.0)
SCALES = (0.2, 0.95)


@dataclass(frozen=True)
class SSDRule:
    """The default boxes and the thresholds of an SSD (Liu et al., SSD, ECCV 2016, section 2.2), torchvision's values.

    Args:
        size_hw: of the network's input.
        levels: number of maps; each has half the height and width of the one before, rounded up.
        first_stride: of the first map.
        ratios: aspect ratios besides 1, each also lying; a cell has 2 + 2 * len(ratios) boxes.
        scales: sides of the square boxes as a share of the input: the first and the last level's, the others between
            in equal steps, or one for each level and one more.
        weights: of the codec, for the deltas of centre x, y, width, height.
        score: the least probability.
        candidates: how many boxes of a class go into the suppression.
        nms: IoU above which the weaker of two boxes of a class goes.
        detections: how many boxes are left of an image.
    """

    size_hw: Size = (320, 320)
    levels: int = 6
    first_stride: int = 16
    ratios: tuple[float, ...] = RATIOS
    scales: tuple[float, ...] = SCALES
    weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    score: float = 0.001
    candidates: int = 300
    nms: float = 0.55
    detections: int = 300

    def __post_init__(self) -> None:
        if self.first_stride not in FIRST_STRIDES:
            raise ValueError(f"`first_stride` must be 8 or 16. Received: first_stride={self.first_stride!r}.")
        if any(not ratio > 0 for ratio in self.ratios):
            raise ValueError(f"`ratios` must be positive. Received: ratios={self.ratios!r}.")
        counts = {2, self.levels + 1}
        increasing = all(0 < low < high for low, high in zip(self.scales, self.scales[1:], strict=False))
        if len(self.scales) not in counts or not increasing:
            raise ValueError(
                f"`scales` must be 2 or {self.levels + 1} positive numbers that increase. "
                f"Received: scales={self.scales!r}."
            )

    @classmethod
    def of_network(cls, arguments: Mapping[str, Any], **options: Any) -> SSDRule:
        """The rule of `nets.ssdlite` with these arguments; `options` are the codec's and the thresholds'.

        Args:
            arguments: of the network's function, as a card has them; what means nothing here is passed over.
            options: further fields.
        """
        first = int(arguments.get("first_stride", 16))
        own: dict[str, Any] = {name: _tuple(arguments[name]) for name in ("ratios", "scales") if name in arguments}
        if arguments.get("size_hw") is not None:
            height, width = arguments["size_hw"]
            own["size_hw"] = (int(height), int(width))
        extras = arguments.get("extras", EXTRAS)
        levels = (2 if first == 16 else 3) + len(extras)
        return cls(first_stride=first, levels=levels, **own, **options)

    @property
    def grids(self) -> tuple[Size, ...]:
        """Height and width of each level's map."""
        strides = [self.first_stride << level for level in range(self.levels)]
        height, width = self.size_hw
        return tuple((-(-height // stride), -(-width // stride)) for stride in strides)

    @property
    def boxes_per_cell(self) -> int:
        """Default boxes of a cell."""
        return 2 + 2 * len(self.ratios)

    def anchors(self) -> npt.NDArray[np.float32]:
        """The default boxes float32 (A, 4) xyxy in pixels of the input, in the order of the network's answer."""
        return ssd_boxes(self.grids, self.size_hw, ratios=self.ratios, scales=self.scales)


def _tuple(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
