"""A detector measured on images and boxes, through the same task that users call, or from its stored rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError
from visionkit.evaluate.detect_metrics import (
    DetectScores,
    coco_library,
    coco_summary,
    score_detections,
)
from visionkit.structures import Detections
from visionkit.train.class_folders import Problem
from visionkit.train.detection_folders import DetectionSample
from visionkit.train.detection_images import DetectMaterial

__all__ = ["DetectEvaluation", "detections_of_rows", "evaluate_answers", "evaluate_detector"]

Image = npt.NDArray[np.uint8]
CONFIDENCE = 0.01  # of answers that are measured: far below what a user wants to see


class Detects(Protocol):
    """A detector as `visionkit.tasks.Detector` is one."""

    def __call__(self, images: list[Image], *, conf: float | None = None) -> list[Detections]:
        """What is in each image."""


@dataclass(frozen=True)
class DetectEvaluation:
    """What a detector answered on the samples that could be used.

    Args:
        answers: of each sample, all that reach the lowest confidence.
        scores: at an overlap of 0.5; `strict` at 0.75.
        coco: the twelve numbers, or None where no library is installed.
        seconds: per image; nan where there is none.
        problems: samples that could not be used, which are not counted.
    """

    samples: list[DetectionSample]
    answers: list[Detections]
    labels: tuple[str, ...]
    scores: DetectScores
    strict: DetectScores
    coco: dict[str, float | None] | None
    seconds: float = float("nan")
    problems: list[Problem] = field(default_factory=list)


def evaluate_detector(
    detector: Detects,
    samples: Sequence[DetectionSample],
    labels: Sequence[str],
    *,
    conf: float = CONFIDENCE,
    coco: bool | None = None,
    material: DetectMaterial | None = None,
    progress: Callable[[int], None] | None = None,
) -> DetectEvaluation:
    """Measure a detector on images and boxes whose class ids are places in `labels`.

    Args:
        conf: the least confidence of answers that count.
        coco: COCO's numbers as well; None is where a library for them is installed.
        progress: is told how many samples are done.

    Raises:
        InputError: `no-boxes`; not one sample can be used.
        UsageError: `library-missing`; `coco` is asked for and there is none.
    """
    material = material or DetectMaterial(cache_bytes=0)
    done: list[DetectionSample] = []
    answers: list[Detections] = []
    problems: list[Problem] = []
    spent = 0.0
    for number, sample in enumerate(samples, 1):
        try:
            image = material(sample)
        except InputError as error:
            problems.append(Problem(error.slug, sample.name, error.message))
            continue
        started = time.perf_counter()
        answers.append(detector([image], conf=conf)[0])
        spent += time.perf_counter() - started if done else 0.0  # the first call compiles
        done.append(sample)
        if progress:
            progress(number)
    if not done:
        reason = f": {problems[0].reason}" if problems else ""
        raise InputError("no-boxes", f"There is no image to measure on among {len(samples)} samples{reason}.")
    seconds = spent / (len(done) - 1) if len(done) > 1 else float("nan")
    return evaluate_answers(done, answers, labels, coco=coco, seconds=seconds, problems=problems)


def evaluate_answers(
    samples: Sequence[DetectionSample],
    answers: Sequence[Detections],
    labels: Sequence[str],
    *,
    coco: bool | None = None,
    seconds: float = float("nan"),
    problems: Sequence[Problem] = (),
) -> DetectEvaluation:
    """All measures of answers that are there already; arguments as of `evaluate_detector`."""
    wanted = coco_library() is not None if coco is None else coco
    return DetectEvaluation(
        list(samples),
        list(answers),
        tuple(labels),
        score_detections(samples, answers, len(labels)),
        score_detections(samples, answers, len(labels), threshold=0.75),
        coco_summary(samples, answers, labels) if wanted else None,
        seconds,
        list(problems),
    )


def detections_of_rows(
    rows: Iterable[Mapping[str, Any]], samples: Sequence[DetectionSample], labels: Sequence[str]
) -> tuple[list[DetectionSample], list[Detections], list[Problem]]:
    """Samples with an answer in the rows of a `results.jsonl`, the answers, and what does not fit.

    A row belongs to the sample whose name, or whose file name, is the row's `source`. Classes go by name.

    Raises:
        InputError: `no-boxes` where no row belongs to a sample.
    """
    by_name = {sample.name: sample for sample in samples} | {
        PurePosixPath(sample.name).name: sample for sample in samples
    }
    ids = {name: k for k, name in enumerate(labels)}
    found: dict[str, Detections] = {}
    problems: list[Problem] = []
    for row in rows:
        source = str(row.get("source", ""))
        sample = by_name.get(source) or by_name.get(Path(source).name)
        if sample is None or "detections" not in row:
            reason = "is no image of the data" if sample is None else "has no detections"
            problems.append(Problem("row-unknown", source or "?", reason))
            continue
        listed = [one for one in row["detections"] if one.get("class_name") in ids]
        if len(listed) < len(row["detections"]):
            problems.append(Problem("class-unknown", source, "has detections of classes that the data does not have"))
        found[sample.name] = Detections(
            np.array([one["xyxy"] for one in listed], np.float32).reshape(-1, 4),
            np.array([one["confidence"] for one in listed], np.float32),
            np.array([ids[one["class_name"]] for one in listed], np.int64),
        )
    chosen = [sample for sample in samples if sample.name in found]
    if not chosen:
        raise InputError("no-boxes", "Not one row of the results belongs to an image of the data.")
    problems += [
        Problem("unanswered", sample.name, "has no row in the results; it is not counted")
        for sample in samples
        if sample.name not in found
    ]
    return chosen, [found[sample.name] for sample in chosen], problems
