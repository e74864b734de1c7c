"""What the readers of box annotations have in common: boxes as written, lists of names, and finding images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError
from visionkit.io import original_name, printable_name
from visionkit.io.images import listing
from visionkit.io.paths import unreadable
from visionkit.train.class_folders import Problem

__all__ = ["PART_NAMES", "Finding", "ImageFinder", "Raw", "RawImage", "entries", "part_of", "read_text"]

PART_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
MOST_TEXT = 1 << 26  # bytes of one small annotation file
IMAGE_FOLDERS = ("JPEGImages", "images", "image", "imgs", "img", "data")


@dataclass(frozen=True, slots=True)
class Finding:
    """What the caller already knows: class names in the order of their ids, and where the images lie; or None."""

    classes: Sequence[str] | None = None
    images: Path | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RawImage:
    """One image as its annotation has it; boxes are not checked.

    Args:
        label: printable name of the annotation, for messages.
        file: the image's path or file name as written.
        xyxy: float64 (N, 4), pixels, or fractions of the image's width and height where `relative`.
        names: class names, one a box.
        near: folders to look in first.
    """

    label: str
    file: str
    xyxy: npt.NDArray[np.float64]
    names: list[str]
    difficult: npt.NDArray[np.bool_]
    crowd: npt.NDArray[np.bool_]
    part: str = ""
    size_hw: tuple[int, int] | None = None
    relative: bool = False
    near: tuple[Path, ...] = ()


@dataclass
class Raw:
    """Everything a reader found; `classes` is the data's own list of names, if it has one."""

    images: list[RawImage] = field(default_factory=list)
    classes: tuple[str, ...] | None = None
    problems: list[Problem] = field(default_factory=list)
    image_folders: tuple[Path, ...] = ()


class ImageFinder:
    """Finds the image of an annotation: at its path, else by its name or stem in the folders of images.

    Args:
        root: of the data; `images` is asked before anything else, if given; then `folders`.
    """

    def __init__(self, root: Path, images: Path | None, folders: Sequence[Path]) -> None:
        self._root = root
        self._given = images
        self._folders = [images] if images is not None else [*folders, *(root / name for name in IMAGE_FOLDERS), root]
        self._index: dict[str, Path] | None = None

    def __call__(self, one: RawImage) -> Path | None:
        """Where the image lies, None where it is not found."""
        written = Path(one.file.replace("\\", "/"))
        if ".." not in written.parts and not written.is_absolute():
            for folder in (*one.near, *self._folders):
                if self._given is not None and folder in one.near:
                    continue
                path = folder / written
                if written.suffix and _is_file(path):
                    return path
        index = self._names()
        return index.get(written.name) or index.get(written.stem)

    def shown(self, path: Path) -> str:
        """The printable name of an image: inside the data folder, or of the folder of images."""
        for home in (self._root, *([] if self._given is None else [self._given])):
            if path.is_relative_to(home):
                return printable_name(path.relative_to(home).as_posix())
        return printable_name(path.name)

    def _names(self) -> dict[str, Path]:
        """Files by name and by stem, those of the first folder first."""
        if self._index is None:
            self._index = {}
            for folder in self._folders:
                for entry in entries(folder):
                    path = folder / original_name(entry)
                    self._index.setdefault(path.name, path)
                    self._index.setdefault(path.stem, path)
        return self._index


def entries(folder: Path) -> list[str]:
    """Printable names of the images of a folder; none where there are none."""
    try:
        return [entry.name for entry in listing(folder)] if folder.is_dir() else []
    except InputError as error:
        if error.slug not in ("no-images", "input-missing"):
            raise
        return []


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_text(path: Path, *, most: int = MOST_TEXT) -> str:
    """A file of text in UTF-8.

    Raises:
        InputError: `input-unreadable`, `input-too-large`, or `annotation-invalid` where it is not UTF-8.
    """
    shown = printable_name(path.name)
    try:
        if path.stat().st_size > most:
            raise InputError("input-too-large", f"{shown} has more than {most} bytes.")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("annotation-invalid", f"{shown} is no text in UTF-8.") from None
    except OSError as error:
        raise unreadable(error, shown) from None


def part_of(name: str) -> str:
    """The part that a file's or folder's name speaks of (`instances_val2017` of val), else an empty string."""
    words = "".join(c if c.isalpha() else " " for c in name.casefold()).split()
    return next((PART_NAMES[word] for word in words if word in PART_NAMES), "")


def folders_in(root: Path) -> Iterator[Path]:
    """The folders inside of a folder, sorted."""
    try:
        yield from sorted(Path(entry.path) for entry in os.scandir(root) if entry.is_dir())
    except OSError as error:
        raise unreadable(error, printable_name(root)) from None
