"""Rows of detections in the formats that other tools read: COCO's JSON, Pascal VOC's XML, YOLO's text files.

Boxes are written as they are, continuous pixels. (Pascal VOC's numbers are by definition of pixels counted from 1, but
the tools that write and convert its XML take them as they stand.)
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any
from xml.sax.saxutils import escape

from visionkit.geometry.rle import rle_area
from visionkit.io.files import OutputFile, writing_to
from visionkit.io.results import json_bytes

__all__ = ["CocoWriter", "FileNames", "VocWriter", "YoloWriter"]

Names = Callable[[], Sequence[str] | None]
Place = Callable[[str], Path]


class FileNames:
    """Names without suffix for the annotations of rows, each given once: an image's own, a video's with the index."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def __call__(self, row: Mapping[str, Any]) -> str:
        stem = "".join(
            char if char.isprintable() and char not in '/\\:*?"<>|' else "_"
            for char in PurePosixPath(row["source"]).stem
        )
        stem = stem.strip(". ").encode()[:200].decode(errors="ignore") or "image"
        name = stem if row["pts_ms"] is None else f"{stem}_{row['index']:06d}"
        if name.casefold() in self._taken:
            name = f"{name}-{row['index']}"
        if row["pts_ms"] is None:  # a video's indices differ: nothing to remember
            self._taken.add(name.casefold())
        return name


class CocoWriter:
    """`coco.json`: images, annotations with ids, boxes, scores and run-length masks, and categories.

    Category ids are class ids plus 1. Annotations go to the file at once, the list of images waits in another one, so
    that memory does not grow with the source.

    Args:
        path: of the file, which appears when closed.
        names: asked at the end for the class names; classes that were found and have none get their rows' name.
    """

    def __init__(self, path: Path, names: Names) -> None:
        self._file = OutputFile(path)
        self._names, self._found = names, dict[int, str]()
        self._files = FileNames()
        self._images: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - open until the end of the run
        self._count = self._rows = 0
        with writing_to(path):
            self._out: IO[bytes] | None = self._file.temporary.open("wb")
            self._out.write(b'{"info": {"description": "VisionKit detections"},\n"annotations": [')

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one frame."""
        if self._out is None:
            raise ValueError("the writer is closed")
        height, width = row["size_hw"]
        still = row["pts_ms"] is None
        image = {
            "id": row["index"] + 1,
            "file_name": row["source"] if still else f"{self._files(row)}.jpg",
            "width": width,
            "height": height,
        }
        if not still:
            image |= {"video": row["source"], "frame_index": row["index"], "pts_ms": row["pts_ms"]}
        with writing_to(self._file.path):
            self._images.write((b",\n" if self._rows else b"\n") + json_bytes(image))
            for one in _boxes(row):
                self._count += 1
                self._found.setdefault(one["class_id"], one["class_name"])
                text = json_bytes(self._annotation(one, row["index"] + 1))
                self._out.write((b",\n" if self._count > 1 else b"\n") + text)
        self._rows += 1

    def close(self) -> None:
        """Complete the file and give it its name."""
        out, self._out = self._out, None
        if out is None:
            return
        try:
            with writing_to(self._file.path), out:
                out.write(b"],\n" + b'"images": [')
                self._images.seek(0)
                while chunk := self._images.read(1 << 20):
                    out.write(chunk)
                out.write(b'],\n"categories": ' + json_bytes(self._categories()) + b"}\n")
            self._file.publish()
        except BaseException:
            self._file.discard()
            raise
        finally:
            self._images.close()

    def abort(self) -> None:
        """Drop the file; never raises."""
        out, self._out = self._out, None
        if out is not None:
            out.close()
            self._images.close()
            self._file.discard()

    def _annotation(self, one: Mapping[str, Any], image_id: int) -> dict[str, Any]:
        x1, y1, x2, y2 = one["xyxy"]
        width, height = round(x2 - x1, 2), round(y2 - y1, 2)
        mask = one.get("mask")
        found = {
            "id": self._count,
            "image_id": image_id,
            "category_id": one["class_id"] + 1,
            "bbox": [x1, y1, width, height],
            "area": round(width * height, 2) if mask is None else rle_area(mask),
            "segmentation": [] if mask is None else mask,
            "iscrowd": 0,
            "score": one["confidence"],
        }
        return found if "tracker_id" not in one else {**found, "track_id": one["tracker_id"]}

    def _categories(self) -> list[dict[str, Any]]:
        known = dict(enumerate(self._names() or ()))
        named = {**self._found, **known}
        return [{"id": class_id + 1, "name": named[class_id]} for class_id in sorted(named)]


class VocWriter:
    """`voc/NAME.xml`, one an image or frame, also where nothing was found; failed frames have none.

    Args:
        place: makes the path of a named output.
    """

    def __init__(self, place: Place) -> None:
        self._place, self._files = place, FileNames()

    def write(self, row: Mapping[str, Any]) -> None:
        """Write one frame's file."""
        if "detections" not in row:
            return
        name = self._files(row)
        file = row["source"] if row["pts_ms"] is None else f"{name}.jpg"
        height, width = row["size_hw"]
        lines = [
            "<annotation>",
            f"  <filename>{_xml(file)}</filename>",
            f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
            "  <segmented>0</segmented>",
        ]
        for one in _boxes(row):
            x1, y1, x2, y2 = (f"{value:g}" if value == round(value) else f"{value:.2f}" for value in one["xyxy"])
            lines += [
                f"  <object><name>{_xml(one['class_name'])}</name><pose>Unspecified</pose>"
                "<truncated>0</truncated><difficult>0</difficult>",
                f"    <bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>",
                f"    <confidence>{one['confidence']}</confidence></object>",
            ]
        _write(self._place(f"voc/{name}.xml"), "\n".join([*lines, "</annotation>", ""]))

    def close(self) -> None:
        """Nothing is open."""

    def abort(self) -> None:
        """The run's folder goes as a whole."""


class YoloWriter:
    """`yolo/labels/NAME.txt`: `class x y width height` a line as shares of the image, centres first; and `data.yaml`.

    Confidences are left out: the files are labels, as training takes them.

    Args:
        place: makes the path of a named output.
        names: asked at the end for the class names.
    """

    def __init__(self, place: Place, names: Names) -> None:
        self._place, self._names, self._files = place, names, FileNames()
        self._found: dict[int, str] = {}

    def write(self, row: Mapping[str, Any]) -> None:
        """Write one frame's file, empty where nothing was found."""
        if "detections" not in row:
            return
        height, width = row["size_hw"]
        lines = []
        for one in _boxes(row):
            x1, y1, x2, y2 = one["xyxy"]
            self._found.setdefault(one["class_id"], one["class_name"])
            numbers = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
            lines.append(f"{one['class_id']} " + " ".join(f"{number:.7f}" for number in numbers))
        _write(self._place(f"yolo/labels/{self._files(row)}.txt"), "".join(f"{line}\n" for line in lines))

    def close(self) -> None:
        """Write the names."""
        named = dict(enumerate(self._names() or ())) or self._found
        lines = [f"  {class_id}: {json.dumps(named[class_id])}" for class_id in sorted(named)]
        text = "\n".join(["path: .", "train: images", "val: images", "names:" if lines else "names: []", *lines, ""])
        _write(self._place("yolo/data.yaml"), text)

    def abort(self) -> None:
        """The run's folder goes as a whole."""


def _boxes(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The detections of a row that have a whole box."""
    return [one for one in row.get("detections", ()) if None not in one["xyxy"]]


def _write(path: Path, text: str) -> None:
    with writing_to(path):
        path.write_bytes(text.encode("utf-8", "backslashreplace"))


def _xml(text: str) -> str:
    """Text as XML can hold it: characters that it cannot (control characters) become `?`."""
    kept = "".join(char if char >= " " and not "\ud800" <= char <= "\udfff" and char not in "\ufffe\uffff" else "?"
                   for char in text)  # fmt: skip
    return escape(kept)
