"""Images of discs and squares with their boxes, and the same annotations in the four formats."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np

NAMES = ("disc", "square")
Boxes = list[tuple[int, tuple[float, float, float, float]]]


def scene(rng: np.random.Generator, size_hw: tuple[int, int] = (72, 96), most: int = 4) -> tuple[np.ndarray, Boxes]:
    """An image uint8 (H, W, 3) BGR with up to `most` things that hardly overlap, and their classes and boxes."""
    height, width = size_hw
    noise = rng.integers(90, 130, (height // 6, width // 6, 3)).astype(np.uint8)
    image = np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    boxes: Boxes = []
    for _ in range(rng.integers(1, most + 1)):
        kind, side = int(rng.integers(2)), int(rng.integers(height // 5, height // 3))
        x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
        if any(abs(x - b[0]) < side and abs(y - b[1]) < side for _, b in boxes):
            continue
        colour = ((40, 60, 220), (210, 120, 30))[kind]
        if kind == 0:
            cv2.circle(image, (x + side // 2, y + side // 2), side // 2, colour, -1)
            side = 2 * (side // 2) + 1
        else:
            cv2.rectangle(image, (x, y), (x + side - 1, y + side - 1), colour, -1)
        boxes.append((kind, (float(x), float(y), float(x + side), float(y + side))))
    return image, boxes


def voc_xml(name: str, size_hw: tuple[int, int], boxes: Boxes, extra: str = "") -> str:
    objects = "".join(
        f"<object><name>{NAMES[kind]}</name><difficult>0</difficult><bndbox><xmin>{b[0]:g}</xmin><ymin>{b[1]:g}</ymin>"
        f"<xmax>{b[2]:g}</xmax><ymax>{b[3]:g}</ymax></bndbox></object>"
        for kind, b in boxes
    )
    size = f"<size><width>{size_hw[1]}</width><height>{size_hw[0]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}{objects}{extra}</annotation>"


def write_voc(
    root: Path, parts: dict[str, int], size_hw: tuple[int, int] = (72, 96), seed: int = 0
) -> dict[str, Boxes]:
    """Pascal VOC's layout with so many images of each part; the boxes by stem."""
    rng = np.random.default_rng(seed)
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    found: dict[str, Boxes] = {}
    for part, count in parts.items():
        stems = [f"{part}{k:03d}" for k in range(count)]
        for stem in stems:
            image, boxes = scene(rng, size_hw)
            cv2.imwrite(str(root / "JPEGImages" / f"{stem}.png"), image)
            (root / "Annotations" / f"{stem}.xml").write_text(voc_xml(f"{stem}.png", size_hw, boxes))
            found[stem] = boxes
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(stems) + "\n")
    return found


def write_coco(root: Path, found: dict[str, Boxes], size_hw: tuple[int, int] = (72, 96)) -> Path:
    """One JSON file; category ids are 3 and 7."""
    images, annotations = [], []
    for number, (stem, boxes) in enumerate(found.items(), 100):
        images.append({"id": number, "file_name": f"{stem}.png", "height": size_hw[0], "width": size_hw[1]})
        for kind, (x1, y1, x2, y2) in boxes:
            one = {"id": len(annotations), "image_id": number, "category_id": (3, 7)[kind], "iscrowd": 0}
            annotations.append({**one, "bbox": [x1, y1, x2 - x1, y2 - y1]})
    categories = [{"id": k, "name": name} for k, name in zip((3, 7), NAMES, strict=True)]
    path = root / "boxes.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def write_yolo(root: Path, found: dict[str, Boxes], size_hw: tuple[int, int] = (72, 96)) -> Path:
    """labels/ and classes.txt."""
    (root / "labels").mkdir(parents=True)
    (root / "classes.txt").write_text("\n".join(NAMES) + "\n")
    height, width = size_hw
    for stem, boxes in found.items():
        lines = [
            f"{kind} {(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f} {(x2 - x1) / width:.6f} "
            f"{(y2 - y1) / height:.6f}"
            for kind, (x1, y1, x2, y2) in boxes
        ]
        (root / "labels" / f"{stem}.txt").write_text("\n".join(lines))
    return root


def write_openimages(root: Path, found: dict[str, Boxes], size_hw: tuple[int, int] = (72, 96)) -> Path:
    """One CSV file."""
    height, width = size_hw
    path = root / "boxes.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax", "IsGroupOf"])
        for stem, boxes in found.items():
            for kind, (x1, y1, x2, y2) in boxes:
                writer.writerow([stem, NAMES[kind], x1 / width, x2 / width, y1 / height, y2 / height, 0])
    return path
