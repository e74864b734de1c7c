"""Following one object as a step of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from visionkit.pipeline.steps import Silent, Step, Telling
from visionkit.pipeline.threads import network_threads
from visionkit.pipeline.track import Tracker, TrackStage

if TYPE_CHECKING:
    from visionkit.pipeline.stage import Item

__all__ = ["TrackStep", "tracker_of"]


class TrackStep(Step):
    """One object, its box and its path.

    Args:
        load: makes the tracker.
        xyxy: float (4,), the object in the first frame, absolute pixels.
    """

    def __init__(self, load: Callable[[], Tracker], xyxy: npt.ArrayLike) -> None:
        from visionkit.draw import TrackDrawer

        super().__init__(TrackStage(load, xyxy))
        self._drawer = TrackDrawer()

    def draw(self, item: Item) -> None:
        """The box, its state and its path."""
        if (found := item.results.get(self.stage.name)) is not None:
            self._drawer(item.frame.image, found)

    def names(self, item: Item) -> list[str]:
        """The state."""
        found = item.results.get(self.stage.name)
        return ["failed" if found is None else found.state]

    def told(self) -> str:
        """In how many frames the object was followed, and what happened in the others."""
        states = self.seen
        followed = sum(states[state] for state in ("tracking", "uncertain", "reacquired"))
        told = f"followed in {followed / max(1, sum(states.values())):.1%}"
        return told + "".join(
            f", {state} in {states[state]}" for state in ("uncertain", "lost", "failed") if states[state]
        )


def tracker_of(options: Mapping[str, Any], telling: Telling | None = None, *, encoding: bool = True) -> Tracker:
    """The tracker that the options name.

    Args:
        options: `model`, `runtime`, `precision`, `threads`, `trust_model`.
        telling: tells of compiling.
        encoding: whether the run writes a video.
    """
    from visionkit.tasks import load_tracker

    names = [] if options["model"] is None else [options["model"]]
    how = {"runtime": options["runtime"], "precision": options["precision"], "trust": options.get("trust_model", False)}
    how["threads"] = options["threads"] or network_threads(encoding=encoding)
    return load_tracker(*names, on_compile=lambda: (telling or Silent()).compiling("network"), **how)
