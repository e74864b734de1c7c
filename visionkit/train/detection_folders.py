"""Folders of images and boxes as samples: Pascal VOC's XML, COCO's JSON, YOLO's text files, OpenImages' CSV.

Boxes are continuous pixels, x from 0 to the image's width. COCO, YOLO and OpenImages write them so. Pascal VOC's
numbers are, by its definition, of pixels counted from 1 and inclusive; but the tools that write its XML and that
convert it to the other three take xmin, ymin, xmax, ymax as they stand, without a 1, so they are read as they stand:
the same boxes in the four formats are then the same boxes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError
from visionkit.io import printable_name, safe_text
from visionkit.io.image_header import HeaderError, read_header
from visionkit.io.paths import unreadable
from visionkit.io.probe import HEAD_BYTES, sniff
from visionkit.train.class_folders import Problem, natural_key
from visionkit.train.detection_raw import Finding, ImageFinder, Raw, RawImage

__all__ = ["LAYOUTS", "DetectionFolders", "DetectionSample", "read_detection_folders"]

LAYOUTS = ("voc", "coco", "yolo", "openimages")
HEAD, MOST_BYTES = 1 << 16, 1 << 28
BEYOND = 1.0  # pixels by which a box may leave its image before it is told


@dataclass(frozen=True, slots=True, eq=False)
class DetectionSample:
    """One image and its boxes.

    Args:
        name: printable path inside the data folder, with slashes.
        size_hw: of the upright image.
        xyxy: float32 (N, 4), inside of the image, none empty.
        class_id: int64 (N,), a place in the classes.
        difficult: bool (N,), boxes that VOC's evaluation does not count.
        crowd: bool (N,), boxes around many objects, which COCO's evaluation does not count.
    """

    name: str
    path: Path
    size_hw: tuple[int, int]
    xyxy: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.int64]
    difficult: npt.NDArray[np.bool_]
    crowd: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.xyxy)


@dataclass(frozen=True)
class DetectionFolders:
    """What a data set of boxes holds; no pixel has been decoded.

    Args:
        layout: one of `LAYOUTS`.
        classes: names; a class id is a place in them. The data's order, or of VOC and OpenImages natural order.
        samples: in natural order of the names, images without a box among them where the data says that they have none.
        parts: the part (train, val, test) of each sample, where the data itself is split; else empty.
        problems: what was left out or changed, and why.
    """

    root: Path
    layout: str
    classes: tuple[str, ...]
    samples: tuple[DetectionSample, ...]
    parts: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def select(self, part: str) -> list[DetectionSample]:
        """The samples of one part."""
        return [sample for sample in self.samples if self.parts.get(sample.name) == part]


def read_detection_folders(
    root: Path,
    *,
    images: Path | None = None,
    layout: str | None = None,
    classes: Sequence[str] | None = None,
) -> DetectionFolders:
    """The images and boxes in the folder or annotation file `root`.

    Known are Pascal VOC (`Annotations/*.xml`, `JPEGImages/` or `images/`, `ImageSets/Main/*.txt`), COCO (`*.json`, also
    in `annotations/`, or one file), YOLO (`data.yaml` or another YAML file with `names`, or `classes.txt`, with
    `labels/` beside `images/`) and OpenImages (`*.csv`). What is wrong with single boxes, labels or images is told in
    `problems` and left out; nothing of that kind ends the reading.

    Args:
        images: where the images lie, if not where the annotations say.
        layout: one of `LAYOUTS`; without, the first that fits.
        classes: names in the order of their ids, such as a model's labels; boxes of others are told and left out.

    Raises:
        InputError: `input-missing`; `no-boxes` where there is no image with annotations.
    """
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"`layout` must be one of {', '.join(LAYOUTS)}. Received: layout={layout!r}.")
    if not root.exists():
        raise InputError("input-missing", f"{printable_name(root)} does not exist. Check the path.")
    for name in LAYOUTS if layout is None else (layout,):
        raw = _reader(name)(root, Finding(classes, images))
        if raw is not None and raw.images:
            return _assemble(raw, root, images, classes, name)
        if raw is not None and raw.problems:
            raise _nothing(root, raw.problems)
    raise _nothing(root, [])


def _reader(layout: str) -> Callable[[Path, Finding], Raw | None]:
    module = importlib.import_module(f"visionkit.train.detection_{layout}")
    read: Callable[[Path, Finding], Raw | None] = module.read
    return read


def _nothing(root: Path, problems: Sequence[Problem]) -> InputError:
    told = "".join(f" {problem.name} {problem.reason}." for problem in problems[:3])
    return InputError(
        "no-boxes",
        f"{printable_name(root)} holds no image with boxes.{told} Expected Annotations/*.xml beside JPEGImages/ "
        "(Pascal VOC), a COCO .json, data.yaml or classes.txt with labels/ beside images/ (YOLO), or an OpenImages "
        ".csv.",
    )


def _assemble(
    raw: Raw, root: Path, images: Path | None, classes: Sequence[str] | None, layout: str
) -> DetectionFolders:
    problems = list(raw.problems)
    names = tuple(classes) if classes is not None else _classes(raw)
    ids = {name: number for number, name in enumerate(names)}
    home = root if root.is_dir() else root.parent
    finder = ImageFinder(home, images, raw.image_folders)
    samples: dict[str, DetectionSample] = {}
    parts: dict[str, str] = {}
    for one in raw.images:
        sample = _sample(one, finder, ids, problems)
        if sample is None:
            continue
        if sample.name in samples:
            problems.append(Problem("duplicate", sample.name, f"is annotated twice; {one.label} is not used"))
            continue
        samples[sample.name] = sample
        if one.part:
            parts[sample.name] = one.part
    if not samples:
        raise _nothing(root, problems)
    ordered = tuple(samples[name] for name in sorted(samples, key=natural_key))
    return DetectionFolders(root, layout, names, ordered, parts, tuple(problems))


def _classes(raw: Raw) -> tuple[str, ...]:
    """The data's own list, or the names that boxes have."""
    if raw.classes is not None:
        return raw.classes
    return tuple(sorted({name for one in raw.images for name in one.names}, key=natural_key))


def _sample(
    one: RawImage, finder: ImageFinder, ids: Mapping[str, int], problems: list[Problem]
) -> DetectionSample | None:
    path = finder(one)
    if path is None:
        problems.append(Problem("image-missing", one.label, f"has no image: {safe_text(one.file)} is not there"))
        return None
    try:
        size_hw = _size(path)
    except InputError as error:
        problems.append(Problem("damaged", one.label, f"has an image that cannot be used: {error.message}"))
        return None
    if one.size_hw is not None and one.size_hw != size_hw:
        problems.append(
            Problem(
                "size",
                one.label,
                f"says {one.size_hw[1]}x{one.size_hw[0]}, its image is {size_hw[1]}x{size_hw[0]}; the boxes are read "
                "as pixels of the image",
            )
        )
    boxes = one.xyxy * np.array([size_hw[1], size_hw[0]] * 2) if one.relative else one.xyxy
    keep, boxes = _checked_boxes(one, boxes, size_hw, problems)
    known = np.array([name in ids for name in one.names], bool)
    for name in sorted({name for name, there in zip(one.names, known, strict=True) if not there}):
        problems.append(Problem("class-unknown", one.label, f"has boxes of the class {safe_text(name)!r}, left out"))
    keep &= known
    chosen = np.flatnonzero(keep)
    return DetectionSample(
        finder.shown(path),
        path,
        size_hw,
        boxes[chosen].astype(np.float32).reshape(-1, 4),
        np.array([ids[one.names[k]] for k in chosen], np.int64),
        one.difficult[chosen],
        one.crowd[chosen],
    )


def _checked_boxes(
    one: RawImage, boxes: npt.NDArray[np.float64], size_hw: tuple[int, int], problems: list[Problem]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Which boxes are boxes, and all of them cut to the image."""
    finite = np.isfinite(boxes).all(axis=1)
    wide = finite & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    limit = np.array([size_hw[1], size_hw[0]] * 2, np.float64)
    cut = np.clip(np.nan_to_num(boxes, posinf=0, neginf=0), 0, limit)
    inside = (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])
    with np.errstate(invalid="ignore"):
        beyond = wide & inside & (np.abs(cut - boxes) > BEYOND).any(axis=1)
    told = {
        "box-invalid": (~finite, "with numbers that are not finite, left out"),
        "box-degenerate": (finite & ~wide, "without width or height, left out"),
        "box-outside": (wide & ~inside, f"outside of the image ({size_hw[1]}x{size_hw[0]}), left out"),
        "box-beyond": (beyond, f"beyond the image ({size_hw[1]}x{size_hw[0]}), cut"),
    }
    for kind, (where, reason) in told.items():
        if where.any():
            shown = ", ".join(f"{value:g}" for value in boxes[np.flatnonzero(where)[0]])
            count = int(where.sum())
            noun = "a box" if count == 1 else f"{count} boxes"
            problems.append(Problem(kind, one.label, f"has {noun} {reason}: ({shown})"))
    return wide & inside, cut


def _size(path: Path) -> tuple[int, int]:
    """Height and width of the upright image, from its header; the rest of the file is read only where that needs it."""
    shown = printable_name(path.name)
    try:
        with path.open("rb") as handle:
            data = handle.read(HEAD)
            kind = sniff(data[:HEAD_BYTES])
            if kind.kind != "image":
                raise InputError("input-undecodable", f"{shown} is not an image that VisionKit reads.")
            try:
                header = read_header(data, kind.format)
            except HeaderError:
                header = read_header(data + handle.read(MOST_BYTES), kind.format)
    except OSError as error:
        raise unreadable(error, shown) from None
    except HeaderError as error:
        raise InputError("input-undecodable", f"{shown}: {error}.") from None
    size = (header.height, header.width)
    return (size[1], size[0]) if header.orientation >= 5 else size
