"""Detectors on images and boxes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.compress.differences import boxes_apart
from visionkit.compress.paired import DetectOutcome
from visionkit.compress.report_data import Disagreement
from visionkit.compress.trials import DataChoice, Measured, Progress, Trial, pick, telling
from visionkit.errors import ModelError

if TYPE_CHECKING:
    from visionkit.structures import Detections
    from visionkit.train.detection_folders import DetectionFolders, DetectionSample
    from visionkit.weights import Card

__all__ = ["DetectTrial"]

Image = npt.NDArray[np.uint8]
CONFIDENCE = 0.01  # of answers that count, as `visionkit eval detect`


class DetectTrial(Trial):
    """Images and boxes."""

    metric, class_metric, counted = "mAP50", "AP50", "objects"

    def __init__(self, card: Card, choice: DataChoice) -> None:
        from visionkit.train.detection_folders import read_detection_folders
        from visionkit.train.detection_images import DetectMaterial

        self.labels = card.labels
        found = read_detection_folders(choice.data, images=choice.images, layout=choice.layout)
        if not set(found.classes) & set(self.labels):
            raise ModelError(
                "model-unfit",
                f"{card.name} has the classes {', '.join(self.labels[:8])}, the data {', '.join(found.classes[:8])}: "
                "none is the same.",
            )
        self.folders: DetectionFolders = read_detection_folders(
            choice.data, images=choice.images, layout=found.layout, classes=self.labels
        )
        self.samples, self.part, known = pick(
            self.folders.samples, lambda one: self.folders.parts.get(one.name, ""), choice
        )
        self.apart = bool(known)
        self.calibration = [sample.path for sample in known or self.samples]
        self._material = DetectMaterial()

    def load(self, model: str | Path, threads: int) -> Any:
        """As `Trial`."""
        from visionkit.tasks.load_detect import load_detector

        return load_detector(model, runtime="litert", threads=threads)

    def measure(self, task: Any, progress: Progress | None = None) -> Measured:
        """As `Trial`; the answers are detections."""
        from visionkit.evaluate.detect import evaluate_detector

        found = evaluate_detector(
            task,
            self.samples,
            self.labels,
            conf=CONFIDENCE,
            coco=False,
            material=self._material,
            progress=telling(progress, len(self.samples)),
        )
        answers = [(one.xyxy, one.confidence, one.class_id) for one in found.answers]
        truths = [(one.xyxy, one.class_id, one.difficult | one.crowd) for one in found.samples]
        outcome = DetectOutcome(answers, truths, len(self.labels))
        return Measured(outcome, (found.samples, found.answers), found.problems)

    def image(self, place: int) -> Image:
        """As `Trial`."""
        return self._material(self.samples[place])

    def differ(self, before: Measured, after: Measured, most: int) -> list[Disagreement]:
        """As `Trial`: float's answers are taken for the truth, and the images with most mistakes are the worst."""
        from visionkit.train.detect_report import SURE, worst_images

        samples, one = before.answers
        other = after.answers[1]
        as_truth = [
            _as_truth(sample, answer[answer.confidence >= SURE]) for sample, answer in zip(samples, one, strict=True)
        ]
        places = [place for place, _, _ in worst_images(as_truth, other, most=most)]
        found = [self.shown(samples[k].name, self._material(samples[k]), one[k], other[k]) for k in places]
        return [picture for picture in found if picture is not None]

    def shown(self, name: str, image: Image, before: Detections, after: Detections) -> Disagreement | None:
        """As `Trial`."""
        return boxes_apart(name, image, before, after)


def _as_truth(sample: DetectionSample, answer: Any) -> DetectionSample:
    none = np.zeros(len(answer), bool)
    return dataclasses.replace(sample, xyxy=answer.xyxy, class_id=answer.class_id, difficult=none, crowd=none)
