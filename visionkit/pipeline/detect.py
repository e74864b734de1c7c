"""The stage that detects, and gives the same object the same number over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from visionkit.pipeline.stage import Item, Stage

if TYPE_CHECKING:
    from visionkit.io import MediaInfo
    from visionkit.structures import Detections, Frame
    from visionkit.tasks import Associator, CountPlan, Counts, Detector

__all__ = ["COUNTS", "DetectStage"]

COUNTS = "counts"  # the key of what was counted so far in an item's results and row
FRAME_S = 1 / 30  # images without a time are so far apart

# As `ClassifyStage` takes several frames of a video at a time.
TAKEN = 4
TAKEN_BYTES = 32 << 20


class DetectStage(Stage):
    """Finds the objects in every frame; the result is `Detections`.

    Args:
        detector: a detector, which stays the caller's to close; or a function that makes one, called when the source
            and the outputs have proved good, and then closed by the stage.
        associate: gives the detections of consecutive frames their numbers; None for none. It sees the frames in order,
            and boxes that are less sure than the detector's `conf`, down to its own `low`.
        count: lines and zones to count at; what was counted so far is in the rows.
        batch: images that a worker takes at a time, at least.
        workers: threads that make inputs and wait for the network; None is one more than the detector has instances.
    """

    def __init__(
        self,
        detector: Detector | Callable[[], Detector],
        *,
        associate: Associator | None = None,
        count: CountPlan | None = None,
        batch: int | None = None,
        workers: int | None = None,
    ) -> None:
        from visionkit.tasks import Detector

        self._owned = not isinstance(detector, Detector)
        self._given, self._workers = detector, workers
        if batch is None:
            batch = detector.batch if isinstance(detector, Detector) else 1
        super().__init__("detect", batch, workers or 1)
        self.associate, self.plan = associate, count
        self._detector: Detector | None = None
        self._counts: Counts | None = None
        self._size_hw = (0, 0)
        self._low: float | None = None

    @property
    def counts(self) -> Counts | None:
        """What was counted so far."""
        return self._counts

    def check(self, info: MediaInfo, first: Frame) -> None:
        """Refuse lines and zones outside of the first frame (UsageError `line-outside`, `zone-outside`)."""
        if self.plan is not None:
            self.plan.check(first.size_hw)

    def setup(self, info: MediaInfo, first: Frame) -> None:
        """Load the detector, unless it was given, and compile its network for the first frame's size."""
        from visionkit.tasks import Counts, Detector

        given = self._given
        self._detector = detector = given if isinstance(given, Detector) else given()
        self.class_names = detector.labels or None
        self._size_hw = first.size_hw
        detector.prepare(first.size_hw)
        self.workers = self._workers or detector.instances + 1
        if info.kind == "video":
            room = max(1, min(TAKEN, TAKEN_BYTES // first.image.nbytes))
            self.batch = max(self.batch, room - room % detector.batch)
        if self.associate is not None:
            self.associate.reset()
            self._low = min(detector.options.conf, self.associate.options.low)
        self._counts = Counts(self.plan) if self.plan else None
        self._last_size = first.size_hw

    def process(self, items: Sequence[Item]) -> None:
        """The network, and all that needs no other frame."""
        found = self._ready()([item.frame.image for item in items], conf=self._low)
        for item, detections in zip(items, found, strict=True):
            item.results[self.name] = detections

    def settle(self, items: Sequence[Item]) -> None:
        """Numbers and counts, in the frames' order."""
        for item in items:
            found: Detections | None = item.results.get(self.name)
            if found is None:
                continue  # it failed: neither seen nor missed
            if self.associate is not None:
                if item.frame.size_hw != self._last_size:  # boxes of another picture
                    self.associate.reset()
                    self._last_size = item.frame.size_hw
                found = self.associate(found, _time_of(item.frame))
                item.results[self.name] = found
            if self._counts is not None:
                self._counts.add(found)
                item.results[COUNTS] = item.fields[COUNTS] = self._counts.now()

    def describe(self) -> dict[str, Any] | None:
        """What the detector says about its model."""
        return None if self._detector is None else dict(self._detector.describe())

    def settings(self) -> dict[str, Any] | None:
        """Sizes and thresholds, and how detections are associated."""
        if self._detector is None:
            return None
        from dataclasses import asdict

        associate = self.associate
        track = None if associate is None else {"tracker": associate.name, **asdict(associate.options)}
        return {**self._detector.settings(self._size_hw), "track": track}

    def summary(self) -> dict[str, Any] | None:
        """What was counted."""
        return None if self._counts is None else {COUNTS: self._counts.summary(self.class_names)}

    def close(self) -> None:
        """Close the detector that `setup` loaded."""
        if self._owned and self._detector is not None:
            self._detector.close()

    def _ready(self) -> Detector:
        if self._detector is None:
            raise RuntimeError("`setup` comes before the first frame.")
        return self._detector


def _time_of(frame: Frame) -> float:
    """When a frame is shown, in seconds; images follow each other at 30 a second."""
    return frame.index * FRAME_S if frame.pts_ms is None else frame.pts_ms / 1000
