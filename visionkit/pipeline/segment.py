"""The stage that segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from visionkit.errors import ModelError
from visionkit.pipeline.over_time import Continuity, FlickerMeter, flicker_size
from visionkit.pipeline.stage import Item, Stage

if TYPE_CHECKING:
    from visionkit.io import MediaInfo
    from visionkit.structures import Frame
    from visionkit.tasks import Segmenter

__all__ = ["ENTROPY", "SegmentStage"]

ENTROPY = "entropy"  # the key of an item's map of entropy in its results
READY, NETWORK = "ready for the crf", "labels before the crf"  # keys of what `process` leaves for `settle`
ENTROPY_DIGITS = 4
MOST_CLASSES = 256  # of a mask of 8 bits


class SegmentStage(Stage):
    """Finds the class of every pixel of a frame.

    Results: under the stage's name a `Segmentation`; with `entropy` also, under that word, how undecided the network
    was, float32 (h, w) from 0 to 1 at the network's own resolution and before any CRF, and the mean of it in the row.

    Args:
        segmenter: a segmenter, which stays the caller's to close; or a function that makes one, called when the source
            and the outputs have proved good, and then closed by the stage.
        entropy: whether the entropy is computed.
        warm: on a video, whether a CRF starts from the marginals of the frame before, carried along by the motion. Not
            behind lost, failed and damaged frames, nor behind a cut.
        flicker: on a video, whether the flicker of its labels is measured (`summary`).
        workers: threads that make inputs and wait for the network; None is one more than it has instances.
    """

    def __init__(
        self,
        segmenter: Segmenter | Callable[[], Segmenter],
        *,
        entropy: bool = False,
        warm: bool = True,
        flicker: bool = True,
        workers: int | None = None,
    ) -> None:
        from visionkit.tasks import Segmenter

        super().__init__("segment", 1, workers or 1)
        self._owned = not isinstance(segmenter, Segmenter)
        self._given, self._entropy, self._warm, self._workers = segmenter, entropy, warm, workers
        self._segmenter: Segmenter | None = None
        self._video: Any = None
        self._flicker = FlickerMeter() if flicker else None
        self._follows = Continuity()
        self._started = False  # there is a frame to go on from
        self._size_hw = (0, 0)

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """The card's colours RGB by class id; empty where it has none, and before `setup`."""
        return () if self._segmenter is None else self._segmenter.options.palette

    def setup(self, info: MediaInfo, first: Frame) -> None:
        """Load the segmenter, unless it was given, and compile its network for the first frame's size."""
        from visionkit.tasks import Segmenter

        given = self._given
        self._segmenter = segmenter = given if isinstance(given, Segmenter) else given()
        self.class_names = segmenter.labels or None
        if len(segmenter.labels) > MOST_CLASSES:
            raise ModelError(
                "too-many-classes", f"Masks have 8 bits, {MOST_CLASSES} classes; this model has {len(segmenter.labels)}"
            )
        self._size_hw = first.size_hw
        segmenter.prepare(first.size_hw)
        self.workers = self._workers or segmenter.instances + 1
        if first.pts_ms is None:  # images
            self._flicker = None
        elif segmenter.refiner is not None and self._warm:
            self._video = segmenter.refiner.video()

    def process(self, items: Sequence[Item]) -> None:
        """The network, and all that needs no other frame."""
        from visionkit.tasks.score_maps import Scores

        segmenter = self._ready()
        for item in items:
            image, entropy = item.frame.image, None
            if segmenter.refiner is None:
                item.results[self.name], entropy = segmenter.read(image, entropy=self._entropy)
            else:
                scores = segmenter.scores(image)
                entropy = scores.entropy() if self._entropy else None
                if self._flicker is not None:
                    item.results[NETWORK] = Scores(scores.maps, flicker_size(scores.size_hw)).labels()
                if self._video is None:
                    item.results[self.name] = segmenter.answer(scores, image)
                else:
                    item.results[READY] = self._video.prepare(scores.probs(), image)
            if entropy is not None:
                item.results[ENTROPY] = entropy
                item.fields[ENTROPY] = round(float(entropy.mean()), ENTROPY_DIGITS)

    def settle(self, items: Sequence[Item]) -> None:
        """What needs the frame before: the CRF that starts from it, and the flicker."""
        if self._video is None and self._flicker is None:
            return
        segmenter = self._ready()
        for item in items:
            follows, image = self._follows(item.frame), item.frame.image
            ready = item.results.pop(READY, None)
            network = item.results.pop(NETWORK, None)
            if item.error is not None:  # what comes behind it starts afresh
                self._forget()
                continue
            if not follows and self._started:
                self._forget()
            self._started = True
            if ready is not None:
                item.results[self.name] = segmenter.refined(self._video.settle(ready))
            if self._flicker is not None:
                maps = {"classes": item.results[self.name].class_map}
                self._flicker(image, maps if network is None else {**maps, "before_crf": network})

    def _forget(self) -> None:
        self._started = False
        if self._video is not None:
            self._video.reset()
        if self._flicker is not None:
            self._flicker.cut()

    def summary(self) -> dict[str, Any] | None:
        """The mean flicker index of a video's classes, and of those before the CRF where there is one."""
        found = None if self._flicker is None else self._flicker.summary()
        return None if found is None else {"flicker": found}

    def describe(self) -> dict[str, Any] | None:
        """What the segmenter says about its model."""
        return None if self._segmenter is None else dict(self._segmenter.describe())

    def settings(self) -> dict[str, Any] | None:
        """Sizes, looks, CRF and tiles for frames of the first one's size."""
        if self._segmenter is None:
            return None
        return {**self._segmenter.settings(self._size_hw), "crf_over_time": self._video is not None}

    def close(self) -> None:
        """Close the segmenter that `setup` loaded."""
        if self._owned and self._segmenter is not None:
            self._segmenter.close()

    def _ready(self) -> Segmenter:
        if self._segmenter is None:
            raise RuntimeError("`setup` comes before the first frame.")
        return self._segmenter
