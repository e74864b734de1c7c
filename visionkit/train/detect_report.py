"""The report of a detector: learning curves, precision over recall, each class's AP, the worst images, in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.geometry.average_precision import (
    PrecisionRecall,
    average_precision,
    box_overlaps,
    match_answers,
)
from visionkit.io import safe_text
from visionkit.structures import Detections
from visionkit.train.charts import curves, learning
from visionkit.train.detection_folders import DetectionSample
from visionkit.train.page import data_uri, page, percent, settings, table, text

__all__ = [
    "DetectReport",
    "Picture",
    "class_table",
    "mean_ap",
    "picture_of",
    "pictures_html",
    "precision_charts",
    "render_detect_report",
    "worst_images",
]

LONGEST = 480  # pixels of a picture's longer side
CHARTS = 12  # classes with a chart of their own
POINTS = 101
MAP = {"mAP50": {"validation mAP50": "val_map50"}}
SURE = 0.25  # confidence from which a picture shows an answer
FOUND, FALSE, MISSED = (60, 160, 40), (50, 60, 220), (230, 150, 20)  # BGR
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """An image uint8 (H, W, 3) BGR with the boxes drawn, and what is wrong with them."""

    name: str
    image: Image
    false: int
    missed: int


@dataclass(frozen=True)
class DetectReport:
    """What the report of a training shows.

    Args:
        history: rows of the loop, one an epoch; `best` is the epoch whose weights were kept.
        curves: precision over recall of each class at an overlap of 0.5, of the validation images.
        settings: name and value of what was chosen; `notes` what was found wrong with the data.
    """

    title: str
    labels: Sequence[str]
    history: Sequence[Mapping[str, Any]]
    best: int
    curves: Sequence[PrecisionRecall]
    pictures: Sequence[Picture]
    settings: Mapping[str, object]
    command: str
    notes: Sequence[str] = field(default_factory=list)


def render_detect_report(report: DetectReport) -> str:
    """The report as HTML with inline pictures; every name in it is escaped."""
    row = report.history[report.best - 1]
    return page(
        report.title,
        [
            f'<p class="big">mAP50 {mean_ap(report.curves):.1%} on the validation images, epoch {report.best} of '
            f"{len(report.history)}, loss {row['val_loss']:.3f}.</p>"
            "<p>The epoch was chosen on these images, so the number is a little too good; images that training never "
            "saw tell more: <code>visionkit eval detect --part test</code>.</p>",
            f'<h2>Learning</h2><div class="charts">{learning(report.history, report.best, MAP)}</div>',
            f"<h2>Precision over recall</h2>{precision_charts(report.curves, report.labels)}",
            f"<h2>Each class</h2>{class_table(report.curves, report.labels)}",
            pictures_html(report.pictures),
            f"<h2>Settings</h2>{settings(report.command, report.settings, report.notes)}",
        ],
    )


def mean_ap(class_curves: Sequence[PrecisionRecall]) -> float:
    """The mean over the classes that are there; nan where none is."""
    found = [average_precision(curve) for curve in class_curves]
    there = [value for value in found if not np.isnan(value)]
    return float(np.mean(there)) if there else float("nan")


def precision_charts(class_curves: Sequence[PrecisionRecall], labels: Sequence[str]) -> str:
    """A chart for each class that is there, the first of them, of precision over recall."""
    parts: list[str] = []
    for label, curve in zip(labels, class_curves, strict=True):
        if not curve.positives or len(parts) == CHARTS:
            continue
        levels = np.linspace(0, 1, POINTS)
        falling = np.maximum.accumulate(curve.precision[::-1])[::-1]
        places = np.searchsorted(curve.recall, levels)
        line = np.where(places < len(falling), np.append(falling, 0.0)[np.minimum(places, len(falling))], 0.0)
        name = f"{safe_text(label, 24)}, AP50 {average_precision(curve):.3f}"
        ticks = [f"{level:.1f}" if k % 20 == 0 else "" for k, level in enumerate(levels)]
        parts.append(curves("precision over recall", {name: line.tolist()}, top=1.0, bottom=0.0, ticks=ticks))
    return f'<div class="charts">{"".join(parts)}</div>' if parts else "<p>No class has an object.</p>"


def class_table(class_curves: Sequence[PrecisionRecall], labels: Sequence[str]) -> str:
    """Objects, AP, and the confidence with the best F-score, of each class."""
    rows = []
    for label, curve in zip(labels, class_curves, strict=True):
        best = _best_point(curve)
        rows.append(
            [
                text(label),
                str(curve.positives),
                percent(average_precision(curve)),
                *([f"{best[0]:.2f}", percent(best[1]), percent(best[2])] if best else ["–", "–", "–"]),
            ]
        )
    return table(["class", "objects", "AP50", "best confidence", "precision there", "recall there"], rows, numbers=5)


def _best_point(curve: PrecisionRecall) -> tuple[float, float, float] | None:
    """Confidence, precision and recall where the F-score is highest."""
    if not curve.positives or not len(curve.recall):
        return None
    total = curve.precision + curve.recall
    score = np.divide(2 * curve.precision * curve.recall, total, out=np.zeros_like(total), where=total > 0)
    k = int(score.argmax())
    return float(curve.confidence[k]), float(curve.precision[k]), float(curve.recall[k])


def worst_images(
    samples: Sequence[DetectionSample], answers: Sequence[Detections], *, most: int = 12, sure: float = SURE
) -> list[tuple[int, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Places of the images with the most mistakes, the worst first, with what was wrong in them.

    Of each: whether an answer (of those at least `sure`) hits, and whether an object was found.
    """
    ranked = []
    for place, (sample, answer) in enumerate(zip(samples, answers, strict=True)):
        kept = answer[answer.confidence >= sure]
        right, found = _judged(sample, kept)
        wrong = int((~right).sum()) + int((~found).sum())
        ranked.append((wrong, place, right, found))
    ranked.sort(key=lambda one: (-one[0], one[1]))
    return [(place, right, found) for wrong, place, right, found in ranked[:most] if wrong]


def _judged(sample: DetectionSample, answer: Detections) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Of each answer whether it is right or does not count, of each object whether it is found or does not count."""
    ignored = sample.difficult | sample.crowd
    right, found = np.zeros(len(answer), bool), ignored.copy()
    for class_id in np.unique(np.concatenate([answer.class_id, sample.class_id])):
        own, there = np.flatnonzero(answer.class_id == class_id), np.flatnonzero(sample.class_id == class_id)
        overlaps = box_overlaps(answer.xyxy[own], sample.xyxy[there])
        hits = match_answers(overlaps, answer.confidence[own], ignored[there], 0.5)
        right[own] = hits != 0
        if len(there) and len(own):
            found[there[overlaps.argmax(axis=1)[hits == 1]]] = True
    return right, found


def picture_of(
    sample: DetectionSample, image: Image, answer: Detections, right: npt.ArrayLike, found: npt.ArrayLike
) -> Picture:
    """The image with right answers green, false ones red, and missed objects blue; answers as `worst_images` took."""
    kept = answer[answer.confidence >= SURE]
    scale = min(1.0, 2 * LONGEST / max(image.shape[:2]))
    size_wh = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    shown = np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
    thick = max(1, round(max(shown.shape[:2]) / 300))
    hit, seen = np.asarray(right, bool), np.asarray(found, bool)
    colours = [(box, MISSED) for box in sample.xyxy[~seen]]
    colours += [(box, FOUND if ok else FALSE) for box, ok in zip(kept.xyxy, hit, strict=True)]
    for box, colour in colours:
        x1, y1, x2, y2 = (round(float(value) * scale) for value in box)
        cv2.rectangle(shown, (x1, y1), (x2, y2), colour, thick)
    return Picture(sample.name, shown, int((~hit).sum()), int((~seen).sum()))


def pictures_html(pictures: Sequence[Picture]) -> str:
    """The section of the worst images."""
    if not pictures:
        return "<h2>The worst images</h2><p>None: everything was found, and nothing else.</p>"
    key = [("found", FOUND), ("false", FALSE), ("missed", MISSED)]
    swatches = " ".join(
        f'<span><i style="background:rgb({colour[2]},{colour[1]},{colour[0]})"></i>{name}</span>'
        for name, colour in key
    )
    figures = "".join(
        f'<figure style="width:{LONGEST}px;max-width:100%"><img style="width:100%;height:auto" alt="" '
        f'src="{data_uri(one.image, LONGEST)}"><figcaption>{text(one.name)}: {one.false} false, {one.missed} missed'
        "</figcaption></figure>"
        for one in pictures
    )
    return (
        f"<h2>The worst images</h2><p>Answers of a confidence of at least {SURE:g}.</p>"
        f'<p class="key">{swatches}</p><div class="mistakes">{figures}</div>'
    )
