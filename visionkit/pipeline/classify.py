"""The stage that classifies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.pipeline.rectify import region_fields
from visionkit.pipeline.smooth import Smoother
from visionkit.pipeline.stage import Item, Stage
from visionkit.structures import Frame, Rectified

if TYPE_CHECKING:
    from visionkit.io import MediaInfo
    from visionkit.tasks import Classifier
    from visionkit.tasks.transform import TransformRule

__all__ = ["TRANSFORM", "ClassifyStage"]

TRANSFORM = "transform"  # the key of what the transformers look at in an item's results and row

# Of a video a worker takes several frames at a time, even where the network takes one: each taking wakes other threads.
# Measured on car-detection.mp4, two cores, batch 1: 252 frames a second with 1, 281 with 4, 308 with 8.
TAKEN = 8
TAKEN_BYTES = 32 << 20  # not so many of them where they are large


class ClassifyStage(Stage):
    """Classifies every frame, and on a video smooths the probabilities over time.

    A frame that fails keeps its neighbours' results as they are, and adds nothing to the average. Where the classifier
    tells what its spatial transformer looks at, the results hold a list of `Rectified` under `transform`, None for a
    region that is no crop, and the row's `transform` says the same without the pixels, as `RectifyStage` does.

    Args:
        classifier: a classifier, which stays the caller's to close; or a function that makes one, called when the
            source and the outputs have proved good, and then closed by the stage.
        batch: images that a worker takes at a time, at least; the network is called as the classifier was compiled.
        smooth_s: time constant of the smoothing in seconds; 0 for none (`Smoother`).
        workers: threads that make inputs and wait for the network; None is one more than the classifier has instances,
            so that the next input is made meanwhile.
    """

    def __init__(
        self,
        classifier: Classifier | Callable[[], Classifier],
        *,
        batch: int | None = None,
        smooth_s: float = 0.0,
        workers: int | None = None,
    ) -> None:
        from visionkit.tasks import Classifier

        self._owned = not isinstance(classifier, Classifier)
        self._given = classifier
        if batch is None:
            batch = classifier.batch if isinstance(classifier, Classifier) else 1
        super().__init__("classify", batch, workers or 1)
        self._workers = workers
        self._classifier: Classifier | None = None
        self._smoother = Smoother(smooth_s)

    def setup(self, info: MediaInfo, first: Frame) -> None:
        """Load the classifier, unless it was given."""
        from visionkit.tasks import Classifier

        given = self._given
        self._classifier = given if isinstance(given, Classifier) else given()
        self.workers = self._workers or self._classifier.instances + 1
        if info.kind == "video":
            room = max(1, min(TAKEN, TAKEN_BYTES // first.image.nbytes))
            self.batch = max(self.batch, room - room % self._classifier.batch)
        self.class_names = self._classifier.labels or None
        self._smoother.reset()

    def process(self, items: Sequence[Item]) -> None:
        """Probabilities of each item's image."""
        classifier = self._ready()
        with classifier.inputs() as inputs:
            for begin in range(0, len(items), classifier.batch):
                part = items[begin : begin + classifier.batch]
                filled = classifier.fill(inputs, [item.frame.image for item in part])
                found, thetas = classifier.infer_looking(filled, len(part))
                for place, item in enumerate(part):
                    item.results[self.name] = classifier.row(found, place)
                    if classifier.transform is not None and thetas is not None:
                        _look(item, classifier.transform, thetas[place])

    def settle(self, items: Sequence[Item]) -> None:
        """Smooth them in the frames' order and keep the most likely."""
        classifier = self._ready()
        for item in items:
            probs: Mapping[str, npt.NDArray[np.float32]] | None = item.results.get(self.name)
            if probs is not None:
                item.results[self.name] = classifier.answer(self._smoother(item.frame, probs))

    def describe(self) -> dict[str, Any] | None:
        """What the classifier says about its model."""
        return None if self._classifier is None else dict(self._classifier.describe())

    def settings(self) -> dict[str, Any] | None:
        """Size of the input, batch, smoothing, and what of the answers is kept."""
        if self._classifier is None:
            return None
        rule, options = self._classifier.rule, self._classifier.options
        return {
            "size_hw": list(rule.size_hw),
            "resize": rule.resize,
            "batch": self._classifier.batch,
            "threads": self._classifier.runner.threads,
            "instances": self._classifier.instances,
            "smooth_s": self._smoother.tau_s,
            "topk": options.topk,
            "conf": options.conf,
            "classes": None if options.classes is None else list(options.classes),
        }

    def close(self) -> None:
        """Close the classifier that `setup` loaded."""
        if self._owned and self._classifier is not None:
            self._classifier.close()

    def _ready(self) -> Classifier:
        if self._classifier is None:
            raise RuntimeError("`setup` comes before the first frame.")
        return self._classifier


def _look(item: Item, transform: TransformRule, theta: npt.NDArray[Any]) -> None:
    """What the transformers of one frame look at."""
    found: list[Rectified | None] = []
    for one in transform.thetas(theta):
        try:
            found.append(transform.look(item.frame.image, one))
        except ModelError:  # the class stands all the same
            found.append(None)
    item.results[TRANSFORM] = found
    fields = [None if region is None else region_fields(region) for region in found]
    item.fields[TRANSFORM] = fields[0] if len(fields) == 1 else fields
