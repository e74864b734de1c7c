"""Measures of detectors: average precision as VOC counts it, and COCO's twelve numbers.

Everingham et al., The PASCAL Visual Object Classes challenge, IJCV 2010, section 4.2; Lin et al., Microsoft COCO, ECCV
2014. The twelve numbers come from faster-coco-eval or pycocotools (extra `eval`), whichever is installed.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import UsageError
from visionkit.geometry.average_precision import (
    PrecisionRecall,
    average_precision,
    box_overlaps,
    class_curves,
    match_answers,
    precision_recall,
)
from visionkit.structures import Detections
from visionkit.train.detection_folders import DetectionSample

__all__ = [
    "COCO_NAMES",
    "COCO_THRESHOLDS",
    "DetectScores",
    "PrecisionRecall",
    "average_precision",
    "box_overlaps",
    "class_curves",
    "coco_library",
    "coco_summary",
    "match_answers",
    "precision_recall",
    "score_detections",
]

COCO_THRESHOLDS = tuple(0.5 + 0.05 * k for k in range(10))
COCO_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
LIBRARIES = (("faster_coco_eval", "COCO", "COCOeval_faster"), ("pycocotools", "coco.COCO", "cocoeval.COCOeval"))


@dataclass(frozen=True)
class DetectScores:
    """What a detector scores at one overlap.

    Args:
        curves: of each class.
        ap: float64 (L,), area under precision over recall (all points); nan where a class has no object.
        ap_11_point: float64 (L,), VOC 2007's.
    """

    curves: list[PrecisionRecall]
    ap: npt.NDArray[np.float64]
    ap_11_point: npt.NDArray[np.float64]

    @property
    def mean_ap(self) -> float:
        """The mean over the classes that have an object."""
        there = self.ap[~np.isnan(self.ap)]
        return float(there.mean()) if len(there) else float("nan")

    @property
    def mean_ap_11_point(self) -> float:
        """The same of VOC 2007's."""
        there = self.ap_11_point[~np.isnan(self.ap_11_point)]
        return float(there.mean()) if len(there) else float("nan")


def score_detections(
    samples: Sequence[DetectionSample], answers: Sequence[Detections], classes: int, *, threshold: float = 0.5
) -> DetectScores:
    """AP of each class at one overlap; difficult objects and crowds count neither as found nor as missed.

    Args:
        answers: of each sample; their class ids mean the same as the samples'.
    """
    if len(samples) != len(answers):
        raise ValueError(f"`answers` must be one for each sample. Received: {len(answers)} for {len(samples)}.")
    curves = class_curves(
        [(one.xyxy, one.confidence, one.class_id) for one in answers],
        [(sample.xyxy, sample.class_id, sample.difficult | sample.crowd) for sample in samples],
        classes,
        threshold=threshold,
    )
    return DetectScores(
        curves,
        np.array([average_precision(curve) for curve in curves]),
        np.array([average_precision(curve, method="11-point") for curve in curves]),
    )


def coco_library() -> str | None:
    """The installed library that counts as COCO does, or None."""
    return next((name for name, _, _ in LIBRARIES if importlib.util.find_spec(name) is not None), None)


def coco_summary(
    samples: Sequence[DetectionSample],
    answers: Sequence[Detections],
    classes: Sequence[str],
    *,
    library: str | None = None,
) -> dict[str, float | None]:
    """COCO's twelve numbers by `COCO_NAMES`; None where there is nothing to count (COCO's -1).

    Difficult objects are counted, as COCO knows no such thing; crowds are COCO's.

    Args:
        answers: of each sample; at most 100 of an image count.
        library: `faster_coco_eval` or `pycocotools`; without, the first that is installed.

    Raises:
        UsageError: `library-missing`.
    """
    name = library or coco_library()
    row = next((row for row in LIBRARIES if row[0] == name), None)
    if row is None or importlib.util.find_spec(row[0]) is None:
        raise UsageError(
            "library-missing",
            "COCO's numbers need faster-coco-eval (or pycocotools): pip install visionkit[eval].",
        )
    truth, results = _coco_tables(samples, answers, classes)
    if not results:  # the libraries refuse an empty list
        return dict.fromkeys(COCO_NAMES, 0.0 if truth["annotations"] else None)
    coco_class, evaluate_class = _found(row[0], row[1]), _found(row[0], row[2])
    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_class()
        coco.dataset = truth
        coco.createIndex()
        evaluation = evaluate_class(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = np.asarray(evaluation.stats, np.float64)[:12]
    return {key: None if value < 0 else float(value) for key, value in zip(COCO_NAMES, stats, strict=True)}


def _found(library: str, path: str) -> Any:
    *modules, name = path.split(".")
    return getattr(importlib.import_module(".".join([library, *modules])), name)


def _coco_tables(
    samples: Sequence[DetectionSample], answers: Sequence[Detections], classes: Sequence[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations and results as COCO's JSON would hold them; ids count from 1."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, (sample, answer) in enumerate(zip(samples, answers, strict=True), 1):
        images.append({"id": number, "height": sample.size_hw[0], "width": sample.size_hw[1], "file_name": sample.name})
        for box, class_id, crowd in zip(sample.xyxy.tolist(), sample.class_id, sample.crowd, strict=True):
            one = _coco_box(number, box, int(class_id))
            one |= {"id": len(annotations) + 1, "area": one["bbox"][2] * one["bbox"][3], "iscrowd": int(crowd)}
            annotations.append(one)
        for box, class_id, score in zip(answer.xyxy.tolist(), answer.class_id, answer.confidence, strict=True):
            results.append({**_coco_box(number, box, int(class_id)), "score": float(score)})
    categories = [{"id": k, "name": name} for k, name in enumerate(classes, 1)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}, results


def _coco_box(image: int, box: Sequence[float], class_id: int) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    return {"image_id": image, "category_id": class_id + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
