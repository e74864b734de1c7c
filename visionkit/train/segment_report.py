"""The report of a segmentation training: curves, each class's IU, and pictures, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.geometry.label_maps import class_iou, mean_of_there
from visionkit.io import safe_text
from visionkit.train.charts import learning, matrix
from visionkit.train.mask_folders import VOID
from visionkit.train.page import data_uri, page, percent, settings, table, text

__all__ = ["Picture", "SegmentReport", "class_colours", "render_segment_report"]

CHARTS = {
    "mean IU": {"validation mean IU": "val_mean_iu"},
    "accuracy": {"training accuracy": "accuracy", "validation": "val_accuracy"},
}
MATRIX_CLASSES = 40
LONGEST = 320  # pixels of a picture's longer side


@dataclass(frozen=True)
class Picture:
    """An image uint8 (H, W, 3) BGR, its truth and the answer, both uint8 (H, W)."""

    name: str
    image: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.uint8]
    answer: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SegmentReport:
    """What the report shows.

    Args:
        history: rows of the loop, one an epoch; `best` is the epoch whose weights were kept.
        confusion: int64 (L, L), pixels of the validation images; rows are true classes.
        extra: sections that are HTML already, such as charts of an evaluation.
        settings: name and value of what was chosen; `notes` what was found wrong with the data.
    """

    title: str
    labels: Sequence[str]
    history: Sequence[Mapping[str, Any]]
    best: int
    confusion: npt.NDArray[np.int64]
    pictures: Sequence[Picture]
    settings: Mapping[str, object]
    command: str
    notes: Sequence[str] = field(default_factory=list)
    extra: Sequence[str] = field(default_factory=list)


def render_segment_report(report: SegmentReport) -> str:
    """The report as HTML with inline pictures; every name in it is escaped."""
    sections = [
        _headline(report),
        f'<h2>Learning</h2><div class="charts">{learning(report.history, report.best, CHARTS)}</div>',
        f"<h2>Each class</h2>{_classes(report)}",
        *report.extra,
        "<h2>Image, truth, answer</h2><p>The first are the worst of the validation images, the last the best.</p>"
        f"{_key(report.labels)}{_pictures(report.pictures)}",
    ]
    if len(report.labels) <= MATRIX_CLASSES:
        shares = np.rint(1000 * report.confusion / np.maximum(report.confusion.sum(axis=1, keepdims=True), 1))
        names = [safe_text(label) for label in report.labels]
        sections.append(
            "<h2>What was taken for what</h2><p>Rows are true classes, columns answers; of a thousand pixels.</p>"
            f'<div class="wide">{matrix(shares.astype(np.int64), names)}</div>'
        )
    sections.append(f"<h2>Settings</h2>{settings(report.command, report.settings, report.notes)}")
    return page(report.title, sections)


def class_colours(count: int) -> npt.NDArray[np.uint8]:
    """Colours BGR uint8 (256, 3): of class k in row k as in PASCAL VOC's palette; void (255) is light grey there."""
    colours = np.zeros((256, 3), np.uint8)
    numbers = np.arange(256)
    for bit in range(8):
        for channel in range(3):
            colours[:, 2 - channel] |= (((numbers >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    colours[max(count, 1) :] = (224, 224, 224)
    return colours


def _headline(report: SegmentReport) -> str:
    row = report.history[report.best - 1]
    counts = report.confusion
    return (
        f'<p class="big">Mean IU {mean_of_there(class_iou(counts)):.1%}, '
        f"{np.trace(counts) / max(1, counts.sum()):.1%} of the validation pixels right, "
        f"epoch {report.best} of {len(report.history)}, loss {row['val_loss']:.3f}.</p>"
        "<p>The epoch was chosen on these images, so the numbers are a little too good; images that training never saw "
        "tell more: <code>visionkit eval segment</code>.</p>"
    )


def _classes(report: SegmentReport) -> str:
    counts = report.confusion
    there, iu = counts.sum(axis=1), class_iou(counts)
    rows = [
        [
            text(label),
            percent(there[k] / max(1, there.sum())),
            percent(counts[k, k] / there[k] if there[k] else float("nan")),
            percent(iu[k]),
        ]
        for k, label in enumerate(report.labels)
    ]
    return table(["class", "of the pixels", "accuracy", "IU"], rows, numbers=3)


def _key(labels: Sequence[str]) -> str:
    colours = class_colours(len(labels))
    parts = [
        f'<span><i style="background:rgb({colours[k][2]},{colours[k][1]},{colours[k][0]})"></i>{text(label)}</span>'
        for k, label in enumerate(labels)
    ]
    return f'<p class="key">{" ".join(parts)}</p>'


def _pictures(pictures: Sequence[Picture]) -> str:
    return '<div class="triples">' + "".join(_triple(picture) for picture in pictures) + "</div>"


def _triple(picture: Picture) -> str:
    known = 1 + int(max(picture.answer.max(initial=0), picture.truth[picture.truth != VOID].max(initial=0)))
    colours = class_colours(known)
    images = [
        data_uri(picture.image, LONGEST),
        data_uri(colours[picture.truth], LONGEST, lossless=True),
        data_uri(colours[picture.answer], LONGEST, lossless=True),
    ]
    shown = "".join(f'<img alt="" src="{image}">' for image in images)
    return f"<figure>{shown}<figcaption>{text(picture.name)}</figcaption></figure>"
