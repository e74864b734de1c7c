"""The page of a verdict: one HTML file that needs nothing else, runs nothing and fetches nothing; and its JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from visionkit.compress.report_charts import STYLE
from visionkit.compress.report_data import Disagreement, QuantizeReport
from visionkit.compress.report_parts import (
    card_html,
    charts_html,
    classes_html,
    headline_html,
    how_html,
    layers_html,
    overview_html,
    pictures_html,
    rescue_html,
)
from visionkit.train.page import page, settings

__all__ = ["render_quantize_report", "report_table"]


def render_quantize_report(report: QuantizeReport) -> str:
    """The report as HTML with inline pictures; every name in it is escaped."""
    built = [one for one in report.variants if one.failed is None]
    sections = [
        headline_html(report),
        overview_html(report),
        *([charts_html(report, built)] if built else []),
        card_html(report, report.reference),
        *(card_html(report, one, ruling) for one, ruling in zip(report.variants, report.decision.rulings, strict=True)),
        classes_html(report, built),
        pictures_html(report),
        layers_html(report),
        rescue_html(report),
        how_html(report),
        f"<h2>Settings</h2>{settings(report.command, report.settings, report.notes)}",
    ]
    return page(report.title, [section for section in sections if section], style=STYLE)


def report_table(report: QuantizeReport) -> dict[str, Any]:
    """The same as a table for JSON; what is nan becomes None, pictures are left out."""
    return {
        "title": report.title,
        "ship": report.decision.ship,
        "sentence": report.decision.sentence,
        "metric": report.metric,
        "bounds": _plain(asdict(report.bounds)),
        "reference": _plain(asdict(report.reference)),
        "variants": [
            {**_plain(asdict(one)), "verdict": ruling.verdict, "more_images": ruling.more_images}
            | {"reasons": [asdict(reason) for reason in ruling.reasons]}
            for one, ruling in zip(report.variants, report.decision.rulings, strict=True)
        ],
        "layers": [_plain(asdict(layer)) for layer in report.layers],
        "layers_of": report.ranked,
        "rescue": [_plain(asdict(step)) for step in report.rescue],
        "disagreements": _told(report.pictures),
        "disagreements_unlabelled": _told(report.unlabelled),
        "settings": {key: _plain(value) for key, value in report.settings.items()},
        "notes": list(report.notes),
        "command": report.command,
    }


def _told(pictures: Mapping[str, Sequence[Disagreement]]) -> dict[str, list[dict[str, Any]]]:
    return {
        kind: [{"name": one.name, "float": one.before, kind: one.after, "truth": one.truth} for one in found]
        for kind, found in pictures.items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value if isinstance(value, int | str | bool | None) else str(value)
