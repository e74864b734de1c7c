"""Which images are learnt from, chosen on and held back: made from a seed, written down, and read again."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar

import numpy as np

from visionkit.errors import InputError
from visionkit.io import printable_name, write_json
from visionkit.train.class_folders import PARTS, Problem, Sample, natural_key

__all__ = ["Split", "block_split", "hold_back", "read_split", "stratified_split", "write_parts"]


@dataclass(frozen=True)
class Split:
    """Sample names by part: `train` is learnt from, `val` chooses the epoch, `test` is held back from both."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...] = ()

    def write(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Write the split as JSON, `facts` (seed, fractions …) before the names."""
        write_json(path, {**facts, **{part: list(getattr(self, part)) for part in PARTS}}, overwrite=True)

    def select(self, part: str, samples: Iterable[Sample]) -> list[Sample]:
        """The samples of one part, in their order."""
        names = set(getattr(self, part))
        return [sample for sample in samples if sample.name in names]


def stratified_split(
    samples: Sequence[Sample],
    *,
    val: float,
    test: float = 0.0,
    seed: int = 0,
    digests: Mapping[str, str] | None = None,
) -> Split:
    """A random split that gives every class the same fractions; images with the same digest stay together.

    Args:
        val: fraction of each class to choose on, of all its images; `test` likewise, held back.

    Raises:
        InputError: `class-too-small`; a class has too few different images to give one to each part.
    """
    _check_fractions(val, test)
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    by_class: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        by_class[sample.class_id][(digests or {}).get(sample.name, sample.name)].append(sample.name)
    for class_id, groups in sorted(by_class.items()):
        images = [groups[key] for key in sorted(groups, key=lambda key: natural_key(groups[key][0]))]
        counts = _counts(len(images), val, test, images[0][0])
        order = np.random.default_rng((seed, class_id)).permutation(len(images))
        start = 0
        for part, count in zip(("test", "val", "train"), counts, strict=True):
            chosen = sorted(order[start : start + count])
            parts[part] += [name for k in chosen for name in images[k]]
            start += count
    return Split(**{part: tuple(names) for part, names in parts.items()})


def block_split(samples: Sequence[Sample], *, val: float, test: float = 0.0, seed: int = 0, blocks: int = 20) -> Split:
    """A split by runs of file names: what was photographed together, whatever its class, falls into one part.

    The samples are sorted by file name over all classes and cut into `blocks` runs; whole runs are dealt out at random.
    Harder than a random split where neighbouring files show the same person, place or thing, and more honest.
    """
    _check_fractions(val, test)
    ordered = sorted(samples, key=lambda sample: natural_key(PurePosixPath(sample.name).name))
    runs = np.array_split(np.arange(len(ordered)), min(blocks, len(ordered)))
    counts = _counts(len(runs), val, test, "the data")
    order = np.random.default_rng(seed).permutation(len(runs))
    parts, start = {}, 0
    for part, count in zip(("test", "val", "train"), counts, strict=True):
        chosen = {ordered[i].name for run in order[start : start + count] for i in runs[run]}
        parts[part] = tuple(sample.name for sample in samples if sample.name in chosen)
        start += count
    return Split(**parts)


class Named(Protocol):
    """A sample of any task."""

    @property
    def name(self) -> str: ...


NamedSample = TypeVar("NamedSample", bound=Named)


def hold_back(
    samples: Sequence[NamedSample],
    parts: Mapping[str, str],
    *,
    val: float,
    seed: int,
    digests: Mapping[str, str],
    problems: list[Problem],
) -> tuple[list[NamedSample], list[NamedSample]]:
    """Samples to learn from and to choose the epoch on: as the data is split, or at random by the seed.

    Args:
        parts: of a sample's name, where the data says it; others are `train`.
        val: fraction to choose on, where no part is `val`.
        digests: of a sample's name; an image on both sides is noted in `problems`.

    Raises:
        InputError: `split-invalid`; one side is empty.
    """
    learn = [sample for sample in samples if parts.get(sample.name, "train") == "train"]
    held = [sample for sample in samples if parts.get(sample.name) == "val"]
    if not held:
        count = max(1, round(len(learn) * val))
        chosen = set(np.random.default_rng(seed).permutation(len(learn))[:count].tolist())
        held = [sample for k, sample in enumerate(learn) if k in chosen]
        learn = [sample for k, sample in enumerate(learn) if k not in chosen]
    if not learn or not held:
        raise InputError("split-invalid", "There must be an image to learn from and one to choose the epoch on.")
    same = {digests[sample.name] for sample in learn}
    problems += [
        Problem("leak", sample.name, "(val) is the same as an image to learn from: scores will be too good")
        for sample in held
        if digests[sample.name] in same
    ]
    return learn, held


def write_parts(path: Path, classes: Sequence[str], learn: Sequence[Named], held: Sequence[Named]) -> None:
    """Write the names of what is learnt from and of what chooses the epoch as JSON, the classes before them."""
    names = {"train": [sample.name for sample in learn], "val": [sample.name for sample in held]}
    write_json(path, {"classes": list(classes), **names}, overwrite=True)


def _check_fractions(val: float, test: float) -> None:
    if not (0 < val < 1 and 0 <= test < 1 and val + test < 1):
        raise ValueError(
            f"`val` must be above 0, `test` at least 0, and both together below 1. Received: val={val}, test={test}."
        )


def _counts(count: int, val: float, test: float, name: str) -> tuple[int, int, int]:
    """How many of `count` are held back, chosen on and learnt from: at least one of each that was asked for."""
    held = max(1, round(count * test)) if test else 0
    chosen = max(1, round(count * val))
    if held + chosen >= count:
        raise InputError(
            "class-too-small",
            f"The class of {name} has {count} different images, too few to learn from some, choose on "
            f"{'some and hold some back' if test else 'others'}. Add images or leave the class out.",
        )
    return held, chosen, count - held - chosen


def read_split(path: Path, samples: Sequence[Sample]) -> Split:
    """The split in the file `path`, of those of its names that are among `samples`.

    Raises:
        InputError: `split-invalid`; it is not a split, a name is in two parts, or none of a part's names is there.
    """
    shown = printable_name(path)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError("input-unreadable", f"{shown} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise InputError("split-invalid", f"{shown} is not JSON in UTF-8: {error}.") from None
    parts: dict[str, tuple[str, ...]] = {}
    there = {sample.name for sample in samples}
    for part in PARTS:
        names = table.get(part, []) if isinstance(table, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError("split-invalid", f'{shown} has no list of names "{part}"; expected what training wrote.')
        parts[part] = tuple(name for name in names if name in there)
        if names and not parts[part]:
            raise InputError("split-invalid", f'None of the {len(names)} names of "{part}" in {shown} is in the data.')
    total = sum(len(names) for names in parts.values())
    if len({name for names in parts.values() for name in names}) < total:
        raise InputError("split-invalid", f"{shown} has a name in two parts; each image must be in one.")
    return Split(**parts)
