"""Segmenters on images and masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.compress.differences import MAP_SIDE, maps_apart
from visionkit.compress.paired import SegmentOutcome
from visionkit.compress.report_data import Disagreement
from visionkit.compress.trials import DataChoice, Measured, Progress, Trial, pick
from visionkit.errors import InputError, ModelError
from visionkit.train.class_folders import Problem

if TYPE_CHECKING:
    from visionkit.structures import Segmentation
    from visionkit.train.mask_folders import MaskFolders, MaskSample
    from visionkit.weights import Card

__all__ = ["SegmentTrial"]

Image = npt.NDArray[np.uint8]


@dataclass
class _Maps:
    """Probabilities of a segmenter, each answer's class map kept at a small size."""

    probs: Callable[[Image], npt.NDArray[np.float32]]
    kept: list[npt.NDArray[np.integer[Any]]] = field(default_factory=list)

    def __call__(self, image: Image) -> npt.NDArray[np.float32]:
        found = self.probs(image)
        classes = found.argmax(axis=-1)
        step = max(1, -(-max(classes.shape) // MAP_SIDE))
        self.kept.append(classes[::step, ::step].astype(np.uint8 if found.shape[-1] <= 256 else np.int32))
        return found


class SegmentTrial(Trial):
    """Images and masks."""

    metric, class_metric, counted = "mean IU", "IU", "pixels"

    def __init__(self, card: Card, choice: DataChoice) -> None:
        from visionkit.train.mask_folders import LabelSet, read_labels, read_mask_folders
        from visionkit.train.mask_images import SegmentMaterial

        self.labels = card.labels
        void = LabelSet(card.labels) if choice.labels is None else read_labels(choice.labels)
        if void.names != card.labels:
            raise ModelError("model-unfit", f"{card.name} has other classes than {choice.labels}.")
        self.folders: MaskFolders = read_mask_folders(choice.data)
        self.samples, self.part, known = pick(
            self.folders.samples, lambda one: self.folders.parts.get(one.name, ""), choice
        )
        self.apart = bool(known)
        self.calibration = [self.folders.path(sample.name) for sample in known or self.samples]
        self._material = SegmentMaterial(self.folders, void, cache_bytes=0)

    def load(self, model: str | Path, threads: int) -> Any:
        """As `Trial`."""
        from visionkit.tasks.load_segment import load_segmenter

        return load_segmenter(model, runtime="litert", threads=threads)

    def measure(self, task: Any, progress: Progress | None = None) -> Measured:
        """As `Trial`; the answers are small class maps."""
        from visionkit.evaluate.segment import evaluate_segmenter

        maps = _Maps(task.probs)
        confusions: list[Any] = []
        done: list[MaskSample] = []
        problems: list[Problem] = []
        for number, sample in enumerate(self.samples, 1):
            try:
                found = evaluate_segmenter(maps, self._material, [sample])
            except InputError as error:
                problems.append(Problem(error.slug, sample.name, error.message))
                continue
            confusions.append(found.answers[0].confusion)
            done.append(sample)
            if progress:
                progress(number, len(self.samples))
        if not done:
            raise InputError("no-masks", f"There is no pair to measure on among {len(self.samples)} samples.")
        return Measured(SegmentOutcome(np.stack(confusions)), (done, maps.kept), problems)

    def image(self, place: int) -> Image:
        """As `Trial`."""
        return self._material.load(self.samples[place])[0][0]

    def differ(self, before: Measured, after: Measured, most: int) -> list[Disagreement]:
        """As `Trial`, by the share of pixels; image, float's classes and the other's lie beside each other."""
        samples, one = before.answers
        other = after.answers[1]
        gaps = np.array([float(np.mean(a != b)) for a, b in zip(one, other, strict=True)])
        worst = np.argsort(-gaps, kind="stable")[:most]
        count = len(self.labels)
        found = [
            maps_apart(samples[k].name, self._material.load(samples[k])[0][0], one[k], other[k], count) for k in worst
        ]
        return [picture for picture in found if picture is not None]

    def shown(self, name: str, image: Image, before: Segmentation, after: Segmentation) -> Disagreement | None:
        """As `Trial`."""
        return maps_apart(name, image, before.class_map, after.class_map, len(self.labels))
