"""Labelled data of a task to try variants of a model on: through the task that users call and its evaluator.

A trial knows how to load a model for its task, what its answers to the images are worth, and where two models differ
most. The evaluators are those of `visionkit eval`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.compress.paired import ClassifyOutcome, DetectOutcome, Outcome, SegmentOutcome
from visionkit.compress.report_data import Disagreement
from visionkit.errors import InputError, ModelError, UsageError
from visionkit.train.class_folders import PARTS, Problem

if TYPE_CHECKING:
    from visionkit.train.class_folders import ClassFolders, Sample
    from visionkit.train.detection_folders import DetectionFolders, DetectionSample
    from visionkit.train.mask_folders import MaskFolders, MaskSample
    from visionkit.weights import Card

__all__ = ["DataChoice", "Measured", "Trial", "make_trial"]

Image = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]
MEASURED_PARTS = ("test", "val")  # looked for in this order, where none is named
SMALL, MAP_SIDE, SHOWN = 320, 256, 640
APART = (0, 230, 255)  # BGR of pixels on which two segmenters differ
CONFIDENCE = 0.01  # of a detector's answers that count, as `visionkit eval detect`


@dataclass(frozen=True)
class DataChoice:
    """Where labelled images are, and which of them are measured.

    Args:
        split: a `split.json` that training wrote (classification); `part` of it, or of the data.
        images, layout: of detection data, as `visionkit eval detect` takes them.
        labels: of masks, as `visionkit eval segment` takes them.
        limit: measure every k-th image, this many in all.
    """

    data: Path
    split: Path | None = None
    part: str | None = None
    images: Path | None = None
    layout: str | None = None
    labels: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Measured:
    """What a model answered: what it is worth, and the answers themselves, as the trial that made them knows them."""

    outcome: Outcome
    answers: Any
    problems: Sequence[Problem] = ()


class Trial:
    """Labelled images of one task.

    Attributes:
        metric, class_metric: what is measured, in words; `counted`: what a class has a number of.
        labels: class names.
        samples: that are measured; `part` says which they are, in words.
        calibration: paths of images that are not measured, or of all where there are no others.
        apart: whether those are others.
    """

    metric: str
    class_metric: str
    counted: str
    labels: tuple[str, ...]
    samples: Sequence[Any]
    part: str
    calibration: list[Path]
    apart: bool

    def load(self, model: str | Path, threads: int) -> Any:
        """The task of a model file, in LiteRT on so many cores."""
        raise NotImplementedError

    def measure(self, task: Any, progress: Progress | None = None) -> Measured:
        """The task's answers to all samples, and what they are worth."""
        raise NotImplementedError

    def image(self, place: int) -> Image:
        """A sample's image."""
        raise NotImplementedError

    def differ(self, before: Measured, after: Measured, most: int) -> list[Disagreement]:
        """Where two models differ most, the worst first."""
        raise NotImplementedError


def make_trial(card: Card, choice: DataChoice) -> Trial:
    """The trial of a card's task on the user's data.

    Raises:
        ModelError: `model-unfit`; a task that is not measured, a model without labels, or other classes than the data.
        InputError: the data is none, or the part has no images.
    """
    makers: dict[str, type[ClassifyTrial | DetectTrial | SegmentTrial]] = {
        "classify": ClassifyTrial,
        "detect": DetectTrial,
        "segment": SegmentTrial,
    }
    if card.task not in makers or not card.labels:
        what = "has no labels" if card.task in makers else f"is a model to {card.task}"
        raise ModelError(
            "model-unfit", f"{card.name} {what}; judged are models with labels to {', '.join(makers)} images."
        )
    if choice.split is not None and card.task != "classify":
        raise UsageError("option-unfit", "--split is of class folders; this data says itself what its parts are.")
    return makers[card.task](card, choice)


def _pick(
    samples: Sequence[Any], part_of: Callable[[Any], str], choice: DataChoice
) -> tuple[list[Any], str, list[Any]]:
    """The samples to measure, what they are in words, and those that training knew."""
    parts = {part: [sample for sample in samples if part_of(sample) == part] for part in PARTS}
    part = choice.part or next((name for name in MEASURED_PARTS if parts[name]), None)
    chosen = list(samples) if part is None else parts[part]
    if not chosen:
        raise InputError("no-images", f"The part {part!r} of {choice.data} holds no labelled image.")
    if choice.limit is not None and choice.limit < len(chosen):
        chosen = [chosen[k * len(chosen) // choice.limit] for k in range(choice.limit)]
    return chosen, "all images" if part is None else f"part {part!r}", [] if part == "train" else parts["train"]


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
        self.samples, self.part, known = _pick(self.folders.samples, lambda one: parts.get(one.name, ""), choice)
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

        found = evaluate_classifier(task, self.folders, self.samples, progress=_telling(progress, len(self.samples)))
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
                _shrunk(self._image(samples[k]), SMALL),
            )
            for k in order[:most]
            if first[k] != last[k]
        ]


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
        self.samples, self.part, known = _pick(
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
            progress=_telling(progress, len(self.samples)),
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
        from visionkit.train.detect_report import SURE, picture_of, worst_images

        samples, one = before.answers
        other = after.answers[1]
        as_truth = [
            _as_truth(sample, answer[answer.confidence >= SURE]) for sample, answer in zip(samples, one, strict=True)
        ]
        found = []
        for place, right, seen in worst_images(as_truth, other, most=most):
            picture = picture_of(as_truth[place], self._material(samples[place]), other[place], right, seen)
            count = len(as_truth[place])
            found.append(
                Disagreement(
                    picture.name,
                    f"{count} objects ({picture.missed} of them missed now, blue)",
                    f"{len(right)} objects ({picture.false} of them new, red)",
                    "",
                    (picture.missed + picture.false) / max(1, count + len(right)),
                    _shrunk(picture.image, SHOWN),
                )
            )
        return found


def _as_truth(sample: DetectionSample, answer: Any) -> DetectionSample:
    none = np.zeros(len(answer), bool)
    return dataclasses.replace(sample, xyxy=answer.xyxy, class_id=answer.class_id, difficult=none, crowd=none)


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
        self.samples, self.part, known = _pick(
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
        from visionkit.train.segment_report import class_colours

        samples, one = before.answers
        other = after.answers[1]
        gaps = np.array([float(np.mean(a != b)) for a, b in zip(one, other, strict=True)])
        colours = class_colours(len(self.labels))
        found = []
        for k in np.argsort(-gaps, kind="stable")[:most]:
            if not gaps[k]:
                break
            size_wh = one[k].shape[1::-1]
            image = cv2.resize(self._material.load(samples[k])[0][0], size_wh, interpolation=cv2.INTER_AREA)
            last = np.where((one[k] != other[k])[..., None], APART, colours[other[k]] // 2)
            shown = np.concatenate([np.asarray(image, np.uint8), colours[one[k]], last.astype(np.uint8)], axis=1)
            words = f"another class for {gaps[k]:.2%} of the pixels (right, yellow)"
            found.append(Disagreement(samples[k].name, "its classes (middle)", words, "", float(gaps[k]), shown))
        return found


def _shrunk(image: Image, longest: int) -> Image:
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    size_wh = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    return np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def _telling(progress: Progress | None, total: int) -> Callable[[int], None] | None:
    return None if progress is None else lambda done: progress(done, total)
