"""Whether the followed object is there: scores frame by frame become states."""

from __future__ import annotations

from dataclasses import dataclass

from visionkit.structures import TrackState

__all__ = ["Presence", "PresenceOptions"]


@dataclass(frozen=True)
class PresenceOptions:
    """Scores that part the states, in [0, 1].

    Args:
        tracking: at least this is `tracking`, less is `uncertain`.
        lost: less than this is a miss: the object was not seen in this frame.
        patience: misses in a row after which the object is `lost`.
        reacquire: a lost object is found again at no less than this.
    """

    tracking: float = 0.35
    lost: float = 0.15
    patience: int = 5
    reacquire: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.lost <= self.tracking <= 1 or not self.lost <= self.reacquire <= 1:
            raise ValueError(
                "`lost` must not exceed `tracking` and `reacquire`, all in [0, 1]. "
                f"Received: lost={self.lost}, tracking={self.tracking}, reacquire={self.reacquire}."
            )
        if self.patience < 1:
            raise ValueError(f"`patience` must be at least 1. Received: patience={self.patience}.")


class Presence:
    """The state of one object: `observe` takes the score of the best candidate of each frame, in order."""

    def __init__(self, options: PresenceOptions) -> None:
        self.options = options
        self.state: TrackState = "tracking"
        self.misses = 0

    @property
    def lost(self) -> bool:
        """Whether the object is lost."""
        return self.state == "lost"

    def observe(self, score: float) -> bool:
        """Take the score of a frame, and tell whether the candidate is the object."""
        options, was_lost = self.options, self.lost
        if score < (options.reacquire if was_lost else options.lost):
            self.misses += 1
            self.state = "lost" if was_lost or self.misses >= options.patience else "uncertain"
            return False
        self.misses = 0
        if was_lost:
            self.state = "reacquired"
        else:
            self.state = "tracking" if score >= options.tracking else "uncertain"
        return True
