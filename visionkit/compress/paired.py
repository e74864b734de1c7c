"""How much worse one model is than another on the same images, with an interval: the paired bootstrap.

Efron, Tibshirani, An introduction to the bootstrap, 1993, chapter 8: images are drawn again and again with replacement,
and each time both models are scored on the same draw, so that what is hard for both cancels out. Where two classifiers
hardly ever differ, drawing again cannot tell how much they might; Agresti and Min's interval can, and both must hold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from visionkit.compress.verdict import Interval
from visionkit.evaluate.classify_metrics import wilson_interval
from visionkit.geometry.average_precision import IGNORED, average_precision, box_overlaps, match_answers
from visionkit.geometry.average_precision import precision_recall as curve_of
from visionkit.geometry.label_maps import class_iou, mean_of_there

__all__ = [
    "ClassifyOutcome",
    "DetectOutcome",
    "Outcome",
    "Paired",
    "SegmentOutcome",
    "TrackOutcome",
    "agresti_min_interval",
    "compare_paired",
]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
DRAWS, AT_ONCE = 1000, 1 << 22
STRETCH = 25  # frames: what happens to a tracker lasts, so frames beside each other are drawn together


class Outcome(Protocol):
    """What one model answered on N images, kept so that any draw of them can be scored."""

    @property
    def images(self) -> int:
        """What is told as their number: N, unless several belong together."""

    @property
    def counts(self) -> Counts:
        """Examples of each class (L,): images, objects or pixels."""

    def scores(self, weights: Counts) -> Floats:
        """Of draws (D, N), how often each holds each image: the metric, then that of each class, (D, 1 + L)."""

    def whole(self) -> Counts:
        """The draw (1, N) that holds each once."""

    def draws(self, rng: np.random.Generator, count: int) -> Counts:
        """Draws (D, N) with replacement."""


class _Images:
    """Images that have nothing to do with each other."""

    @property
    def images(self) -> int:
        """N."""
        raise NotImplementedError

    def whole(self) -> Counts:
        """As `Outcome`."""
        return np.ones((1, self.images), np.int64)

    def draws(self, rng: np.random.Generator, count: int) -> Counts:
        """As `Outcome`."""
        places = rng.integers(0, self.images, (count, self.images))
        return np.stack([np.bincount(row, minlength=self.images) for row in places])


@dataclass(frozen=True)
class ClassifyOutcome(_Images):
    """top-1 accuracy, and recall of each class.

    Args:
        answers, labels: class ids int64 (N,).
        classes: L.
    """

    answers: Counts
    labels: Counts
    classes: int

    @property
    def images(self) -> int:
        """N."""
        return len(self.labels)

    @property
    def counts(self) -> Counts:
        """Images of each class."""
        return np.bincount(self.labels, minlength=self.classes)

    def scores(self, weights: Counts) -> Floats:
        """As `Outcome`."""
        right = (self.answers == self.labels).astype(np.float64)
        truth = np.eye(self.classes)[self.labels]  # (N, L)
        there, found = weights @ truth, weights @ (truth * right[:, None])
        recall = np.divide(found, there, out=np.full(there.shape, np.nan), where=there > 0)
        return np.concatenate([(weights @ right / weights.sum(axis=1))[:, None], recall], axis=1)


class DetectOutcome(_Images):
    """Average precision at an overlap of 0.5, as `visionkit.evaluate.detect` counts it: the mean, and of each class.

    Args:
        answers: of each image boxes (K, 4), confidence (K,) and class ids (K,).
        truths: of each image boxes (M, 4), class ids (M,) and whether they are ignored (M,).
        classes: L.
    """

    def __init__(
        self,
        answers: Sequence[tuple[Any, Any, Any]],
        truths: Sequence[tuple[Any, Any, Any]],
        classes: int,
        *,
        threshold: float = 0.5,
    ) -> None:
        self.positives = np.zeros((classes, len(truths)), np.int64)
        self._found: list[tuple[Counts, Counts, Floats]] = []  # of each class: image, hit, confidence, the surest first
        for class_id in range(classes):
            parts: list[tuple[Any, Any, Any]] = []
            for place, (answer, truth) in enumerate(zip(answers, truths, strict=True)):
                own, there = np.asarray(answer[2]) == class_id, np.asarray(truth[1]) == class_id
                skip, sure = np.asarray(truth[2], bool)[there], np.asarray(answer[1], np.float64)[own]
                hits = match_answers(
                    box_overlaps(np.asarray(answer[0])[own], np.asarray(truth[0])[there]), sure, skip, threshold
                )
                self.positives[class_id, place] = int((~skip).sum())
                parts.append((np.full(len(hits), place), hits, sure))
            places, hits, sure = (np.concatenate(column) for column in zip(*parts, strict=True))
            kept = hits != IGNORED
            places, hits, sure = places[kept], hits[kept], sure[kept]
            order = np.argsort(-sure, kind="stable")
            self._found.append((places[order], hits[order], sure[order]))

    @property
    def images(self) -> int:
        """N."""
        return self.positives.shape[1]

    @property
    def counts(self) -> Counts:
        """Objects of each class."""
        return np.asarray(self.positives.sum(axis=1), np.int64)

    def scores(self, weights: Counts) -> Floats:
        """As `Outcome`."""
        found = np.array([[self._ap(class_id, draw) for class_id in range(len(self._found))] for draw in weights])
        return np.array([[mean_of_there(row), *row] for row in found])

    def _ap(self, class_id: int, draw: Counts) -> float:
        places, hits, sure = self._found[class_id]
        times = draw[places]
        positives = int(self.positives[class_id] @ draw)
        return average_precision(curve_of(np.repeat(hits, times), np.repeat(sure, times), positives))


@dataclass(frozen=True)
class SegmentOutcome(_Images):
    """Mean IU, and intersection over union of each class.

    Args:
        confusions: int64 (N, L, L) of each image, pixels; rows are true classes.
    """

    confusions: Counts

    @property
    def images(self) -> int:
        """N."""
        return len(self.confusions)

    @property
    def counts(self) -> Counts:
        """Pixels of each class."""
        return np.asarray(self.confusions.sum(axis=(0, 2)), np.int64)

    def scores(self, weights: Counts) -> Floats:
        """As `Outcome`."""
        flat = self.confusions.reshape(self.images, -1).astype(np.float64)  # exact: below 2^53 pixels
        size = self.confusions.shape[1]
        rows = [class_iou((draw @ flat).astype(np.int64).reshape(size, size)) for draw in weights.astype(np.float64)]
        return np.array([[mean_of_there(row), *row] for row in rows])


class TrackOutcome:
    """Success of a tracker: the mean over the sequences, and of each, which is the mean over its frames.

    Sequences are drawn with replacement, and within each one stretches of frames (Davison, Hinkley, Bootstrap methods
    and their application, 1997, 3.8 and 8.2.3), as many frames as it has. Of a single sequence the interval is that of
    its frames; it tells nothing of other sequences.

    Args:
        success: of each sequence float64 (F,), a frame's share of the thresholds that its overlap exceeds; empty where
            the sequence was not measured.
    """

    def __init__(self, success: Sequence[Floats]) -> None:
        self.success = [np.asarray(one, np.float64) for one in success]

    @property
    def images(self) -> int:
        """How many sequences were measured."""
        return sum(len(one) > 0 for one in self.success)

    @property
    def counts(self) -> Counts:
        """Frames of each sequence."""
        return np.array([len(one) for one in self.success], np.int64)

    def whole(self) -> Counts:
        """As `Outcome`; N are all frames."""
        return np.ones((1, int(self.counts.sum())), np.int64)

    def draws(self, rng: np.random.Generator, count: int) -> Counts:
        """As `Outcome`."""
        there = np.flatnonzero(self.counts)
        starts = np.concatenate([[0], np.cumsum(self.counts)])
        found = np.zeros((count, int(starts[-1])), np.int64)
        for row in found:
            for place in rng.choice(there, len(there)):
                length = int(self.counts[place])
                begins = rng.integers(0, length, -(-length // STRETCH))
                frames = (begins[:, None] + np.arange(min(STRETCH, length))).ravel()[:length] % length
                row[starts[place] : starts[place + 1]] += np.bincount(frames, minlength=length)
        return found

    def scores(self, weights: Counts) -> Floats:
        """As `Outcome`; a sequence that is drawn twice counts twice."""
        starts = np.concatenate([[0], np.cumsum(self.counts)])
        sums, times = np.zeros((2, len(weights), len(self.success)))
        for place, success in enumerate(self.success):
            own = weights[:, starts[place] : starts[place + 1]]
            if len(success):
                sums[:, place] = own @ success / len(success)
                times[:, place] = own.sum(axis=1) / len(success)
        each = np.divide(sums, times, out=np.full(sums.shape, np.nan), where=times > 0)
        return np.concatenate([(sums.sum(axis=1) / times.sum(axis=1))[:, None], each], axis=1)


@dataclass(frozen=True)
class Paired:
    """Two models on the same images.

    Args:
        before, after: the metric, fractions, with its 95 % interval.
        drop: points (hundredths) that it is worse by, with the 95 % interval of the difference.
        classes: of each class before, after and drop; nan where it is not there.
    """

    before: Interval
    after: Interval
    drop: Interval
    classes: tuple[tuple[float, float, Interval], ...]


def compare_paired(
    before: Outcome, after: Outcome, *, draws: int = DRAWS, level: float = 0.95, seed: int = 0
) -> Paired:
    """How much worse `after` is than `before`; a class that a draw does not hold does not count in that draw.

    Raises:
        ValueError: they were not measured on the same images.
    """
    if before.images != after.images or not np.array_equal(before.counts, after.counts):
        raise ValueError(f"Both must be of the same images. Received: {before.images} and {after.images}.")
    ones = before.whole()
    first, last = before.scores(ones)[0], after.scores(ones)[0]
    rng = np.random.default_rng(seed)
    some = max(1, min(draws, AT_ONCE // ones.size))
    firsts, lasts = [], []
    for start in range(0, draws, some):
        weights = before.draws(rng, min(some, draws - start))
        firsts.append(before.scores(weights))
        lasts.append(after.scores(weights))
    one, other = np.concatenate(firsts), np.concatenate(lasts)
    falls = 100 * (one - other)
    drops = [_interval(100 * (a - b), falls[:, k], level) for k, (a, b) in enumerate(zip(first, last, strict=True))]
    if isinstance(before, ClassifyOutcome) and isinstance(after, ClassifyOutcome):
        drops = [_widened(drop, *pair) for drop, pair in zip(drops, _pairs(before, after, level), strict=True)]
    return Paired(
        _own(before, _interval(first[0], one[:, 0], level)),
        _own(after, _interval(last[0], other[:, 0], level)),
        drops[0],
        tuple((float(a), float(b), drop) for a, b, drop in zip(first[1:], last[1:], drops[1:], strict=True)),
    )


def _own(outcome: Outcome, interval: Interval) -> Interval:
    """The interval of one model alone: Wilson's where all or none are right, of which drawing again tells nothing."""
    if isinstance(outcome, ClassifyOutcome) and interval.value in (0.0, 1.0):
        return Interval(interval.value, *wilson_interval(outcome.answers == outcome.labels))
    return interval


def agresti_min_interval(lost: int, gained: int, count: int, *, level: float = 0.95) -> tuple[float, float]:
    """Of `count` answers those that only one of two models has right: the interval of the difference in accuracy.

    Agresti, Min, Simple improved confidence intervals for comparing matched proportions, Statistics in Medicine 24,
    2005: Wald's interval after half an answer was added to each of the four cells.

    Args:
        lost: right before, wrong after; `gained`: the other way round.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    total, apart = count + 2, lost - gained
    half = z * math.sqrt(lost + gained + 1 - apart * apart / total) / total
    return apart / total - half, apart / total + half


def _pairs(before: ClassifyOutcome, after: ClassifyOutcome, level: float) -> list[tuple[float, float]]:
    """Of the metric and of each class the edges in points; nan where there are no images."""
    one, other = before.answers == before.labels, after.answers == after.labels
    every = [np.ones(before.images, bool), *(before.labels == place for place in range(before.classes))]
    found = []
    for own in every:
        lost, gained, count = int((one & ~other & own).sum()), int((other & ~one & own).sum()), int(own.sum())
        edges = agresti_min_interval(lost, gained, count, level=level) if count else (math.nan, math.nan)
        found.append((100 * edges[0], 100 * edges[1]))
    return found


def _widened(drop: Interval, low: float, high: float) -> Interval:
    if math.isnan(low) or math.isnan(drop.low):
        return drop
    return Interval(drop.value, min(drop.low, low), max(drop.high, high))


def _interval(value: float, drawn: Floats, level: float) -> Interval:
    there = drawn[np.isfinite(drawn)]
    if not len(there) or not np.isfinite(value):
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(there, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))
