"""The stage that classifies what another one has straightened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from visionkit.pipeline.classify import ClassifyStage
from visionkit.pipeline.rectify import RECTIFIED
from visionkit.pipeline.stage import Item
from visionkit.structures import Rectified

__all__ = ["ClassifyCropsStage"]


class ClassifyCropsStage(ClassifyStage):
    """Classifies the crops that a `RectifyStage` before it has made, instead of the frames.

    Of one crop a frame the result and the row are those of `ClassifyStage`, smoothed over time where that is asked for.
    Of one crop a box the result is a list, None where there is no crop, and each entry of the row's `rectified` gets
    its `classes`; these are not smoothed.

    Args:
        classifier, batch, smooth_s, workers: as `ClassifyStage`.
        crops: name of the stage whose crops are classified.
    """

    def __init__(self, classifier: Any, *, crops: str = "rectify", **options: Any) -> None:
        super().__init__(classifier, **options)
        self._crops = crops

    def process(self, items: Sequence[Item]) -> None:
        """Probabilities of each item's crop, or the classes of each of its crops."""
        from visionkit.io.results import result_fields

        classifier = self._ready()
        for item in items:
            found: Rectified | list[Rectified | None] | None = item.results.get(self._crops)
            if isinstance(found, Rectified):
                with classifier.inputs() as inputs:
                    probs = classifier.infer(classifier.fill(inputs, [found.image]), 1)
                    item.results[self.name] = classifier.row(probs, 0)
            elif found is not None:
                answers = iter(classifier([crop.image for crop in found if crop is not None]))
                told = [None if crop is None else next(answers) for crop in found]
                item.results[self.name] = told
                for entry, answer in zip(item.fields[RECTIFIED], told, strict=True):
                    if answer is not None:
                        entry.update(result_fields(answer, self.class_names))

    def settle(self, items: Sequence[Item]) -> None:
        """Smooth what there is one of in each frame."""
        super().settle([item for item in items if not isinstance(item.results.get(self.name), list)])
