"""Pascal VOC's XML: one file an image, `ImageSets/Main/train.txt`, `val.txt` and `test.txt` where it is split."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.parsers import expat

import numpy as np

from visionkit.errors import InputError
from visionkit.io import printable_name, safe_text
from visionkit.train.class_folders import Problem, natural_key
from visionkit.train.detection_raw import Finding, Raw, RawImage, read_text

__all__ = ["parse_voc", "read"]

EDGES = ("xmin", "ymin", "xmax", "ymax")
MOST_BYTES, MOST_OBJECTS = 1 << 24, 100_000
Node = dict[str, list["str | Node"]]


def read(root: Path, known: Finding) -> Raw | None:
    """The annotations of a folder with `Annotations/`, or of a folder of XML files; None where it is neither."""
    home = root / "Annotations"
    folder = home if home.is_dir() else root
    files = sorted(folder.glob("*.xml"), key=lambda path: natural_key(path.name)) if folder.is_dir() else []
    if not files:
        return None
    raw = Raw(image_folders=(root / "JPEGImages", root / "images", folder))
    parts = _parts(root / "ImageSets" / "Main", {path.stem for path in files}, raw.problems)
    for path in files:
        if parts and path.stem not in parts:
            raw.problems.append(
                Problem("unlisted", printable_name(path.name), "is in no list of ImageSets/Main, left out")
            )
            continue
        try:
            raw.images.append(_image(path, parts.get(path.stem, "")))
        except InputError as error:
            raw.problems.append(Problem("annotation-invalid", printable_name(path.name), error.message))
    return raw


def _parts(folder: Path, stems: set[str], problems: list[Problem]) -> dict[str, str]:
    """The part of each stem; a name in several lists belongs to train before val before test, and is told."""
    lists = {part: folder / f"{part}.txt" for part in ("train", "val", "test")}
    found: dict[str, str] = {}
    for part, path in lists.items():
        if not path.is_file():
            continue
        for line in read_text(path).splitlines():
            stem = line.split()[0] if line.split() else ""
            if not stem:
                continue
            if stem in found and found[stem] != part:
                problems.append(
                    Problem("leak", printable_name(stem), f"is listed in {found[stem]} and in {part}; only the first")
                )
                continue
            if stem not in stems:
                problems.append(Problem("label-missing", printable_name(stem), f"of {part}.txt has no annotation"))
            found.setdefault(stem, part)
    return found


def _image(path: Path, part: str) -> RawImage:
    shown = printable_name(path.name)
    tree = parse_voc(read_text(path, most=MOST_BYTES), shown)
    objects = [node for node in tree.get("object", []) if isinstance(node, dict)]
    boxes = np.full((len(objects), 4), np.nan)
    for row, node in zip(boxes, objects, strict=True):
        inner = next((n for n in node.get("bndbox", []) if isinstance(n, dict)), {})
        row[:] = [_number(_text(inner, edge)) for edge in EDGES]
    size = next((n for n in tree.get("size", []) if isinstance(n, dict)), {})
    size_hw = tuple(_number(_text(size, key)) for key in ("height", "width"))
    whole = size_hw if all(np.isfinite(n) and 0 < n < 1e6 for n in size_hw) else None
    stated = Path(_text(tree, "filename").replace("\\", "/")).name
    return RawImage(
        shown,
        stated if Path(stated).stem == path.stem else path.stem,
        boxes,
        [_text(node, "name") for node in objects],
        np.array([_text(node, "difficult") == "1" for node in objects], bool),
        np.zeros(len(objects), bool),
        part,
        None if whole is None else (int(whole[0]), int(whole[1])),
    )


def _text(node: Node, key: str) -> str:
    return next((value.strip() for value in node.get(key, []) if isinstance(value, str)), "")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def parse_voc(text: str, shown: str) -> Node:
    """The elements of an XML file as lists by name, of text or of elements; attributes do not count.

    A document type is refused before anything is expanded, so that no entity can be declared: neither a billion laughs
    nor another file gets in.

    Raises:
        InputError: `annotation-invalid`.
    """
    builder = _Builder(shown)
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = builder.doctype
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise InputError("annotation-invalid", f"is no XML: {safe_text(error)}") from None
    if builder.root is None or builder.top != "annotation":
        raise InputError("annotation-invalid", "is no annotation of Pascal VOC: its first element is not `annotation`")
    return builder.root


class _Builder:
    """Collects elements as expat meets them."""

    def __init__(self, shown: str) -> None:
        self.shown, self.top = shown, ""
        self.root: Node | None = None
        self._stack: list[tuple[str, Node, list[str]]] = []
        self._count = 0

    def doctype(self, *_: object) -> None:
        raise InputError("annotation-invalid", "declares a document type, which annotations do not need; it is refused")

    def start(self, name: str, attributes: Iterable[str]) -> None:
        self._count += 1
        if len(self._stack) > 20 or self._count > 20 * MOST_OBJECTS:
            raise InputError("annotation-invalid", "has too many elements, or too many inside of each other")
        self._stack.append((name, {}, []))

    def end(self, name: str) -> None:
        _, children, text = self._stack.pop()
        value: str | Node = children if children else "".join(text)
        if self._stack:
            self._stack[-1][1].setdefault(name, []).append(value)
        else:
            self.top, self.root = name, children

    def data(self, text: str) -> None:
        if self._stack:
            self._stack[-1][2].append(text)
