"""Classifiers on class folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.compress.differences import SMALL, classes_apart, shrunk
from visionkit.compress.paired import ClassifyOutcome
from visionkit.compress.report_data import Disagreement
from visionkit.compress.trials import DataChoice, Measured, Progress, Trial, pick, telling
from visionkit.train.class_folders import PARTS

if TYPE_CHECKING:
    from visionkit.structures import Classification
    from visionkit.train.class_folders import ClassFolders, Sample
    from visionkit.weights import Card

__all__ = ["ClassifyTrial"]

Image = npt.NDArray[np.uint8]


class ClassifyTrial(Trial):
    """Class folders."""

    metric, class_metric, counted = "top-1", "recall", "images"

    def __init__(self, card: Card, choice: DataChoice) -> None:
        from visionkit.train.class_folders import read_class_folders
        from visionkit.train.split import read_split

        self.labels = card.labels
        self.folders: ClassFolders = read_class_folders(choice.data, card.labels)
        parts = dict(self.folders.parts)
        if choice.split is not None:
            split = read_split(choice.split, self.folders.samples)
            parts = {name: part for part in PARTS for name in getattr(split, part)}
        self.samples, self.part, known = pick(self.folders.samples, lambda one: parts.get(one.name, ""), choice)
        self.known: list[Sample] = known
        self.apart = bool(known)
        self.calibration = [self.folders.path(sample) for sample in known or self.samples]

    def load(self, model: str | Path, threads: int) -> Any:
        """As `Trial`."""
        from visionkit.tasks.load_classify import load_classifier

        return load_classifier(model, runtime="litert", threads=threads, topk=len(self.labels))

    def measure(self, task: Any, progress: Progress | None = None) -> Measured:
        """As `Trial`; the answers are probabilities (N, L)."""
        from visionkit.evaluate.classify import evaluate_classifier

        found = evaluate_classifier(task, self.folders, self.samples, progress=telling(progress, len(self.samples)))
        outcome = ClassifyOutcome(found.probs.argmax(axis=1), found.labels, len(self.labels))
        return Measured(outcome, (found.samples, found.probs), found.problems)

    def image(self, place: int) -> Image:
        """As `Trial`."""
        return self._image(self.samples[place])

    def _image(self, sample: Sample) -> Image:
        from visionkit.train.class_images import load_image

        return load_image(self.folders, sample)[0]

    def differ(self, before: Measured, after: Measured, most: int) -> list[Disagreement]:
        """As `Trial`: first what float had right, by how far the probabilities are apart."""
        samples, one = before.answers
        other = after.answers[1]
        gaps = np.abs(one - other).sum(axis=1) / 2  # total variation
        first, last = one.argmax(axis=1), other.argmax(axis=1)
        truth = np.array([sample.class_id for sample in samples])
        order = np.lexsort((-gaps, ~((first == truth) & (last != truth)), first == last))
        told = lambda probs, k: f"{self.labels[k]} {probs[k]:.0%}"  # noqa: E731
        return [
            Disagreement(
                samples[k].name,
                told(one[k], first[k]),
                told(other[k], last[k]),
                self.labels[truth[k]],
                float(gaps[k]),
                shrunk(self._image(samples[k]), SMALL),
            )
            for k in order[:most]
            if first[k] != last[k]
        ]

    def shown(self, name: str, image: Image, before: Classification, after: Classification) -> Disagreement | None:
        """As `Trial`."""
        return classes_apart(name, image, before, after, self.labels)
