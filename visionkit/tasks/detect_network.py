"""A detector's network behind one face: inputs in, boxes of the input out, several instances for some sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from visionkit.tasks.instances import SizedNetwork

__all__ = ["DetectEngine", "DetectNetwork", "Limits", "RawDetections"]

Floats = npt.NDArray[np.float32]
Size = tuple[int, int]


@dataclass(frozen=True)
class Limits:
    """What an engine keeps of its answer.

    Args:
        conf: boxes of at least this probability.
        iou: of two boxes of a class that overlap more than this, the weaker goes; None is the network's own value.
        max_det: so many boxes of an image, the most probable ones.
    """

    conf: float
    iou: float | None
    max_det: int


@dataclass(frozen=True, slots=True, eq=False)
class RawDetections:
    """What an engine found in one input, most probable first.

    Args:
        xyxy: float32 (K, 4) in pixels of the input.
        scores: float32 (K,).
        classes: int64 (K,) as the network counts, background 0.
        masks: float32 (K, m, m), the probability of the object over its box; or None.
    """

    xyxy: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]
    masks: Floats | None = None


class DetectEngine(Protocol):
    """One instance of a network for inputs of one size."""

    runtime: str
    precision: str
    threads: int
    batch: int

    def __call__(self, inputs: Floats, valid_hw: Floats, limits: Limits, /) -> list[RawDetections]:
        """What is in each of the inputs float32 (B, h, w, 3), of which `valid_hw` (B, 2) holds an image."""

    def close(self) -> None:
        """Give the memory back."""


class DetectNetwork(SizedNetwork[DetectEngine]):
    """Engines for inputs of some sizes.

    Args:
        compile_size: as `SizedNetwork`.
        batch: inputs in one call.
    """

    def __init__(self, compile_size: Callable[[Size, str | None], Sequence[DetectEngine]], *, batch: int = 1) -> None:
        super().__init__(compile_size, lambda engine: engine.runtime, batch=batch)

    def __call__(self, inputs: Floats, valid_hw: Floats, limits: Limits) -> list[RawDetections]:
        """What is in each input of a whole batch."""
        with self.instance((inputs.shape[1], inputs.shape[2])) as engine:
            return engine(inputs, valid_hw, limits)
