"""OpenImages' CSV: a row a box, its edges as fractions of the image; decimal commas are read too."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from pathlib import Path

import numpy as np

from visionkit.errors import InputError
from visionkit.io import printable_name, safe_text
from visionkit.train.class_folders import Problem, natural_key
from visionkit.train.detection_raw import Finding, Raw, RawImage, part_of, read_text

__all__ = ["read"]

EDGES = ("XMin", "YMin", "XMax", "YMax")
NEEDED = ("ImageID", "LabelName", *EDGES)
MOST_BYTES = 1 << 31  # OpenImages' own largest has 1.1 GB
DESCRIPTIONS = "class-descriptions*.csv"  # of a label's id (/m/011k07) a name


def read(root: Path, known: Finding) -> Raw | None:
    """The annotations of a CSV file, or of those in a folder; None where there is none with the columns needed."""
    files = [root] if root.is_file() else sorted(root.glob("*.csv")) if root.is_dir() else []
    files = [path for path in files if path.suffix.lower() == ".csv" and _fits(path)]
    if not files:
        return None
    home = root if root.is_dir() else root.parent
    raw = Raw(image_folders=(home, home / "images"))
    titles = _titles(home)
    for path in files:
        try:
            _one(path, part_of(path.stem) if len(files) > 1 else "", titles, raw)
        except InputError as error:
            raw.problems.append(Problem("annotation-invalid", printable_name(path.name), error.message))
    return raw


def _fits(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(4096).decode("utf-8-sig", "replace").splitlines()
    except OSError:
        return False
    return bool(head) and set(NEEDED) <= {cell.strip() for cell in next(csv.reader([head[0]]))}


def _titles(home: Path) -> dict[str, str]:
    """Names of labels by their ids, where a file tells them."""
    found: dict[str, str] = {}
    for path in sorted(home.glob(DESCRIPTIONS)):
        for row in csv.reader(io.StringIO(read_text(path))):
            if len(row) >= 2 and row[0].startswith("/"):
                found[row[0]] = row[1]
    return found


def _one(path: Path, part: str, titles: dict[str, str], raw: Raw) -> None:
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    wrong = 0
    try:
        for row in csv.DictReader(io.StringIO(read_text(path, most=MOST_BYTES))):
            if not row.get("ImageID") or not row.get("LabelName"):
                wrong += 1
                continue
            rows[row["ImageID"]].append(row)
    except csv.Error as error:
        raise InputError("annotation-invalid", f"is no CSV: {safe_text(error)}") from None
    if wrong:
        raw.problems.append(
            Problem("line-invalid", printable_name(path.name), f"has {wrong} rows without image or label")
        )
    for name in sorted(rows, key=natural_key):
        boxes = np.array([[_number(row.get(edge)) for edge in EDGES] for row in rows[name]])
        raw.images.append(
            RawImage(
                printable_name(name),
                name,
                boxes,
                [titles.get(row["LabelName"], row["LabelName"]) for row in rows[name]],
                np.zeros(len(boxes), bool),
                np.array([row.get("IsGroupOf") == "1" for row in rows[name]], bool),
                part,
                relative=True,
            )
        )


def _number(text: str | None) -> float:
    try:
        return float((text or "nan").replace(",", "."))
    except ValueError:
        return float("nan")
