"""An evaluation of a segmenter as a page: each class, the CRF's gain by iteration, IU by width around the edges."""

from __future__ import annotations

import math
from collections.abc import Sequence

from visionkit.evaluate.segment import Measured, SegmentEvaluation
from visionkit.train.charts import curves
from visionkit.train.page import page, percent, settings, table, text

__all__ = ["evaluation_charts", "render_evaluation"]


def evaluation_charts(result: SegmentEvaluation) -> str:
    """The charts of an evaluation as SVG; empty where there is neither a CRF nor a measure of edges."""
    parts = []
    if len(result.answers) > 1:
        gains = [one.scores.mean_iu for one in result.answers]
        spread = max(max(gains) - min(gains), 0.01)
        parts.append(
            curves(
                "mean IU by iteration of the CRF",
                {"mean IU after so many CRF iterations": gains},
                bottom=max(0.0, min(gains) - spread),
                top=min(1.0, max(gains) + spread),
                ticks=range(len(gains)),
            )
        )
    if result.widths:
        series = {"network": result.answers[0].band_iou}
        if len(result.answers) > 1:
            series["with CRF"] = result.answers[-1].band_iou
        series = {f"{name}, mean IU by band width": values for name, values in series.items()}
        numbers = [value for values in series.values() for value in values if not math.isnan(value)]
        whole = {name: [0.0 if math.isnan(v) else v for v in values] for name, values in series.items()}
        parts.append(
            curves(
                "mean IU within so many pixels of an edge",
                whole,
                top=min(1.0, max(numbers, default=1.0) * 1.1),
                ticks=[f"{width:g}" for width in result.widths],
            )
        )
    return f'<div class="charts">{"".join(parts)}</div>' if parts else ""


def render_evaluation(result: SegmentEvaluation, labels: Sequence[str], title: str, command: str) -> str:
    """The evaluation as one HTML file that fetches nothing; every name in it is escaped."""
    first, last = result.answers[0].scores, result.answers[-1].scores
    refined = len(result.answers) > 1
    heads = ["class", "of the pixels", "accuracy", "IU", *(["IU with CRF"] if refined else [])]
    kinds = [result.answers[0], *([result.answers[-1]] if refined else [])]
    edges = [one.class_boundary_f for one in kinds] if result.widths else []
    heads += ["boundary F", "boundary F with CRF"][: len(edges)]
    total = max(1, int(first.confusion.sum()))
    rows = [
        [
            text(label),
            percent(first.confusion[k].sum() / total),
            percent(first.accuracy[k]),
            percent(first.iu[k]),
            *([percent(last.iu[k])] if refined else []),
            *(percent(scores[k]) for scores in edges),
        ]
        for k, label in enumerate(labels)
    ]
    after = f"; {last.mean_iu:.1%} after {len(result.answers) - 1} iterations of the CRF" if refined else ""
    sections = [
        f'<p class="big">Mean IU {first.mean_iu:.1%}{after}, {len(result.samples)} images.</p>',
        _measures(kinds, edges=bool(edges)),
        evaluation_charts(result),
        f"<h2>Each class</h2>{table(heads, rows, numbers=len(heads) - 1)}",
        f"<h2>How</h2>{settings(command, {'images': len(result.samples)}, [p.reason for p in result.problems])}",
    ]
    return page(title, sections)


def _measures(kinds: Sequence[Measured], *, edges: bool) -> str:
    """Each measure of the network and, behind it, of the CRF."""
    rows = [
        ["pixel accuracy", *(percent(one.scores.pixel_accuracy) for one in kinds)],
        ["mean accuracy", *(percent(one.scores.mean_accuracy) for one in kinds)],
        ["mean IU", *(percent(one.scores.mean_iu) for one in kinds)],
        ["frequency-weighted IU", *(percent(one.scores.weighted_iu) for one in kinds)],
    ]
    if edges:
        rows.append(["boundary F-score", *(percent(one.boundary_f) for one in kinds)])
    return table(["", *["network", "with CRF"][: len(kinds)]], rows, numbers=len(kinds))
