"""The sections of a verdict's page, as HTML; every name in them is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from visionkit.compress.report_charts import bars, forest
from visionkit.compress.report_data import Disagreement, QuantizeReport
from visionkit.compress.verdict import Bounds, ClassChange, Interval, Ruling, VariantFacts
from visionkit.train.page import data_uri, percent, table, text

__all__ = [
    "card_html",
    "charts_html",
    "classes_html",
    "headline_html",
    "how_html",
    "layers_html",
    "overview_html",
    "pictures_html",
    "rescue_html",
]

CLASSES, LAYERS = 40, 25
LONGEST, SHOWN = 320, 640  # from which width a picture is shown large; of its longer side, at most
WORDS = {"ship": "passes", "unsure": "cannot tell", "dont": "don’t"}
MARKS = {"ship": "✓", "unsure": "?", "dont": "✗"}


def headline_html(report: QuantizeReport) -> str:
    verdict = "ship" if report.decision.ship else _best_word(report.decision.rulings)
    return (
        f'<p class="verdict {verdict}"><b>{MARKS[verdict]}</b> <span>{text(report.decision.sentence, 2000)}</span></p>'
    )


def _best_word(rulings: Sequence[Ruling]) -> str:
    return "unsure" if any(ruling.verdict == "unsure" for ruling in rulings) else "dont"


def overview_html(report: QuantizeReport) -> str:
    """One row a variant: what a reader compares."""
    rows = [_row(report.reference, None, report)]
    rows += [_row(one, ruling, report) for one, ruling in zip(report.variants, report.decision.rulings, strict=True)]
    heads = ["variant", "verdict", text(report.metric), "points lost", "size", "zipped", _times_of(report), "p95"]
    return f'<div class="wide overview">{table(heads, rows, numbers=6)}</div>'


def _row(one: VariantFacts, ruling: Ruling | None, report: QuantizeReport) -> list[str]:
    name = f"<b>{text(one.kind)}</b>" if one.kind == report.decision.ship else text(one.kind)
    chip = "" if ruling is None else _chip(ruling.verdict, chosen=one.kind == report.decision.ship)
    if one.failed is not None or one.metric is None:
        return [name, chip, *["–"] * 6]
    lost = "" if ruling is None or one.drop is None else f"{_signed(one.drop.value)} {_within(one.drop)}"
    best = one.best if one.timings else None
    times = ["–", "–"] if best is None else [_ms(best.whole_ms), _ms(best.whole_p95_ms)]
    share = "" if ruling is None else f' <span class="dim">{one.size / report.reference.size:.0%}</span>'
    return [name, chip, percent(one.metric.value), lost, _size(one.size) + share, _size(one.zipped), *times]


def _times_of(report: QuantizeReport) -> str:
    return f"ms {report.nouns.a_shot}"


def _ms(value: float) -> str:
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _chip(verdict: str, *, chosen: bool = False) -> str:
    return f'<span class="chip {verdict}">{MARKS[verdict]} {"ship this" if chosen else WORDS[verdict]}</span>'


def _within(drop: Interval) -> str:
    return f'<span class="dim">({_signed(drop.low)} to {_signed(drop.high)})</span>'


def _signed(value: float) -> str:
    return f"{value:.1f}".replace("-0.0", "0.0").replace("-", "−")


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count < 1e7 else f"{count / 1e6:.1f} MB"


def charts_html(report: QuantizeReport, built: Sequence[VariantFacts]) -> str:
    drops = {one.kind: one.drop for one in built if one.drop is not None and math.isfinite(one.drop.low)}
    every = [report.reference, *built]
    verdicts = {ruling.kind: ruling.verdict for ruling in report.decision.rulings}
    parts = [forest(f"points of {report.metric} lost", drops, report.bounds.max_drop, verdicts)] if drops else []
    parts.append(bars("size, MB", {one.kind: one.size / 1e6 for one in every}))
    for place, timing in enumerate(report.reference.timings):
        times = {one.kind: one.timings[place].whole_ms for one in every if len(one.timings) > place}
        what = f"{_times_of(report)}, {timing.threads} thread{'s' * (timing.threads != 1)}"
        parts.append(bars(what, times, mark=report.bounds.latency_ms))
    return (
        '<h2>Beside each other</h2><p class="dim">Bars of the loss are its 95 % interval, from the difference on the '
        f'same {report.nouns.units}; the dashed line is the bound.</p><div class="charts">{"".join(parts)}</div>'
    )


def card_html(report: QuantizeReport, one: VariantFacts, ruling: Ruling | None = None) -> str:
    """All that was measured of one variant, and every reason; of float without a ruling."""
    told = () if ruling is None else ruling.reasons
    reasons = "".join(f"<li>{text(_capital(reason.text), 2000)}.</li>" for reason in told)
    notes = "".join(f'<li class="dim">{text(note, 2000)}</li>' for note in one.notes)
    listed = f"<ul>{reasons}{notes}</ul>" if reasons or notes else ""
    facts = "" if one.failed is not None else f"<dl>{''.join(_facts(report, one))}</dl>"
    chip = "" if ruling is None else _chip(ruling.verdict, chosen=one.kind == report.decision.ship)
    return f'<section class="card"><h2>{text(one.kind)} {chip}</h2>{listed}{facts}</section>'


def _facts(report: QuantizeReport, one: VariantFacts) -> list[str]:
    rows: list[tuple[str, str]] = []
    if one.metric is not None:
        rows.append(
            (report.metric, f"{percent(one.metric.value)} ({percent(one.metric.low)} to {percent(one.metric.high)})")
        )
    if one is not report.reference and one.drop is not None:
        rows.append(("points lost", f"{_signed(one.drop.value)} ({_signed(one.drop.low)} to {_signed(one.drop.high)})"))
    there = [change for change in one.classes if math.isfinite(change.drop.value)]
    if there and one is not report.reference:
        worst = max(there, key=lambda change: change.drop.value)
        change = f"{worst.name}: {percent(worst.before)} → {percent(worst.after)}"
        rows.append((f"worst {report.nouns.group}", change if worst.drop.value > 0 else "none loses anything"))
    if math.isfinite(one.agreement):
        rows.append((f"agreement with float on {one.frames} frames", percent(one.agreement)))
    rows.append(("size, zipped", f"{_size(one.size)}, {_size(one.zipped)}"))
    for timing in one.timings:
        named = [(part.name, part.ms, part.p95_ms) for part in timing.parts]
        if math.isfinite(timing.network_ms):
            named = [("network", timing.network_ms, timing.network_p95_ms)]
        network = "".join(f"; {part} {_ms(ms)}, p95 {_ms(p95)}" for part, ms, p95 in named)
        name = f"{_times_of(report)}, {timing.threads} thread{'s' * (timing.threads != 1)}"
        rows.append((name, f"{_ms(timing.whole_ms)}, p95 {_ms(timing.whole_p95_ms)}{network}"))
    return [f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in rows]


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def classes_html(report: QuantizeReport, built: Sequence[VariantFacts]) -> str:
    """Each class beside float's, the most damaged first."""
    measured = [one for one in built if one.classes]
    if not measured:
        return ""
    count = len(measured[0].classes)
    order = sorted(
        (k for k in range(count) if math.isfinite(measured[0].classes[k].before)),
        key=lambda k: -max(np.nan_to_num(one.classes[k].drop.value, nan=0.0) for one in measured),
    )
    rows = []
    for k in order[:CLASSES]:
        change = measured[0].classes[k]
        cells = [_change(report.bounds, one.classes[k]) for one in measured]
        rows.append([text(change.name), f"{change.count:,}", percent(change.before), *cells])
    more = (
        f'<p class="dim">{len(order) - CLASSES} more {report.nouns.groups} are in the JSON.</p>'
        if len(order) > CLASSES
        else ""
    )
    heads = [report.nouns.group, text(report.counted), "float32", *(text(one.kind) for one in measured)]
    return (
        f"<h2>Each {report.nouns.group}</h2><p>{text(_capital(report.class_metric))} with float, and the points that "
        f'each variant loses of it.</p><div class="wide">{table(heads, rows, numbers=2 + len(measured))}</div>{more}'
    )


def _change(bounds: Bounds, change: ClassChange) -> str:
    drop = change.drop
    if not math.isfinite(drop.value):
        return "–"
    sure = drop.low > min(bounds.max_drop, bounds.max_class_drop)
    kind = "dont" if drop.value > bounds.max_class_drop and sure else "unsure" if drop.value > bounds.max_drop else ""
    shown = _signed(drop.value)
    return f'<span class="chip {kind}">{shown}</span>' if kind else shown


def pictures_html(report: QuantizeReport) -> str:
    heads = ("The worst disagreements with float", "The worst on frames without labels")
    sections = []
    for head, pictures in zip(heads, (report.pictures, report.unlabelled), strict=True):
        parts = []
        for kind, found in pictures.items():
            if found:
                figures = "".join(_figure(kind, one) for one in found)
                parts.append(f'<h3>{text(kind)}</h3><div class="mistakes worst">{figures}</div>')
        sections += [f"<h2>{head}</h2>{''.join(parts)}"] if parts else []
    return "".join(sections)


def _figure(kind: str, one: Disagreement) -> str:
    truth = f"<br>truly <b>{text(one.truth)}</b>" if one.truth else ""
    told = f"float32: {text(one.before)}<br>{text(kind)}: <b>{text(one.after)}</b>{truth}"
    height, width = one.image.shape[:2]
    large = ' class="large"' if width >= min(LONGEST, 2 * height) else ""
    return (
        f'<figure{large}><img alt="" src="{data_uri(one.image, SHOWN)}"><figcaption>{told}<br>'
        f'<span class="dim">{text(one.name)}</span></figcaption></figure>'
    )


def layers_html(report: QuantizeReport) -> str:
    if not report.layers:
        return ""
    worst = report.layers[:LAYERS]
    rows = [[text(one.name), text(one.operation), f"{one.snr_db:.1f}"] for one in worst]
    more = (
        f'<p class="dim">{len(report.layers) - LAYERS} more are in the JSON.</p>' if len(report.layers) > LAYERS else ""
    )
    return (
        f"<h2>Layers by the damage they do</h2><p>Of {text(report.ranked)}: what is left of the network’s answers when "
        "this layer alone is quantized, as signal to noise in dB. At 20 dB a tenth of the answer is noise, at 40 a "
        f'hundredth.</p><div class="wide">{table(["layer", "operation", "dB"], rows, numbers=1)}</div>{more}'
    )


def rescue_html(report: QuantizeReport) -> str:
    if not report.rescue:
        return ""
    first = report.rescue[0].facts
    rows = []
    for step in report.rescue:
        one = step.facts
        lost = "–" if one.drop is None else f"{_signed(one.drop.value)} {_within(one.drop)}"
        best = _ms(one.best.whole_ms) if one.timings else "–"
        kept = ", ".join(step.kept[:6]) + (f" and {len(step.kept) - 6} more" if len(step.kept) > 6 else "")
        rows.append([text(kept or "none", 1000), lost, _size(one.size), best])
    cost = _cost(report, first, report.rescue[-1].facts)
    heads = ["kept in float", "points lost", "size", _times_of(report)]
    return f'<h2>Rescue</h2><p>{cost}</p><div class="wide">{table(heads, rows, numbers=3)}</div>'


def _cost(report: QuantizeReport, first: VariantFacts, last: VariantFacts) -> str:
    """What the rescue cost, in words."""
    size = f"{(last.size - first.size) / 1e3:+,.0f} kB ({last.size / first.size - 1:+.0%})"
    if not (first.timings and last.timings):
        return f"Layers kept in float cost {size}."
    spent = last.best.whole_ms - first.best.whole_ms
    return (
        f"Layers kept in float cost {size} and {spent:+.3g} {_times_of(report)} ({spent / first.best.whole_ms:+.0%})."
    )


def how_html(report: QuantizeReport) -> str:
    nouns, bounds = report.nouns, report.bounds
    threads = " and ".join(str(timing.threads) for timing in report.reference.timings)
    unseen = ", joined with Agresti and Min’s, which allows for what did not show" if report.metric == "top-1" else ""
    return (
        f"<h2>How this was measured</h2><p>Each variant answered the same {nouns.told(report.reference.images)} with "
        "labels through the task that VisionKit’s commands use. The loss is that of the difference to float on the "
        f"same {nouns.units}, its 95 % interval from drawing the {nouns.units}{nouns.within} again and again (paired "
        f"bootstrap{unseen}). A variant passes when that whole interval is within {bounds.max_drop:g} of the hundred "
        f"points, no {nouns.group} loses more than {bounds.max_class_drop:g} points beyond chance, its calibration has "
        "no fault, and it is fast enough. Of those that pass, the fastest is chosen; of equally fast ones the "
        f"smallest.</p><p>Times are of this machine, with {threads or '?'} threads, from a decoded {nouns.shot} to "
        "the result; the variants took turns, so that a busy moment met all of them. The table has the faster number "
        "of threads. Sizes are of the whole file, with the card and the probes in it.</p>"
    )
