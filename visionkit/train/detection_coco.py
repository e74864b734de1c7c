"""COCO's JSON: one file a part, boxes as x, y, width, height in continuous pixels."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from visionkit.errors import InputError
from visionkit.io import printable_name, safe_text
from visionkit.train.class_folders import Problem
from visionkit.train.detection_raw import Finding, Raw, RawImage, part_of, read_text

__all__ = ["read"]

MOST_BYTES = 1 << 30  # COCO's own largest has 448 MB
HEAD = 1 << 16


def read(root: Path, known: Finding) -> Raw | None:
    """The annotations of a JSON file, or of those in a folder, in its `annotations/` or in its parts; None without."""
    files = [root] if root.is_file() and root.suffix.lower() == ".json" else _files(root)
    if not files:
        return None
    raw, names = Raw(), dict[str, None]()
    for path in files:
        shown = printable_name(path.name)
        try:
            table = _table(path)
        except InputError as error:
            raw.problems.append(Problem("annotation-invalid", shown, error.message))
            continue
        part = "" if len(files) == 1 and root.is_file() else part_of(path.stem) or part_of(path.parent.name)
        _one(table, path, part, raw, names)
    if not raw.images and not raw.problems:
        return None
    raw.classes = tuple(names)
    raw.image_folders = tuple(dict.fromkeys(path.parent for path in files))
    return raw


def _files(root: Path) -> list[Path]:
    """JSON files that look like COCO's; of `annotations/` those of instances, where there are such."""
    if not root.is_dir():
        return []
    homes = [root, root / "annotations", *(root / name for name in ("train", "valid", "val", "test"))]
    found = [path for home in homes if home.is_dir() for path in sorted(home.glob("*.json")) if _looks_right(path)]
    instances = [path for path in found if "instances" in path.stem]
    return instances or found


def _looks_right(path: Path) -> bool:
    """Whether a file has images and annotations; of a large one only the beginning and the end are asked."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            head = file.read(HEAD)
            file.seek(max(0, size - HEAD))
            tail = file.read(HEAD)
    except OSError:
        return False
    both = head + tail
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and (size > 2 * HEAD or b'"annotations"' in both)


def _table(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(read_text(path, most=MOST_BYTES))
    except (ValueError, RecursionError) as error:
        raise InputError("annotation-invalid", f"is no JSON: {safe_text(error)}") from None
    if not isinstance(table, dict) or not isinstance(table.get("images"), list):
        raise InputError("annotation-invalid", "has no list of images; expected COCO's images, annotations, categories")
    return table


def _one(table: dict[str, Any], path: Path, part: str, raw: Raw, names: dict[str, None]) -> None:
    """Adds the images of one file."""
    shown = printable_name(path.name)
    by_id = _categories(table, shown, raw.problems)
    names.update(dict.fromkeys(by_id.values()))
    boxes: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    listed = table.get("annotations")
    images = [image for image in table["images"] if isinstance(image, dict) and isinstance(image.get("file_name"), str)]
    if len(images) < len(table["images"]):
        count = len(table["images"]) - len(images)
        raw.problems.append(Problem("annotation-invalid", shown, f"has {count} images without a file name"))
    ids = {_key(image.get("id")) for image in images}
    orphans = 0
    for one in listed if isinstance(listed, list) else []:
        if not isinstance(one, dict) or _key(one.get("image_id")) not in ids:
            orphans += 1
            continue
        boxes[_key(one["image_id"])].append(one)
    if orphans:
        raw.problems.append(Problem("orphan", shown, f"has {orphans} annotations of images that it does not list"))
    near = _near(path, part)
    for image in images:
        raw.images.append(_image(image, boxes[_key(image.get("id"))], by_id, part, near))


def _key(value: Any) -> Any:
    return value if isinstance(value, int | str) else None


def _near(path: Path, part: str) -> tuple[Path, ...]:
    """Where the images of a file may lie: beside it, or in COCO's folders by part."""
    home = path.parent.parent if path.parent.name == "annotations" else path.parent
    named = [path.stem.removeprefix("instances_"), part] if part else [path.stem.removeprefix("instances_")]
    inner = [home / base / name for name in named for base in ("", "images") if name]
    return (path.parent, *inner, home / "images", home)


def _categories(table: dict[str, Any], shown: str, problems: list[Problem]) -> dict[Any, str]:
    """Class names by category id, in the order of the ids; a first one called background is none."""
    found = {}
    listed = table.get("categories")
    for one in listed if isinstance(listed, list) else []:
        if isinstance(one, dict) and isinstance(one.get("id"), int) and isinstance(one.get("name"), str):
            found[one["id"]] = one["name"]
    if not found:
        problems.append(Problem("annotation-invalid", shown, "has no categories; classes are numbers"))
    return {k: found[k] for k in sorted(found) if not (k == 0 and found[k].casefold() == "background")}


def _image(
    image: dict[str, Any], boxes: list[dict[str, Any]], by_id: dict[Any, str], part: str, near: tuple[Path, ...]
) -> RawImage:
    xyxy = np.full((len(boxes), 4), np.nan)
    names = []
    for row, one in zip(xyxy, boxes, strict=True):
        box = one.get("bbox")
        if isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box):
            row[:] = box[0], box[1], box[0] + box[2], box[1] + box[3]
        kind = one.get("category_id")
        names.append(by_id.get(kind, f"category {kind}") if isinstance(kind, int) else "?")
    size = (image.get("height"), image.get("width"))
    whole = all(isinstance(n, int) and n > 0 for n in size)
    return RawImage(
        printable_name(image["file_name"]),
        image["file_name"],
        xyxy,
        names,
        np.array([bool(one.get("ignore")) for one in boxes], bool),
        np.array([bool(one.get("iscrowd")) for one in boxes], bool),
        part,
        (int(size[0]), int(size[1])) if whole and size[0] and size[1] else None,
        near=near,
    )
