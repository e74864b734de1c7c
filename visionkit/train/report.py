"""The report of a training: one HTML file that needs nothing else, runs nothing and fetches nothing."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.io import safe_text
from visionkit.train.charts import curves, matrix

__all__ = ["Mistake", "TrainingReport", "render_report"]

MATRIX_CLASSES = 40  # beyond, the pairs most often confused are listed
PAIRS, SIDE = 30, 112
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1000px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}
.charts{display:flex;flex-wrap:wrap;gap:1em}.charts svg{width:460px;max-width:100%}.wide{overflow-x:auto}
svg text{font:12px system-ui,sans-serif;fill:#555}svg .grid{stroke:#e5e5e5}svg .mark{stroke:#999;stroke-dasharray:4 3}
table{border-collapse:collapse}td,th{padding:.15em .8em .15em 0;text-align:left;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.mistakes{display:flex;flex-wrap:wrap;gap:1em}figure{margin:0;width:150px;font-size:13px;overflow-wrap:anywhere}
figure img{display:block;width:112px;height:112px;object-fit:contain;background:#f3f3f3}
code,pre{background:#f5f5f5;padding:.1em .3em;overflow-wrap:anywhere;white-space:pre-wrap}.big{font-size:1.3em}
"""


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
    title = _text(report.title)
    sections = [
        f"<h1>{title}</h1>",
        _headline(report),
        f'<h2>Learning</h2><div class="charts">{_curves(report)}</div>',
        f"<h2>What was taken for what</h2><p>Rows are true classes, columns answers, of the validation images.</p>"
        f'<div class="wide">{_confusion(report)}</div>',
        f"<h2>Each class</h2>{_classes(report)}",
        f"<h2>The surest mistakes</h2>{_mistakes(report.mistakes)}",
        f"<h2>Settings</h2>{_settings(report)}",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


def _text(value: object, limit: int = 500) -> str:
    """A value as text of the page: control characters shown, markup escaped."""
    return escape(safe_text(value, limit), quote=True)


def _headline(report: TrainingReport) -> str:
    row = report.history[report.best - 1]
    right, count = int(np.trace(report.confusion)), int(report.confusion.sum())
    return (
        f'<p class="big">{right / count:.1%} of {count} validation images right ({count - right} wrong), '
        f"epoch {report.best} of {len(report.history)}, loss {row['val_loss']:.3f}.</p>"
        "<p>The epoch was chosen on these images, so the number is a little too good; images that training never saw "
        "tell more: <code>visionkit eval classify</code>.</p>"
    )


def _curves(report: TrainingReport) -> str:
    def column(key: str) -> list[float]:
        return [float(row[key]) for row in report.history]

    accuracy = {"training accuracy": column("accuracy"), "validation": column("val_accuracy")}
    loss = {"training loss": column("loss"), "validation": column("val_loss")}
    rate = {"learning rate": column("learning_rate")}
    return (
        curves("accuracy by epoch", accuracy, mark=report.best, top=1.0)
        + curves("loss by epoch", loss, mark=report.best, top=_calm(loss))
        + curves("learning rate by epoch", rate)
    )


def _calm(series: Mapping[str, Sequence[float]]) -> float:
    """The upper end of a loss axis that one wild epoch does not flatten."""
    values = np.array([value for line in series.values() for value in line])
    return float(min(values.max(), 3 * np.quantile(values, 0.9))) * 1.05 or 1.0


def _confusion(report: TrainingReport) -> str:
    if len(report.labels) <= MATRIX_CLASSES:
        return matrix(report.confusion, [safe_text(label) for label in report.labels])
    wrong = report.confusion * (1 - np.eye(len(report.labels), dtype=np.int64))
    order = np.argsort(-wrong, axis=None)[:PAIRS]
    pairs = [(*np.unravel_index(k, wrong.shape), wrong.flat[k]) for k in order if wrong.flat[k]]
    rows = [[_text(report.labels[a]), _text(report.labels[b]), str(count)] for a, b, count in pairs]
    return _table(["true class", "taken for", "images"], rows, numbers=1)


def _classes(report: TrainingReport) -> str:
    rows = [
        [_text(label), str(int(report.confusion[k].sum())), _percent(report.recall[k]), _percent(report.precision[k])]
        for k, label in enumerate(report.labels)
    ]
    return _table(["class", "images", "recall", "precision"], rows, numbers=3)


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.1%}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> str:
    """A table of escaped cells; its last `numbers` columns hold numbers."""
    kinds = [""] * (len(heads) - numbers) + [' class="n"'] * numbers
    head = "".join(f"<th{kind}>{cell}</th>" for kind, cell in zip(kinds, heads, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _mistakes(mistakes: Sequence[Mistake]) -> str:
    if not mistakes:
        return "<p>None.</p>"
    return '<div class="mistakes">' + "".join(_figure(mistake) for mistake in mistakes) + "</div>"


def _figure(mistake: Mistake) -> str:
    picture = "" if mistake.image is None else f'<img alt="" src="{_data_uri(mistake.image)}">'
    told = f"<b>{_text(mistake.answer)}</b> {mistake.confidence:.0%}, truly <b>{_text(mistake.truth)}</b>"
    return f"<figure>{picture}<figcaption>{told}<br>{_text(mistake.name)}</figcaption></figure>"


def _data_uri(image: npt.NDArray[np.uint8]) -> str:
    scale = 2 * SIDE / max(image.shape[:2])
    if scale < 1:
        size_wh = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
        image = np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def _settings(report: TrainingReport) -> str:
    rows = [[_text(name), _text(value)] for name, value in report.settings.items()]
    notes = "".join(f"<li>{_text(note)}</li>" for note in report.notes)
    found = f"<h2>Noticed about the data</h2><ul>{notes}</ul>" if notes else ""
    return f"<pre>{_text(report.command, 4000)}</pre>{_table(['setting', 'value'], rows, numbers=0)}{found}"
