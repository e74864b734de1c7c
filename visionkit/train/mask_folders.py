"""Folders of images and masks as samples: CamVid's layout, VOC's, or images/ beside masks/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from visionkit.errors import InputError
from visionkit.io import original_name, printable_name
from visionkit.io.images import listing
from visionkit.io.paths import unreadable
from visionkit.resources import models_dir
from visionkit.train.class_folders import Problem, natural_key

__all__ = ["LABEL_SETS", "VOID", "LabelSet", "MaskFolders", "MaskSample", "read_labels", "read_mask_folders"]

VOID = 255  # of pixels that nobody learns from and nobody counts
PART_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
IMAGES = ("images", "image", "imgs", "img", "JPEGImages")
MASKS = ("masks", "mask", "labels", "label", "annotations", "annot", "SegmentationClass")
SUFFIXES = ("", "_mask", "_label", "_labels", "_gt", "_L", "_seg")  # of a mask's stem after the image's


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Names of the classes by number, and the numbers in masks that mean "no class" (255 always does)."""

    names: tuple[str, ...]
    void: frozenset[int] = frozenset()


LABEL_SETS = {
    # Brostow, Fauqueur, Cipolla, PRL 2009, in the eleven classes of SegNet's authors
    "camvid": LabelSet(
        (
            "sky",
            "building",
            "pole",
            "road",
            "pavement",
            "tree",
            "sign",
            "fence",
            "car",
            "pedestrian",
            "bicyclist",
        ),
        frozenset({11}),
    ),
}


@dataclass(frozen=True, slots=True)
class MaskSample:
    """An image and its mask: printable paths inside the data folder, with slashes."""

    name: str
    mask: str


@dataclass(frozen=True)
class MaskFolders:
    """What a folder of images and masks holds; nothing has been decoded.

    Args:
        layout: `camvid`, `voc` or `pairs`.
        samples: in natural order of the names.
        parts: the part (train, val, test) of each sample, where the data itself is split; else empty.
        problems: images without a mask, masks without an image, names in a list that are not there.
    """

    root: Path
    layout: str
    samples: tuple[MaskSample, ...]
    parts: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def path(self, name: str) -> Path:
        """Where an image or mask lies."""
        return self.root / original_name(name)

    def select(self, part: str) -> list[MaskSample]:
        """The samples of one part."""
        return [sample for sample in self.samples if self.parts.get(sample.name) == part]


def read_mask_folders(root: Path) -> MaskFolders:
    """The pairs of image and mask in the folder `root`.

    Known are `train/` beside `trainannot/` (and `val/`, `test/` so); `JPEGImages/`, `SegmentationClass/` and
    `ImageSets/Segmentation/*.txt`; `images/` beside `masks/`, also inside of `train/` and `val/`. A mask has its
    image's name, or that and `_mask`, `_label`, `_gt`, `_L` or `_seg`.

    Raises:
        InputError: `input-missing`; `no-masks` where there is no pair.
    """
    for name, read in (("camvid", _camvid), ("voc", _voc), ("pairs", _pairs)):
        problems: list[Problem] = []
        found = read(root, problems)
        if found is None:
            continue
        if not found:
            raise _nothing(root, problems)
        parts = {sample.name: part for sample, part in found if part}
        samples = tuple(sample for sample, _ in found)
        return MaskFolders(root, name, samples, parts, tuple(problems))
    raise _nothing(root, [])


def read_labels(given: str) -> LabelSet:
    """Class names: of a known set (`camvid`, or a list that VisionKit ships), or of a text file, one a line.

    Raises:
        InputError: `labels-unknown`; it is neither.
    """
    if given in LABEL_SETS:
        return LABEL_SETS[given]
    shipped = models_dir() / "labels" / f"{given}.txt"
    path = shipped if "/" not in given and "\\" not in given and shipped.is_file() else Path(given)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines() if path.stat().st_size < 1_000_000 else []
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join([*LABEL_SETS, *sorted(file.stem for file in (models_dir() / "labels").glob("*.txt"))])
        raise InputError(
            "labels-unknown", f"{printable_name(given)} is no text file with class names ({error}), nor any of {known}."
        ) from None
    names = tuple(printable_name(line.strip()) for line in lines if line.strip())
    if not names or len(names) > VOID or len(set(names)) < len(names):
        raise InputError(
            "labels-unknown",
            f"{printable_name(given)} must have 1 to {VOID} different class names, one a line. It has {len(names)}, "
            f"{len(set(names))} different.",
        )
    return LabelSet(names)


def _nothing(root: Path, problems: Sequence[Problem]) -> InputError:
    told = "".join(f" {problem.name} {problem.reason}." for problem in problems[:3])
    return InputError(
        "no-masks",
        f"{printable_name(root)} holds no pair of image and mask.{told} Expected train/ beside trainannot/, or "
        "JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/, or images/ beside masks/ (also inside of train/ "
        "and val/), each mask named like its image.",
    )


Found = list[tuple[MaskSample, str]]


def _camvid(root: Path, problems: list[Problem]) -> Found | None:
    folders = _subfolders(root)
    pairs = [(name, f"{name}annot") for name in sorted(folders) if f"{name}annot" in folders and name in PART_NAMES]
    if not pairs:
        return None
    found: Found = []
    for images, masks in sorted(pairs, key=lambda pair: list(PART_NAMES).index(pair[0])):
        part = PART_NAMES[images]
        found += [(sample, part) for sample in _match(root, images, masks, problems)]
    return found


def _voc(root: Path, problems: list[Problem]) -> Found | None:
    folders = _subfolders(root)
    lists = root / "ImageSets" / "Segmentation"
    if not {"JPEGImages", "SegmentationClass"} <= folders or not lists.is_dir():
        return None
    named: dict[str, str] = {}
    for part in ("test", "val", "train"):  # a name in two lists belongs to train
        path = lists / f"{part}.txt"
        if path.is_file():
            named |= dict.fromkeys(_words(path), part)
    found: Found = []
    inner: list[Problem] = []
    # most images of VOC have no mask: only names of the lists are told
    by_stem = {Path(s.name).stem: s for s in _match(root, "JPEGImages", "SegmentationClass", inner)}
    for stem, part in sorted(named.items(), key=lambda item: natural_key(item[0])):
        if stem in by_stem:
            found.append((by_stem[stem], part))
        else:
            problems.append(Problem("unmatched", printable_name(stem), f"of {part}.txt has no image or no mask"))
    return found


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except UnicodeDecodeError:
        raise InputError("split-invalid", f"{printable_name(path.name)} is no list of names in UTF-8.") from None
    except OSError as error:
        raise unreadable(error, printable_name(path)) from None


def _pairs(root: Path, problems: list[Problem]) -> Found | None:
    folders = _subfolders(root)
    inside = {name: part for name, part in PART_NAMES.items() if name in folders}
    if "train" in inside:
        found: Found = []
        for name, part in inside.items():
            pair = _pair_of(root / name)
            if pair is not None:
                matched = _match(root, f"{name}/{pair[0]}", f"{name}/{pair[1]}", problems)
                found += [(sample, part) for sample in matched]
        if found or problems:
            return found
    pair = _pair_of(root)
    if pair is None:
        return None
    if "train" in _subfolders(root / pair[0]):  # images/train beside masks/train
        found = []
        for name in sorted(_subfolders(root / pair[0]) & set(PART_NAMES)):
            matched = _match(root, f"{pair[0]}/{name}", f"{pair[1]}/{name}", problems)
            found += [(sample, PART_NAMES[name]) for sample in matched]
        return found
    return [(sample, "") for sample in _match(root, *pair, problems)]


def _pair_of(root: Path) -> tuple[str, str] | None:
    folders = _subfolders(root)
    images = next((name for name in IMAGES if name in folders), None)
    masks = next((name for name in MASKS if name in folders and name != images), None)
    return None if images is None or masks is None else (images, masks)


def _subfolders(root: Path) -> set[str]:
    try:
        return {path.name for path in root.iterdir() if path.is_dir()}
    except OSError as error:
        raise unreadable(error, printable_name(root)) from None


def _match(root: Path, images: str, masks: str, problems: list[Problem]) -> list[MaskSample]:
    """The pairs of two folders; what is alone is told."""
    by_stem = {Path(name).stem: name for name in _files(root / masks)}
    samples, used = [], set()
    for name in _files(root / images):
        stem = Path(name).stem
        mask = next((by_stem[stem + suffix] for suffix in SUFFIXES if stem + suffix in by_stem), None)
        if mask is None:
            problems.append(Problem("unmatched", f"{images}/{name}", f"has no mask in {masks}/"))
            continue
        used.add(mask)
        samples.append(MaskSample(f"{images}/{name}", f"{masks}/{mask}"))
    for name in sorted(set(by_stem.values()) - used, key=natural_key):
        problems.append(Problem("unmatched", f"{masks}/{name}", f"has no image in {images}/"))
    return samples


def _files(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in listing(folder)]
    except InputError as error:
        if error.slug not in ("no-images", "input-missing"):
            raise
        return []
