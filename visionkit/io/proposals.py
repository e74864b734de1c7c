"""Boxes to look at, from a file: what Fast R-CNN classifies.

JSON: one object, file name -> list of boxes `[x1, y1, x2, y2]`. CSV: lines `image,x1,y1,x2,y2`, with or without a
header, further columns are passed over. Boxes are pixels of the image, continuous (width is x2 - x1), best first.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError
from visionkit.io.paths import local_file, unreadable

__all__ = ["read_proposals"]

Boxes = npt.NDArray[np.float32]

COLUMNS = 5
MOST_BYTES = 1 << 30


def read_proposals(path: str | os.PathLike[str]) -> dict[str, Boxes]:
    """Of each image, by file name without its folder, boxes float32 (N, 4) xyxy in the file's order.

    Args:
        path: `.csv`, or anything else for JSON.

    Raises:
        InputError: `input-missing`, `input-unreadable`; `proposals-invalid`, naming the place: no such form, a box
            without area, numbers that are not finite, two images of one file name.
    """
    file = local_file(path)
    if file.size > MOST_BYTES:
        raise _invalid(file.name, f"it has {file.size} bytes, more than {MOST_BYTES}")
    try:
        text = file.path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise unreadable(error, file.name) from error
    except UnicodeDecodeError as error:
        raise _invalid(file.name, "it is not UTF-8") from error
    rows = _from_csv(text, file.name) if file.path.suffix.lower() == ".csv" else _from_json(text, file.name)
    found: dict[str, Boxes] = {}
    for image, boxes in rows.items():
        name = image.replace("\\", "/").rpartition("/")[2]
        if name in found:
            raise _invalid(file.name, f"two images are called {name!r}")
        found[name] = _checked(boxes, f"{image!r}", file.name)
    return found


def _from_json(text: str, shown: str) -> dict[str, list[Any]]:
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(shown, f"it is no JSON ({error})") from error
    if not isinstance(table, dict) or not all(isinstance(boxes, list) for boxes in table.values()):
        raise _invalid(shown, "it is no object of lists of boxes by file name")
    return table


def _from_csv(text: str, shown: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    try:
        for number, cells in enumerate(csv.reader(io.StringIO(text)), 1):
            if not cells or (number == 1 and _is_header(cells)):
                continue
            if len(cells) < COLUMNS:
                raise _invalid(shown, f"line {number} has {len(cells)} columns, not image,x1,y1,x2,y2")
            found.setdefault(cells[0], []).append(_numbers(cells[1:COLUMNS], number, shown))
    except csv.Error as error:
        raise _invalid(shown, f"it is no CSV ({error})") from error
    return found


def _is_header(cells: list[str]) -> bool:
    return len(cells) >= COLUMNS and cells[1].strip().isidentifier()


def _numbers(cells: list[str], line: int, shown: str) -> list[float]:
    try:
        return [float(cell) for cell in cells]
    except ValueError as error:
        raise _invalid(shown, f"line {line} has a box that is not four numbers: {', '.join(cells)[:80]}") from error


def _checked(boxes: list[Any], where: str, shown: str) -> Boxes:
    """The boxes as an array; each four finite numbers, with an area."""
    for place, box in enumerate(boxes):
        numbers = isinstance(box, list) and len(box) == 4 and all(type(value) in (int, float) for value in box)
        if not numbers or not all(math.isfinite(value) and abs(value) < 1e9 for value in box):
            raise _invalid(shown, f"box {place} of {where} is not four finite numbers: {str(box)[:80]}")
        if not (box[2] > box[0] and box[3] > box[1]):
            raise _invalid(shown, f"box {place} of {where} has no area: {box}")
    return np.array(boxes, np.float32).reshape(-1, 4)


def _invalid(shown: str, reason: str) -> InputError:
    return InputError(
        "proposals-invalid",
        f"The proposals {shown} cannot be used: {reason}. Give JSON {{file name: [[x1, y1, x2, y2], …]}} or CSV lines "
        "image,x1,y1,x2,y2, in pixels.",
    )
