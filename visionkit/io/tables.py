"""Result rows as tables: CSV for spreadsheets, and the MOT Challenge's text format."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from visionkit.io.line_writer import LineWriter

__all__ = ["CsvWriter", "MotWriter"]

COLUMNS = (
    *("index", "pts_ms", "source", "x1", "y1", "x2", "y2"),
    *("confidence", "class_id", "class_name", "tracker_id", "state", "error"),
)
# What spreadsheets take for a formula at the start of a cell or, some of them, of a line in it (OWASP, CSV injection).
FORMULA = re.compile(r"(?:^|[\r\n])[\s\u00a0]*[=+\-@]|^[\t\r]")


class CsvWriter(LineWriter):
    """One line for every object found, with a header; a frame that failed has a line with its `error`.

    Text that a spreadsheet would take for a formula gets a `'` in front; numbers stay numbers, and what has no value
    is an empty cell.

    Args:
        target: a path, or a binary stream.
        overwrite: replace an existing file, once this one is complete.
        raw: leave text as it is.
    """

    def __init__(
        self, target: str | os.PathLike[str] | BinaryIO, *, overwrite: bool = False, raw: bool = False
    ) -> None:
        super().__init__(target, overwrite=overwrite)
        self._raw = raw

    def encode(self, row: Mapping[str, Any], first: bool) -> bytes:
        text = io.StringIO()
        table = csv.writer(text)  # lines end in CR LF (RFC 4180), with which both get quoted inside a cell
        if first:
            table.writerow(COLUMNS)
        for found in _objects(row):
            cells = {**{name: row.get(name) for name in ("index", "pts_ms", "source", "error")}, **found}
            table.writerow([self._cell(cells.get(name)) for name in COLUMNS])
        return text.getvalue().encode("utf-8", "backslashreplace")

    def _cell(self, value: Any) -> Any:
        if isinstance(value, str) and not self._raw and FORMULA.search(value):
            return "'" + value
        return value


class MotWriter(LineWriter):
    """`frame,id,left,top,width,height,confidence,-1,-1,-1` a line, frames counted from 1, ids -1 where there are none.

    A. Milan et al., "MOT16: A Benchmark for Multi-Object Tracking", 2016, section 4.3. Pixels there count from 1, so
    the corner of a box that touches the image's is at 1. Objects without a whole box, and a lost track, have no line.
    """

    def encode(self, row: Mapping[str, Any], first: bool) -> bytes:
        lines = []
        for found in _objects(row):
            box = [found.get(name) for name in ("x1", "y1", "x2", "y2")]
            if any(value is None for value in box) or found.get("state") == "lost":
                continue
            x1, y1, x2, y2 = (float(value) for value in box if value is not None)
            place = ",".join(f"{value:.2f}" for value in (x1 + 1, y1 + 1, x2 - x1, y2 - y1))
            number, score = found.get("tracker_id", -1), found.get("confidence")
            lines.append(f"{row['index'] + 1},{number},{place},{-1 if score is None else score},-1,-1,-1\n")
        return "".join(lines).encode()


def _objects(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The cells of every object in a row; of one empty object where the frame failed."""
    found = [*row.get("detections", ()), *row.get("classes", ())]
    if row.get("track") is not None:
        found.append({"tracker_id": 1, **row["track"]})
    if not found and row.get("error") is not None:
        found.append({})
    for one in found:
        corners = zip(("x1", "y1", "x2", "y2"), one.get("xyxy", ()), strict=False)
        yield {**one, **dict(corners)}
