"""The report of a training: one HTML file that needs nothing else, runs nothing and fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.io import safe_text
from visionkit.train.charts import learning, matrix
from visionkit.train.page import data_uri, page, percent, settings, table, text

__all__ = ["Mistake", "TrainingReport", "render_report"]

CHARTS = {"accuracy": {"training accuracy": "accuracy", "validation": "val_accuracy"}}
MATRIX_CLASSES = 40  # beyond, the pairs most often confused are listed
PAIRS, SIDE = 30, 112


@dataclass(frozen=True)
class Mistake:
    """One wrong answer: the image (uint8 (H, W, 3) BGR) or None where it cannot be shown any more."""

    name: str
    truth: str
    answer: str
    confidence: float
    image: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class TrainingReport:
    """What the report shows.

    Args:
        history: rows of the loop, one an epoch; `best` is the epoch whose weights were kept.
        confusion: int64 (L, L) of the validation images; rows are true classes.
        precision, recall: float64 (L,), nan where there is nothing to divide by.
        settings: name and value of what was chosen; `notes` what was found wrong with the data.
    """

    title: str
    labels: Sequence[str]
    history: Sequence[Mapping[str, Any]]
    best: int
    confusion: npt.NDArray[np.int64]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    mistakes: Sequence[Mistake]
    settings: Mapping[str, object]
    command: str
    notes: Sequence[str] = field(default_factory=list)


def render_report(report: TrainingReport) -> str:
    """The report as HTML with inline pictures; every name in it is escaped."""
    sections = [
        _headline(report),
        f'<h2>Learning</h2><div class="charts">{learning(report.history, report.best, CHARTS)}</div>',
        f"<h2>What was taken for what</h2><p>Rows are true classes, columns answers, of the validation images.</p>"
        f'<div class="wide">{_confusion(report)}</div>',
        f"<h2>Each class</h2>{_classes(report)}",
        f"<h2>The surest mistakes</h2>{_mistakes(report.mistakes)}",
        f"<h2>Settings</h2>{settings(report.command, report.settings, report.notes)}",
    ]
    return page(report.title, sections)


def _headline(report: TrainingReport) -> str:
    row = report.history[report.best - 1]
    right, count = int(np.trace(report.confusion)), int(report.confusion.sum())
    return (
        f'<p class="big">{right / count:.1%} of {count} validation images right ({count - right} wrong), '
        f"epoch {report.best} of {len(report.history)}, loss {row['val_loss']:.3f}.</p>"
        "<p>The epoch was chosen on these images, so the number is a little too good; images that training never saw "
        "tell more: <code>visionkit eval classify</code>.</p>"
    )


def _confusion(report: TrainingReport) -> str:
    if len(report.labels) <= MATRIX_CLASSES:
        return matrix(report.confusion, [safe_text(label) for label in report.labels])
    wrong = report.confusion * (1 - np.eye(len(report.labels), dtype=np.int64))
    order = np.argsort(-wrong, axis=None)[:PAIRS]
    pairs = [(*np.unravel_index(k, wrong.shape), wrong.flat[k]) for k in order if wrong.flat[k]]
    rows = [[text(report.labels[a]), text(report.labels[b]), str(count)] for a, b, count in pairs]
    return table(["true class", "taken for", "images"], rows, numbers=1)


def _classes(report: TrainingReport) -> str:
    rows = [
        [text(label), str(int(report.confusion[k].sum())), percent(report.recall[k]), percent(report.precision[k])]
        for k, label in enumerate(report.labels)
    ]
    return table(["class", "images", "recall", "precision"], rows, numbers=3)


def _mistakes(mistakes: Sequence[Mistake]) -> str:
    if not mistakes:
        return "<p>None.</p>"
    return '<div class="mistakes">' + "".join(_figure(mistake) for mistake in mistakes) + "</div>"


def _figure(mistake: Mistake) -> str:
    picture = "" if mistake.image is None else f'<img alt="" src="{data_uri(mistake.image, 2 * SIDE)}">'
    told = f"<b>{text(mistake.answer)}</b> {mistake.confidence:.0%}, truly <b>{text(mistake.truth)}</b>"
    return f"<figure>{picture}<figcaption>{told}<br>{text(mistake.name)}</figcaption></figure>"
