"""Pictures of numbers as inline SVG: curves and a matrix. Text is escaped; nothing is fetched, nothing runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["curves", "learning", "matrix"]

COLOURS = ("#1769aa", "#d1495b", "#2a9d5c", "#8a5fbf")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 460, 230, 62, 30, 26


def curves(
    title: str,
    series: Mapping[str, Sequence[float]],
    *,
    mark: int | None = None,
    top: float | None = None,
    bottom: float | None = None,
    ticks: Sequence[object] | None = None,
) -> str:
    """A line chart of values by epoch (from 1), with a legend.

    Args:
        mark: an epoch to mark with a vertical line.
        top: upper end of the axis; without, the largest value. `bottom` likewise; without, 0 or the smallest value.
        ticks: what stands below the places in the place of the epochs' numbers, one for each.
    """
    values = np.array([value for line in series.values() for value in line], np.float64)
    low = bottom if bottom is not None else min(0.0, float(values.min()))
    high = top if top is not None else float(values.max()) * 1.05 or 1.0
    count = max(len(line) for line in series.values())
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">']
    for part in range(5):
        value = low + (high - low) * part / 4
        y = _y(value, low, high)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{_number(value, high - low)}</text>')
    for epoch in sorted({1, max(1, count // 2), count}) if ticks is None else range(1, count + 1):
        name = epoch if ticks is None else escape(str(ticks[epoch - 1]))
        parts.append(f'<text x="{_x(epoch, count):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{name}</text>')
    if mark is not None:
        x = _x(mark, count)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    names = []  # one text whose parts follow each other, however long they are
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{_x(k, count):.1f},{_y(v, low, high):.1f}" for k, v in enumerate(line, 1))
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>')
        names.append(f'<tspan dx="{14 * (number > 0)}" style="fill:{colour}">{escape(name)}</tspan>')
    return "".join([*parts, f'<text x="{LEFT}" y="14">', *names, "</text></svg>"])


def learning(history: Sequence[Mapping[str, Any]], best: int, shares: Mapping[str, Mapping[str, str]]) -> str:
    """Charts of a training by epoch: of fractions, of the loss and of the learning rate.

    Args:
        history: rows of the loop, one an epoch; `best` is the epoch to mark.
        shares: of each chart of fractions its lines' names, and the columns of the history that they show.
    """

    def columns(lines: Mapping[str, str]) -> dict[str, list[float]]:
        return {name: [float(row[key]) for row in history] for name, key in lines.items()}

    loss = columns({"training loss": "loss", "validation": "val_loss"})
    return "".join(
        [
            *(curves(f"{title} by epoch", columns(lines), mark=best, top=1.0) for title, lines in shares.items()),
            curves("loss by epoch", loss, mark=best, top=_calm(loss)),
            curves("learning rate by epoch", columns({"learning rate": "learning_rate"})),
        ]
    )


def _calm(series: Mapping[str, Sequence[float]]) -> float:
    """The upper end of a loss axis that one wild epoch does not flatten."""
    values = np.array([value for line in series.values() for value in line])
    return float(min(values.max(), 3 * np.quantile(values, 0.9))) * 1.05 or 1.0


def _number(value: float, span: float) -> str:
    """A value of an axis, fine enough to differ from its neighbours a quarter of the axis away."""
    digits = 2
    while digits < 6 and span > 0 and 10 ** (digits - 1) * span < 4 * abs(value):
        digits += 1
    return f"{value:.{digits}g}"


def _x(epoch: int, count: int) -> float:
    return LEFT + (WIDTH - LEFT - 8) * (epoch - 1) / max(1, count - 1)


def _y(value: float, low: float, high: float) -> float:
    share = (min(max(value, low), high) - low) / ((high - low) or 1.0)
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share


def matrix(confusion: npt.NDArray[np.int64], labels: Sequence[str]) -> str:
    """A confusion matrix: rows are true classes, columns answers; a cell's colour is its share of the row."""
    size, left, top = 34, 150, 34
    count = len(labels)
    side = left + size * count, top + size * count + 6
    parts = [f'<svg class="matrix" width="{side[0]}" height="{side[1]}" viewBox="0 0 {side[0]} {side[1]}" role="img">']
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    for row, name in enumerate(labels):
        y = top + row * size
        whole = escape(name, quote=True)
        parts.append(
            f'<text x="{left - 6}" y="{y + 21}" text-anchor="end">{_cut(name, 20)}<title>{whole}</title></text>'
        )
        x = left + row * size + size / 2
        parts.append(f'<text x="{x}" y="{top - 8}" text-anchor="middle">{_cut(name, 4)}<title>{whole}</title></text>')
        for column in range(count):
            parts.append(_cell(confusion, shares, row, column, (left + column * size, y, size)))
    return "".join([*parts, "</svg>"])


def _cell(
    confusion: npt.NDArray[np.int64],
    shares: npt.NDArray[np.float64],
    row: int,
    column: int,
    place: tuple[int, int, int],
) -> str:
    x, y, size = place
    share, number = float(shares[row, column]), int(confusion[row, column])
    colour = "23,105,170" if row == column else "209,73,91"
    box = f'<rect x="{x}" y="{y}" width="{size - 1}" height="{size - 1}" fill="rgba({colour},{_alpha(share):.2f})"/>'
    if not number:
        return box
    ink = "#fff" if _alpha(share) > 0.6 else "#222"
    return box + f'<text x="{x + size / 2}" y="{y + 21}" text-anchor="middle" style="fill:{ink}">{number}</text>'


def _alpha(share: float) -> float:
    return 0.05 if share == 0 else 0.25 + 0.75 * share


def _cut(text: str, most: int) -> str:
    return escape(text if len(text) <= most else text[: most - 1] + "…")
