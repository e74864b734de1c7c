"""A folder of class folders as labelled samples: DATA/<class>/*.jpg, or DATA/train|val|test/<class>/*.jpg."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from visionkit.errors import InputError
from visionkit.io import original_name, printable_name
from visionkit.io.images import listing
from visionkit.io.paths import unreadable

__all__ = ["PARTS", "ClassFolders", "Problem", "Sample", "natural_key", "read_class_folders", "without_contradictions"]

PARTS = ("train", "val", "test")
_PART_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image: `name` is its printable path inside the data folder, with slashes."""

    name: str
    class_id: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about the data that the user should know, and that does not end the work.

    Args:
        kind: `damaged`, `empty-class`, `subfolder`, `duplicate` or `contradiction`.
        name: of the file or folder inside the data folder.
    """

    kind: str
    name: str
    reason: str


@dataclass(frozen=True)
class ClassFolders:
    """What a folder of class folders holds; nothing has been decoded.

    Args:
        classes: names in natural order (`2` before `10`), printable; a class id is a place in it.
        samples: in order of class and natural order of the file names.
        parts: the part of each sample, where the folder itself is split into train, val and test; else empty.
    """

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    parts: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def path(self, sample: Sample) -> Path:
        """Where the sample lies."""
        return self.root / original_name(sample.name)


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorts names as people do: runs of digits by their value, letters without their case."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], name


def read_class_folders(root: Path, classes: Iterable[str] | None = None) -> ClassFolders:
    """The classes and files of the folder `root`.

    Args:
        classes: class names in the order of their ids, such as a model's labels; without, the folders' names sorted.

    Raises:
        InputError: `input-missing`; `no-classes` where there are no folders of images; `unknown-class` where a folder
            is none of `classes`.
    """
    homes = _homes(root)
    found = {name for folders in homes.values() for name in folders}
    problems: list[Problem] = []
    files: dict[tuple[str, str], list[str]] = {}
    for part, folders in homes.items():
        for name, folder in folders.items():
            files[part, name] = _files(folder, printable_name(folder.relative_to(root)), problems)
    known = tuple(classes) if classes is not None else _filled(files, problems)
    if classes is not None and (strange := sorted(found - set(known), key=natural_key)):
        raise InputError(
            "unknown-class",
            f"{printable_name(root)} has folders that are none of the model's classes: {', '.join(strange[:5])}. "
            f"Its classes: {', '.join(known[:10])}{', …' if len(known) > 10 else ''}.",
        )
    if not any(files.values()):
        raise _no_classes(root)
    ids = {name: number for number, name in enumerate(known)}
    samples = [
        (Sample(f"{printable_name(homes[part][name].relative_to(root))}/{file}", ids[name]), part)
        for (part, name), names in sorted(files.items(), key=lambda item: ids.get(item[0][1], -1))
        for file in names
    ]
    parts = {sample.name: part for sample, part in samples if part}
    return ClassFolders(root, known, tuple(sample for sample, _ in samples), parts, tuple(problems))


def _homes(root: Path) -> dict[str, dict[str, Path]]:
    """The class folders by part ("" where the data has no parts) and name."""
    folders = {printable_name(path.name): path for path in _subfolders(root)}
    named = {name: _PART_NAMES.get(name.casefold()) for name in folders}
    if folders and all(named.values()) and "train" in named.values():
        homes: dict[str, dict[str, Path]] = {part: {} for part in PARTS}
        for name, part in named.items():
            homes[str(part)] |= {printable_name(path.name): path for path in _subfolders(folders[name])}
        if any(homes.values()):
            return homes
    if not folders:
        raise _no_classes(root)
    return {"": folders}


def _subfolders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise unreadable(error, printable_name(root)) from None


def _no_classes(root: Path) -> InputError:
    return InputError(
        "no-classes",
        f"{printable_name(root)} holds no folders of images; expected one folder a class, such as cats/1.jpg and "
        "dogs/1.jpg, or train/cats/1.jpg and val/cats/2.jpg.",
    )


def _files(folder: Path, shown: str, problems: list[Problem]) -> list[str]:
    """Printable names of the images of one class folder, in natural order."""
    if inner := _subfolders(folder):
        problems.append(Problem("subfolder", shown, f"has {len(inner)} folders inside, whose files are not used"))
    try:
        return [entry.name for entry in listing(folder)]
    except InputError as error:
        if error.slug != "no-images":
            raise
        return []


def _filled(files: Mapping[tuple[str, str], list[str]], problems: list[Problem]) -> tuple[str, ...]:
    """The classes that have an image in any part; the others are told."""
    counts: dict[str, int] = defaultdict(int)
    for (_, name), names in files.items():
        counts[name] += len(names)
    for name in sorted(counts, key=natural_key):
        if not counts[name]:
            problems.append(Problem("empty-class", name, "holds no image and is left out"))
    return tuple(sorted((name for name, count in counts.items() if count), key=natural_key))


def without_contradictions(
    samples: Iterable[Sample], digests: Mapping[str, str], classes: tuple[str, ...]
) -> tuple[list[Sample], list[Problem]]:
    """The samples whose image has one class only, and what is told of the others and of doubles.

    Args:
        digests: a digest of each file's bytes by sample name.
    """
    same: dict[str, list[Sample]] = defaultdict(list)
    everything = list(samples)
    for sample in everything:
        same[digests[sample.name]].append(sample)
    problems, wrong = [], set()
    for group in same.values():
        ids = sorted({sample.class_id for sample in group})
        names = ", ".join(sample.name for sample in group[1:4]) + (", …" if len(group) > 4 else "")
        if len(ids) > 1:
            wrong |= {sample.name for sample in group}
            told = " and ".join(classes[k] for k in ids)
            problems.append(
                Problem("contradiction", group[0].name, f"is the same image as {names}: {told}; all are left out")
            )
        elif len(group) > 1:
            problems.append(
                Problem("duplicate", group[0].name, f"is the same image as {names}; they stay in one part of the split")
            )
    return [sample for sample in everything if sample.name not in wrong], problems
