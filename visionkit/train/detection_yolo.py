"""YOLO's text files: a line a box, `class x y width height`, centre and size as fractions of the image.

Where the images are comes from a YAML file with `names` (and `path`, `train`, `val`, `test`), or is `labels/` beside
`images/`, or images and text files in one folder. The text file of an image has its stem, and lies where `labels`
stands for `images` in its path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from visionkit.errors import InputError
from visionkit.io import original_name, printable_name, safe_text
from visionkit.train.class_folders import Problem, natural_key
from visionkit.train.detection_raw import PART_NAMES, Finding, Raw, RawImage, entries, folders_in, read_text

__all__ = ["read"]

NAME_FILES = ("classes.txt", "obj.names", "labels.txt", "classes.names")
LISTS = ("classes.txt", "labels.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "readme.txt")
MOST_LINE = 100_000
Labels = dict[str, Path]


def read(root: Path, known: Finding) -> Raw | None:
    """The annotations of a folder or of its YAML file; None where there is no text file of boxes."""
    if root.is_file() and root.suffix.lower() not in (".yaml", ".yml"):
        return None
    home = root if root.is_dir() else root.parent
    raw = Raw()
    table = _yaml(root, raw.problems)
    names = _names(table, home, known)
    sources = list(_sources(home, table, raw.problems))
    if not sources:
        return None
    for images, labels, part in sources:
        _folder(images if known.images is None else known.images, labels, part, names, raw)
    if not raw.images:
        return None
    if names is None:
        ids = {int(name) for one in raw.images for name in one.names if name.isdecimal()}
        raw.classes = tuple(str(k) for k in range(max(ids, default=-1) + 1))
    else:
        raw.classes = tuple(names[k] for k in sorted(names))
    raw.image_folders = tuple(dict.fromkeys(images for images, _, _ in sources))
    return raw


def _yaml(root: Path, problems: list[Problem]) -> Mapping[str, Any]:
    """The first YAML file that names classes; an empty table without."""
    files = [root] if root.is_file() else sorted([*root.glob("*.yaml"), *root.glob("*.yml")])
    for path in files:
        try:
            table = simple_yaml(read_text(path, most=1 << 20))
        except InputError as error:
            problems.append(Problem("annotation-invalid", printable_name(path.name), error.message))
            continue
        if "names" in table:
            return table
    return {}


def simple_yaml(text: str) -> dict[str, Any]:
    """The part of YAML that YOLO's files are written in: keys, scalars, and one level of lists or tables below a key.

    Anchors, tags and anything deeper are not read, so that no file can make more of itself than it holds.
    """
    out: dict[str, Any] = {}
    key = ""
    for line in text.splitlines()[:MOST_LINE]:
        body = line.split(" #")[0].rstrip() if not line.lstrip().startswith("#") else ""
        if not body.strip():
            continue
        inner = body.strip()
        if inner.startswith("- ") and key:
            if not isinstance(out.get(key), list):
                out[key] = []
            out[key].append(_scalar(inner[2:]))
        elif body[0] in " \t" and key:
            name, found, value = inner.partition(":")
            if found:
                if not isinstance(out.get(key), dict):
                    out[key] = {}
                out[key][_scalar(name)] = _scalar(value)
            elif isinstance(out.get(key), str) and out[key].startswith(("[", "{")):
                out[key] += " " + inner
        else:
            name, found, value = inner.partition(":")
            if not found:
                if isinstance(out.get(key), str):  # a list in brackets that goes on
                    out[key] += " " + inner
                continue
            key = str(_scalar(name))
            out[key] = value.strip()
    return {name: _flow(value) for name, value in out.items()}


def _scalar(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _flow(value: Any) -> Any:
    """A list or table in brackets as one; everything else as it is."""
    if not isinstance(value, str):
        return value
    if value.startswith("[") and value.endswith("]"):
        return [_scalar(part) for part in _parts(value[1:-1])]
    if value.startswith("{") and value.endswith("}"):
        pairs = (part.partition(":") for part in _parts(value[1:-1]))
        return {_scalar(name): _scalar(item) for name, found, item in pairs if found}
    return _scalar(value)


def _parts(text: str) -> list[str]:
    """What commas part, those inside of quotes not counted."""
    parts, quote = [""], ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == ",":
            parts.append("")
            continue
        parts[-1] += char
    return [part for part in parts if part.strip()]


def _names(table: Mapping[str, Any], home: Path, known: Finding) -> dict[int, str] | None:
    """Class names by number; None where nobody names them."""
    given = table.get("names")
    if isinstance(given, dict):
        found = {int(k): v for k, v in given.items() if str(k).isdecimal() and int(k) < MOST_LINE}
        if found:
            return {k: found.get(k, str(k)) for k in range(max(found) + 1)}
    if isinstance(given, list) and given:
        return dict(enumerate(given))
    for name in NAME_FILES:
        for folder in (home, home / "labels"):
            if (folder / name).is_file():
                lines = [line.strip() for line in read_text(folder / name, most=1 << 20).splitlines()]
                return dict(enumerate(line for line in lines if line))
    return None if known.classes is None else dict(enumerate(known.classes))


def _sources(home: Path, table: Mapping[str, Any], problems: list[Problem]) -> Iterator[tuple[Path, Path, str]]:
    """Folders of images, of their text files, and the part."""
    base = _inside(home, table.get("path"))
    found = False
    for key, part in PART_NAMES.items():
        given = table.get(key)
        for value in given if isinstance(given, list) else [given] if isinstance(given, str) and given else []:
            if str(value).endswith(".txt"):
                continue  # a list of files: the folders below are asked
            places = (base / value, home / value, home / value.removeprefix("../"), home.parent / value)
            images = next((place for place in places if place.is_dir()), None)
            near = [_labels_of(place) for place in (images, *places) if place is not None]
            labels = next((place for place in near if place.is_dir()), near[0])
            if images is None and not labels.is_dir():
                if part != "test":
                    problems.append(Problem("part-missing", safe_text(value), f"({key}) is not there"))
                continue
            found = True
            yield images or base / value, labels, part
    if found:
        return
    yield from _plain(home)


def _inside(home: Path, given: Any) -> Path:
    path = home / given if isinstance(given, str) and given not in ("", ".") else home
    return path if path.is_dir() else home


def _labels_of(images: Path) -> Path:
    """The folder of text files: `labels` for the last `images` of the path."""
    parts = list(images.parts)
    for k in range(len(parts) - 1, -1, -1):
        if parts[k] in ("images", "JPEGImages"):
            return Path(*parts[:k], "labels", *parts[k + 1 :])
    return images


def _plain(home: Path) -> Iterator[tuple[Path, Path, str]]:
    """Without a YAML file: labels/ beside images/, the same inside of parts, or images and text files together."""
    for images, labels in ((home / "images", home / "labels"), (home, home / "obj_train_data"), (home, home)):
        if not labels.is_dir():
            continue
        inner = [folder for folder in folders_in(labels) if any(folder.glob("*.txt"))]
        if inner and labels != home:
            for folder in inner:
                yield images / folder.name, folder, PART_NAMES.get(folder.name.casefold(), "")
            return
        if _text_files(labels):
            yield (images if images.is_dir() else labels), labels, ""
            return
    for folder in folders_in(home):
        part = PART_NAMES.get(folder.name.casefold())
        if part and (folder / "labels").is_dir():
            yield folder / "images", folder / "labels", part


def _text_files(folder: Path) -> Labels:
    """Text files of boxes by stem."""
    if not folder.is_dir():
        return {}
    files = [path for path in folder.glob("*.txt") if path.name.casefold() not in LISTS]
    return {path.stem: path for path in sorted(files, key=lambda path: natural_key(path.name))}


def _folder(images: Path, labels: Path, part: str, names: Mapping[int, str] | None, raw: Raw) -> None:
    """Adds the images of one folder; those without a text file are told, as nobody says that they hold nothing."""
    files = _text_files(labels)
    there = {Path(original_name(name)).stem: name for name in entries(images)}
    for stem in sorted(set(there) - set(files), key=natural_key):
        raw.problems.append(Problem("unlabelled", there[stem], "has no text file of boxes, left out"))
    for stem, path in files.items():
        shown = printable_name(path.name)
        try:
            boxes, kinds = _boxes(path, names, raw.problems)
        except InputError as error:
            raw.problems.append(Problem("annotation-invalid", shown, error.message))
            continue
        nothing = np.zeros(len(boxes), bool)
        file = original_name(there[stem]) if stem in there else stem
        raw.images.append(
            RawImage(shown, file, boxes, kinds, nothing, nothing, part, relative=True, near=(images, labels))
        )


def _boxes(
    path: Path, names: Mapping[int, str] | None, problems: list[Problem]
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], list[str]]:
    """Boxes (N, 4) xyxy as fractions, and class names; a polygon is its bounding box."""
    boxes, kinds, wrong = [], [], []
    shown = printable_name(path.name)
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.split():
            continue
        try:
            kind, *values = (float(word) for word in line.split())
        except ValueError:
            wrong.append(number)
            continue
        if (len(values) not in (4, 5) and (len(values) < 6 or len(values) % 2)) or kind != int(kind) or kind < 0:
            wrong.append(number)
            continue
        boxes.append(_box(values))
        place = int(kind)
        kinds.append(str(place) if names is None else names.get(place, f"class {place}"))
    if wrong:
        lines = ", ".join(map(str, wrong[:5])) + (", …" if len(wrong) > 5 else "")
        problems.append(Problem("line-invalid", shown, f"has lines that are no boxes, left out: {lines}"))
    return np.array(boxes, np.float64).reshape(-1, 4), kinds


def _box(values: list[float]) -> list[float]:
    if len(values) in (4, 5):
        x, y, width, height = values[:4]
        return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    xs, ys = values[0::2], values[1::2]
    return [min(xs), min(ys), max(xs), max(ys)]
