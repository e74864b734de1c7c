"""A segmenter measured on images and masks, through the same task that users call, with a dense CRF after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError, ModelError
from visionkit.evaluate.boundaries import WIDTHS, boundary_f_scores, trimap_counts
from visionkit.evaluate.segment_metrics import SegmentScores, confusion_counts, score_counts
from visionkit.geometry.label_maps import class_iou, mean_of_there
from visionkit.train.class_folders import Problem
from visionkit.train.mask_folders import VOID, MaskSample
from visionkit.train.mask_images import SegmentMaterial

if TYPE_CHECKING:
    from visionkit.crf import CRFParams

__all__ = ["Measured", "SegmentEvaluation", "crf_steps", "evaluate_segmenter"]

Image = npt.NDArray[np.uint8]
Probs = npt.NDArray[np.float32]
Probabilities = Callable[[Image], Probs]
Refine = Callable[[Probs, Image], Iterator[Probs]]


@dataclass
class Measured:
    """Counts of one kind of answer: the network's own, or that of the CRF after some iterations.

    Args:
        confusion: int64 (L, L), pixels; rows are true classes.
        bands: int64 (W, L, L), the same within each width of an edge; empty if not asked for.
        boundary: float64 (N, L), boundary F-scores of each image; likewise.
    """

    confusion: npt.NDArray[np.int64]
    bands: npt.NDArray[np.int64]
    boundary: list[npt.NDArray[np.float64]] = field(default_factory=list)

    @property
    def scores(self) -> SegmentScores:
        """All measures of the counts."""
        return score_counts(self.confusion)

    @property
    def band_iou(self) -> list[float]:
        """Mean IU within each width of an edge."""
        return [mean_of_there(class_iou(counts)) for counts in self.bands]

    @property
    def class_boundary_f(self) -> npt.NDArray[np.float64]:
        """The boundary F-score of each class, float64 (L,): the mean over the images it is in; nan where it is in none.

        Their mean is not `boundary_f`, which means over images last.
        """
        return np.array([mean_of_there(column) for column in np.array(self.boundary).T])

    @property
    def boundary_f(self) -> float:
        """The boundary F-score: the mean over images of the mean over the classes in them; nan if not asked for."""
        return mean_of_there(np.array([mean_of_there(row) for row in self.boundary]))


@dataclass(frozen=True)
class SegmentEvaluation:
    """What a segmenter answered on the samples that could be used.

    Args:
        answers: the network's own, then those of the CRF by iteration, if there is one.
        widths: of the bands.
        seconds: per image, of the network with what goes with it, and of the CRF; nan where there is none.
        problems: pairs that could not be used, which are not counted.
    """

    samples: list[MaskSample]
    answers: list[Measured]
    widths: tuple[float, ...]
    seconds: tuple[float, float]
    problems: list[Problem] = field(default_factory=list)


def crf_steps(params: CRFParams, threads: int | None = None) -> Refine:
    """Marginals after each iteration of the fast dense CRF, from probabilities (H, W, L) and an image (H, W, 3)."""
    from dataclasses import replace

    from visionkit.crf import FastMeanField, unary_from_probs

    one = replace(params, iterations=1)

    def steps(probs: Probs, image: Image) -> Iterator[Probs]:
        engine = FastMeanField(image, one, threads=threads)
        unary = unary_from_probs(probs)
        marginals: Probs | None = None
        for _ in range(params.iterations):
            marginals = engine(unary, initial=marginals)
            yield marginals

    return steps


def evaluate_segmenter(
    probabilities: Probabilities,
    material: SegmentMaterial,
    samples: Sequence[MaskSample],
    *,
    refine: Refine | None = None,
    iterations: int = 0,
    edges: bool = False,
    widths: Sequence[float] = WIDTHS,
    progress: Callable[[int], None] | None = None,
) -> SegmentEvaluation:
    """Measure a segmenter on images and masks, at the images' own size; class numbers of both mean the same.

    Args:
        probabilities: from an image uint8 (H, W, 3) BGR to float32 (H, W, L), as a segmenter's `probs`.
        refine: gives marginals after each of `iterations` steps of a CRF (`crf_steps`).
        edges: measure the bands around edges and the boundary F-score too; of the CRF only after its last step.
        progress: is told how many samples are done.

    Raises:
        InputError: `no-masks`; not one pair can be used.
        ModelError: `model-unfit`; the segmenter has another number of classes.
    """
    classes = len(material.labels.names)
    answers = [_nothing(classes, len(widths) if edges else 0) for _ in range(1 + (iterations if refine else 0))]
    done: list[MaskSample] = []
    problems: list[Problem] = []
    spent = np.zeros(2)
    for sample in samples:
        try:
            image, truth = material.load(sample)[0]
        except InputError as error:
            problems.append(Problem(error.slug, sample.name, error.message))
            continue
        started = time.perf_counter()
        probs = _checked(probabilities(image), truth.shape, classes)
        spent[0] += time.perf_counter() - started if done else 0.0  # the first call warms up
        _count(answers[0], truth, probs, widths, edges=edges)
        if refine is not None:
            seconds = _refined(answers[1:], refine(probs, image), truth, widths, edges=edges)
            spent[1] += seconds if done else 0.0
        done.append(sample)
        if progress:
            progress(len(done) + len(problems))
    if not done:
        reason = f": {problems[0].reason}" if problems else ""
        raise InputError("no-masks", f"There is no pair to measure on among {len(samples)} samples{reason}.")
    rest = len(done) - 1
    each = spent / rest if rest else np.full(2, np.nan)
    pair = (float(each[0]), float(each[1]) if refine else float("nan"))
    return SegmentEvaluation(done, answers, tuple(widths) if edges else (), pair, problems)


def _nothing(classes: int, widths: int) -> Measured:
    return Measured(np.zeros((classes, classes), np.int64), np.zeros((widths, classes, classes), np.int64))


def _checked(probs: Any, size_hw: tuple[int, ...], classes: int) -> Probs:
    if probs.shape != (*size_hw, classes):
        raise ModelError(
            "model-unfit",
            f"The model answers with {probs.shape}, expected {(*size_hw, classes)}: it has other classes than the "
            "labels say.",
        )
    return np.asarray(probs, np.float32)


def _refined(
    answers: list[Measured], steps: Iterator[Probs], truth: Image, widths: Sequence[float], *, edges: bool
) -> float:
    """Count the answers after each step; the seconds that the steps took."""
    seconds, started = 0.0, time.perf_counter()
    for number, marginals in enumerate(steps):
        seconds += time.perf_counter() - started
        last = number == len(answers) - 1
        _count(answers[number], truth, marginals, widths, edges=edges and last)
        started = time.perf_counter()
    return seconds


def _count(measured: Measured, truth: Image, probs: Probs, widths: Sequence[float], *, edges: bool) -> None:
    answer = probs.argmax(axis=-1)
    classes = probs.shape[-1]
    measured.confusion += confusion_counts(truth, answer, classes, ignore=VOID)
    if edges:
        measured.bands += trimap_counts(truth, answer, classes, widths=widths, ignore=VOID)
        measured.boundary.append(boundary_f_scores(answer, truth, classes, ignore=VOID))
