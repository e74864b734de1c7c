"""The table of a network as a terminal shows it, and as JSON holds it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from visionkit.cli.text import clean
from visionkit.geometry.receptive_field import Number, ReceptiveField
from visionkit.inspection.facts import LayerFacts, Shape, Summary, WindowFacts

__all__ = ["layer_lines", "note_lines", "summary_json", "total_lines"]

HEAD = ("LAYER", "TYPE", "OUTPUT", "PARAMS", "MACS", "WINDOW", "FIELD", "STRIDE", "PAD", "CENTRE")
LEFT = ("LAYER", "TYPE", "OUTPUT", "WINDOW")
SHORTEST_NAME = 16
MOST_NOTES = 12
ROUNDING = {
    "floor": "floor leaves the rest of the map out",
    "ceil": "ceil lets the last window reach over the end",
    "same": "same rounds up and pads",
}


def layer_lines(summary: Summary) -> list[str]:
    """Head and rows; the names are shortened in their middle where a terminal is too narrow for them."""
    rows = [_cells(row, several=len(summary.inputs) > 1) for row in summary.layers]
    rows = [[clean(cell) for cell in row] for row in (list(HEAD), *rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    room = _terminal_width()
    if room is not None and (over := sum(widths) + 2 * (len(HEAD) - 1) - room) > 0:
        for column in (0, 1):
            cut = min(over, max(widths[column] - SHORTEST_NAME, 0))
            widths[column] -= cut
            over -= cut
    return [_line(row, widths) for row in rows]


def _terminal_width() -> int | None:
    """Columns of the terminal on stdout; None where it goes to a file or a pipe."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return None


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = []
    for name, cell, width in zip(HEAD, row, widths, strict=True):
        short = _shortened(cell, width)
        cells.append(short.ljust(width) if name in LEFT else short.rjust(width))
    return "  ".join(cells).rstrip()


def _shortened(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    front = (width - 2) // 3
    return f"{text[:front]}..{text[len(text) - (width - 2 - front) :]}"


def _cells(row: LayerFacts, several: bool) -> list[str]:
    return [
        row.name,
        row.kind,
        _size(row.output_shape),
        "shared"
        if row.shared and row.parameters == 0 and row.macs
        else f"{row.parameters:,}"
        if row.parameters
        else "",
        "?" if row.macs is None else f"{row.macs:,}" if row.macs else "",
        _window(row.window),
        *_field_cells(row.fields, several),
    ]


def _size(shape: Shape) -> str:
    return "x".join("?" if size is None else str(size) for size in shape) or "1"


def _window(window: WindowFacts | None) -> str:
    """`7x7 /2 pad 3 floor*`: kernel, stride, dilation, padding, the rule of size where there is one to choose."""
    if window is None:
        return ""
    words = []
    if window.kernel_hw != (1, 1) or window.stride_hw != (1, 1) or not any(window.padding):
        words.append("x".join(map(str, window.kernel_hw)))
    if window.stride_hw != (1, 1):
        words.append(f"/{_pair(window.stride_hw)}")
    if window.dilation_hw != (1, 1):
        words.append(f"dil {_pair(window.dilation_hw)}")
    if any(window.padding):
        top, bottom, left, right = window.padding
        same = len(set(window.padding)) == 1
        text = str(top) if same else f"{top}+{bottom},{left}+{right}"
        words.append(f"pad {text}" if max(window.padding) > 0 else f"crop {text.replace('-', '')}")
    if window.exact_hw is not None and (window.stride_hw != (1, 1) or window.rounding == "ceil"):
        words.append(window.rounding + ("" if window.divides else "*"))
    return " ".join(words)


def _field_cells(fields: Mapping[str, ReceptiveField] | None, several: bool) -> list[str]:
    """Size, stride, padding and centre; of several inputs that are seen, each with its name's first letters."""
    if fields is None:
        return ["?", "", "", ""]
    if not fields:
        return ["-", "", "", ""]
    columns = []
    for seen in fields.values():
        size = ("<=" if seen.bound else "") + _pair(seen.size_hw)
        columns.append(
            (
                f"all ({size})" if seen.whole else size,
                _pair(seen.stride_hw) if any(seen.stride_hw) else "-",
                _pair(seen.padding_hw),
                _pair(seen.center_hw()),
            )
        )
    tags = [f"{name}:" if several else "" for name in fields]
    first = " ".join(f"{tag}{column[0]}" for tag, column in zip(tags, columns, strict=True))
    return [first, *(" ".join(column[i] for column in columns) for i in (1, 2, 3))]


def _pair(values: Sequence[Number]) -> str:
    """`7` where both are, else `7x5`, height first."""
    texts = [f"{float(value):g}" for value in values]
    return texts[0] if texts[0] == texts[1] else "x".join(texts)


def note_lines(summary: Summary) -> list[str]:
    """What the marks of the table mean here."""
    lines = [f"{row.name}: {note}" for row in summary.layers for note in row.notes]
    if len(lines) > MOST_NOTES:
        lines = [*lines[:MOST_NOTES], f"... and {len(lines) - MOST_NOTES} more such notes; --json has them all"]
    uneven: dict[str, list[str]] = {}
    for row in summary.layers:
        if row.window is not None and row.window.exact_hw is not None and not row.window.divides:
            text = f"{row.name} {_pair(row.window.exact_hw)}"
            uneven.setdefault(row.window.rounding, []).append(text)
    for rounding, rows in uneven.items():
        more = f" and {len(rows) - MOST_NOTES} more" if len(rows) > MOST_NOTES else ""
        lines.append(f"* does not divide evenly, {ROUNDING[rounding]}: {', '.join(rows[:MOST_NOTES])}{more}")
    return lines


def total_lines(summary: Summary) -> list[tuple[str, str]]:
    """The sums, as names and values."""
    macs = f"{summary.macs:,} multiply-adds a sample"
    if summary.unknown_macs:
        macs += f", and those of {len(summary.unknown_macs)} layers that cannot be told ({summary.unknown_macs[0]})"
    trainable = f", {summary.trainable:,} trainable" if summary.trainable else ""
    return [
        ("inputs", _named(summary.inputs)),
        ("outputs", _named(summary.outputs)),
        ("parameters", f"{summary.parameters:,}{trainable}"),
        ("forward", macs),
        *([("training", f"about {summary.training_macs:,} (3 x forward)")] if summary.trainable else []),
    ]


def _named(shapes: Mapping[str, Shape]) -> str:
    return ", ".join(f"{name} {_size(shape)}" for name, shape in shapes.items())


def summary_json(summary: Summary) -> dict[str, Any]:
    """Everything in the table, as JSON can hold it; fractions become numbers."""
    return {
        "inputs": {name: list(shape) for name, shape in summary.inputs.items()},
        "outputs": {name: list(shape) for name, shape in summary.outputs.items()},
        "layers": [_layer_json(row) for row in summary.layers],
        "totals": {
            "parameters": summary.parameters,
            "trainable": summary.trainable,
            "macs": summary.macs,
            "training_macs": summary.training_macs,
            "macs_unknown": list(summary.unknown_macs),
        },
        "notes": list(summary.notes),
    }


def _layer_json(row: LayerFacts) -> dict[str, Any]:
    return {
        "name": row.name,
        "type": row.kind,
        "inputs": list(row.inputs),
        "output_shape": list(row.output_shape),
        "parameters": row.parameters,
        "trainable": row.trainable,
        "shared": row.shared,
        "macs": row.macs,
        "window": None if row.window is None else _window_json(row.window),
        "receptive_field": None if row.fields is None else {n: _field_json(f) for n, f in row.fields.items()},
        "notes": list(row.notes),
    }


def _window_json(window: WindowFacts) -> dict[str, Any]:
    top, bottom, left, right = window.padding
    return {
        "kernel_hw": list(window.kernel_hw),
        "stride_hw": list(window.stride_hw),
        "dilation_hw": list(window.dilation_hw),
        "padding": {"top": top, "bottom": bottom, "left": left, "right": right},
        "rounding": window.rounding,
        "exact_hw": None if window.exact_hw is None else [_number(value) for value in window.exact_hw],
        "divides": window.divides,
    }


def _field_json(field: ReceptiveField) -> dict[str, Any]:
    return {
        "size_hw": [_number(value) for value in field.size_hw],
        "stride_hw": [_number(value) for value in field.stride_hw],
        "padding_hw": [_number(value) for value in field.padding_hw],
        "center_hw": [_number(value) for value in field.center_hw()],
        "whole_input": field.whole,
        "bound": field.bound,
    }


def _number(value: Number) -> int | float:
    exact = Fraction(value)
    return int(exact) if exact.denominator == 1 else float(exact)
