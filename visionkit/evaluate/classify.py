"""A classifier measured on class folders, through the same task that users call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError, ModelError
from visionkit.evaluate.classify_metrics import ClassifyScores, score_classifier
from visionkit.structures import Classification
from visionkit.train.class_folders import ClassFolders, Problem, Sample
from visionkit.train.class_images import load_image
from visionkit.train.distort import Distortion

__all__ = ["ClassifyEvaluation", "evaluate_classifier", "probabilities"]

Image = npt.NDArray[np.uint8]
Classify = Callable[[list[Image]], Sequence[Classification]]


@dataclass(frozen=True)
class ClassifyEvaluation:
    """What a classifier answered on the samples that could be decoded.

    Args:
        samples: those samples, in order; `probs` float32 (N, L) and `labels` int64 (N,) belong to them.
        images_per_s: through the task (resizing, network, sorting), without reading and decoding files.
        problems: damaged files, which are not counted in the scores.
    """

    samples: list[Sample]
    probs: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    scores: ClassifyScores
    images_per_s: float
    problems: list[Problem] = field(default_factory=list)


def evaluate_classifier(
    classify: Classify,
    folders: ClassFolders,
    samples: Sequence[Sample],
    *,
    batch: int = 1,
    distort: Distortion | None = None,
    progress: Callable[[int], None] | None = None,
) -> ClassifyEvaluation:
    """Measure `classify` on labelled samples; class ids of both must mean the same (`read_class_folders(classes=…)`).

    Args:
        classify: a task of images uint8 (H, W, 3) BGR to their `Classification`.
        batch: images given to it at once.
        distort: put each image down crooked first, as its name and the distortion's seed have it.
        progress: is told how many samples are done.

    Raises:
        InputError: `no-images`; there are no samples, or not one of them can be decoded.
        ModelError: `model-unfit`; the classifier answers with an id that is no class.
    """
    count = len(folders.classes)
    problems: list[Problem] = []
    done: list[Sample] = []
    rows: list[npt.NDArray[np.float32]] = []
    seconds, timed = 0.0, 0
    for chunk in _decoded(folders, samples, batch, problems, distort):
        started = time.perf_counter()
        answers = classify([image for _, image in chunk])
        if rows:  # the first call warms up
            seconds += time.perf_counter() - started
            timed += len(chunk)
        done += [sample for sample, _ in chunk]
        rows += [probabilities(answer, count) for answer in answers]
        if progress:
            progress(len(done) + len(problems))
    if not rows:
        reason = f": {problems[0].reason}" if problems else ""
        raise InputError("no-images", f"There is no image to measure on among {len(samples)} samples{reason}.")
    probs, labels = np.stack(rows), np.array([sample.class_id for sample in done], np.int64)
    rate = timed / seconds if seconds > 0 else float("nan")
    return ClassifyEvaluation(done, probs, labels, score_classifier(probs, labels), rate, problems)


def _decoded(
    folders: ClassFolders,
    samples: Sequence[Sample],
    batch: int,
    problems: list[Problem],
    distort: Distortion | None = None,
) -> Iterator[list[tuple[Sample, Image]]]:
    """The samples with their images, `batch` at a time; damaged ones go to `problems`."""
    chunk: list[tuple[Sample, Image]] = []
    for sample in samples:
        try:
            chunk.append((sample, load_image(folders, sample, distort)[0]))
        except InputError as error:
            problems.append(Problem("damaged", sample.name, error.message))
        if len(chunk) == batch:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def probabilities(answer: Classification, count: int) -> npt.NDArray[np.float32]:
    """Confidences by class id, float32 (count,); 0 for classes that the answer leaves out."""
    if len(answer) and (answer.class_id.min() < 0 or answer.class_id.max() >= count):
        raise ModelError(
            "model-unfit",
            f"The model answers with class {int(answer.class_id.max())}, and there are {count} classes. Its card's "
            "labels do not fit its network.",
        )
    row = np.zeros(count, np.float32)
    row[answer.class_id] = answer.confidence
    return row
