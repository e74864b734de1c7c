"""Probabilities of a video's frames, smoothed over time."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from visionkit.structures import Frame

__all__ = ["SMOOTH_S", "Smoother"]

Floats = npt.NDArray[np.float32]

SMOOTH_S = 0.5
FRAME_MS = 40.0  # how long a frame stands that does not say so and has none before it


class Smoother:
    """Exponential average of probabilities over the time that frames stand for, not over their number.

    A frame weighs by 1 - exp(-d / tau), d the time since the frame before it, and what was gathered before fades by
    exp(-d / tau); the sum is divided by all weights. So the answer at a moment is the same at any frame rate, a gap
    fades the past by its length, and the first frames are averages of what there is instead of the first frame for
    long. Where time runs backwards (a discontinuity) the past is dropped. Cuts between scenes are not looked for: the
    answer follows a cut within about `tau_s`. Frames without a time (images) are left as they are.

    Args:
        tau_s: time constant in seconds; 0 leaves everything as it is.
    """

    def __init__(self, tau_s: float = SMOOTH_S) -> None:
        if not (math.isfinite(tau_s) and tau_s >= 0):
            raise ValueError(f"`tau_s` must be a finite number of at least 0. Received: tau_s={tau_s!r}.")
        self.tau_s = tau_s
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._sums: dict[str, npt.NDArray[np.float64]] = {}
        self._weight = 0.0
        self._pts_ms: float | None = None

    def __call__(self, frame: Frame, probs: Mapping[str, Floats]) -> Mapping[str, Floats]:
        """The average up to this frame, float32 (L,) by head; frames must come in order."""
        if not self.tau_s or frame.pts_ms is None:
            return probs
        passed_ms = frame.duration_ms or FRAME_MS
        if self._pts_ms is not None:
            passed_ms = frame.pts_ms - self._pts_ms
            if passed_ms <= 0:
                self.reset()
                passed_ms = frame.duration_ms or FRAME_MS
        self._pts_ms = frame.pts_ms
        kept = math.exp(-passed_ms / (1000 * self.tau_s))
        self._weight = kept * self._weight + 1 - kept
        for head, values in probs.items():
            before = self._sums.get(head)
            part = (1 - kept) * values.astype(np.float64)
            self._sums[head] = part if before is None else kept * before + part
        return {head: (self._sums[head] / self._weight).astype(np.float32) for head in probs}
