"""The images on which ranges are measured: chosen to differ from each other, and made the network's inputs."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError, UsageError
from visionkit.runtime.base import Array
from visionkit.tasks.input_rule import InputRule

__all__ = ["Calibration", "choose_calibration", "describe", "spread_out"]

Image = npt.NDArray[np.uint8]
Source = str | os.PathLike[str] | Sequence[Any]

CANDIDATES = 6  # times as many as are wanted are looked at
LONGEST = 1600  # pixels of the longer side that are kept of an image
COLOUR_CELLS, EDGE_CELLS, DIRECTIONS = 4, 3, 6


@dataclass(frozen=True)
class Calibration:
    """Example images, or network inputs that were made of them elsewhere.

    Args:
        images: uint8 (H, W, 3) BGR.
        inputs: float32 (h, w, C), normalised as the network's card says; then there are no images.
        feeds: what reached each network, by signature, while the task ran; then there is neither.
        names: what each is called in its source.
        reference: images of the same kind that are known to be read rightly, to check colours against.
        trusted: faults that the checks find are passed over.
        facts: of the choice, for the artifact's description.
    """

    images: tuple[Image, ...] = ()
    inputs: tuple[npt.NDArray[np.float32], ...] = ()
    names: tuple[str, ...] = ()
    reference: tuple[Image, ...] = ()
    trusted: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    feeds: Mapping[str, Sequence[Mapping[str, Array]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if [bool(self.images), bool(self.inputs), bool(self.feeds)].count(True) != 1:
            raise ValueError(
                "a calibration has `images` or `inputs`, and at least one. "
                f"Received: {len(self.images)} images, {len(self.inputs)} inputs."
            )

    def __len__(self) -> int:
        return len(self.images) or len(self.inputs) or max(len(feeds) for feeds in self.feeds.values())

    @property
    def given(self) -> Sequence[Array]:
        """The images, or the inputs; none where there are feeds."""
        return self.images or self.inputs

    @property
    def sha256(self) -> str:
        """Of what is in it."""
        digest = hashlib.sha256()
        recorded = [array for feeds in self.feeds.values() for feed in feeds for array in feed.values()]
        for one in (*self.given, *recorded):
            digest.update(f"{one.shape}".encode() + np.ascontiguousarray(one).tobytes())
        return digest.hexdigest()

    def few(self, count: int) -> Calibration:
        """So many at even distances, which nobody checks again."""
        images, inputs = (tuple(_spread(given, count)) for given in (self.images, self.inputs))
        feeds = {name: _spread(given, count) for name, given in self.feeds.items()}
        return dataclasses.replace(self, images=images, inputs=inputs, feeds=feeds, trusted=True)

    def network_inputs(self, rule: InputRule) -> list[npt.NDArray[np.float32]]:
        """The network's inputs float32 (1, h, w, C), one by one.

        Raises:
            UsageError: `calibration-shape`, inputs that are not of the rule's size.
        """
        if self.images:
            return [rule(image)[None] for image in self.images]
        wanted = (*rule.size_hw, rule.channels)
        found = [np.ascontiguousarray(one, np.float32).reshape(one.shape[-3:]) for one in self.inputs]
        for one in found:
            if one.shape != wanted:
                raise UsageError(
                    "calibration-shape", f"the calibration's inputs must be {wanted}. Received: {one.shape}."
                )
        return [one[None] for one in found]


def _spread(given: Sequence[Any], count: int) -> list[Any]:
    """So many at even distances, or all."""
    count = min(count, len(given))
    return [given[k * len(given) // count] for k in range(count)]


def choose_calibration(
    source: Source,
    count: int = 128,
    seed: int = 0,
    *,
    reference: Source | None = None,
    trusted: bool = False,
) -> Calibration:
    """Up to `count` images that differ from each other as much as the source allows; the same ones each time.

    Of at most `CANDIDATES * count` images (frames at even distances, files at random) each next one is the farthest
    from those that were chosen (Gonzalez, Clustering to minimize the maximum intercluster distance, 1985), by small
    descriptors of colours and edges, the first one the nearest to the mean.

    Args:
        source: a folder (of images, or of folders of images), a glob, a video; a list of paths, of images uint8
            (H, W, 3) BGR, or of network inputs float32 (h, w, C); a `.npy` or `.npz` with such inputs (N, h, w, C).
        count: how many.
        seed: of the candidates' choice.
        reference: images that are known to be read rightly, as `source`; a few of them are enough.
        trusted: faults that the checks find are passed over.

    Raises:
        InputError: the source holds no image that can be read.
        UsageError: `calibration-empty`; `calibration-unfit`, a list of something else.
    """
    if count < 1:
        raise ValueError(f"`count` must be a positive integer. Received: count={count!r}.")
    known = () if reference is None else tuple(image for _, image in _Pictures(reference, 64, seed).read())
    inputs = _given_inputs(source)
    if inputs is not None:
        order = spread_out(np.stack([_input_descriptor(one) for one in inputs]), count)
        chosen = tuple(inputs[i] for i in order)
        facts: dict[str, Any] = {"count": len(chosen), "of": len(inputs), "seed": seed}
        return Calibration((), chosen, tuple(map(str, order)), known, trusted, facts)
    pictures = _Pictures(source, CANDIDATES * count, seed)
    names, descriptors = [], []
    for name, image in pictures.read():
        names.append(name)
        descriptors.append(describe(image))
    if not names:
        raise InputError("calibration-empty", f"{pictures.label} holds no image that can be read; name another source.")
    order = sorted(spread_out(np.stack(descriptors), count))
    images = tuple(_shrunk(image) for i, (_, image) in enumerate(pictures.read()) if i in set(order))
    facts = {"source": pictures.label, "count": len(images), "of": len(names), "seed": seed}
    return Calibration(images, (), tuple(names[i] for i in order), known, trusted, facts)


def describe(image: Image) -> npt.NDArray[np.float32]:
    """What an image looks like in few numbers, float32 (D,): colours in 4x4 cells, edges by direction in 3x3 cells.

    Each of the two parts has about the length 1 for photographs, so that neither decides alone.
    """
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    colours = cv2.resize(small, (COLOUR_CELLS, COLOUR_CELLS), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(colours, cv2.COLOR_BGR2Lab).astype(np.float32) / 255
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32) / 255
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    strength, angle = np.hypot(dx, dy), np.arctan2(dy, dx) % np.pi
    direction = np.minimum((angle * (DIRECTIONS / np.pi)).astype(np.int64), DIRECTIONS - 1)
    cell = np.minimum(np.arange(64) * EDGE_CELLS // 64, EDGE_CELLS - 1)
    place = (cell[:, None] * EDGE_CELLS + cell[None]) * DIRECTIONS + direction
    edges = np.bincount(place.ravel(), strength.ravel(), EDGE_CELLS**2 * DIRECTIONS) / (64 * 64 / EDGE_CELLS**2)
    return np.concatenate([lab.ravel() / np.sqrt(lab.size) * 2, edges]).astype(np.float32)


def spread_out(descriptors: npt.NDArray[np.float32], count: int) -> list[int]:
    """Indices of up to `count` rows, each the farthest from those before it; the first is the nearest to the mean.

    Args:
        descriptors: float32 (N, D).
        count: how many; rows that are equal to a chosen one are not chosen.
    """
    first = int(np.square(descriptors - descriptors.mean(axis=0)).sum(axis=1).argmin())
    chosen = [first]
    distance = np.square(descriptors - descriptors[first]).sum(axis=1)
    while len(chosen) < count:
        index = int(distance.argmax())
        if distance[index] <= 0:
            break
        chosen.append(index)
        distance = np.minimum(distance, np.square(descriptors - descriptors[index]).sum(axis=1))
    return chosen


class _Pictures:
    """Up to `most` images of a source, that can be read again in the same order; damaged ones are passed over."""

    def __init__(self, source: Source, most: int, seed: int) -> None:
        self.arrays: list[Image] | None = None
        self.paths: list[Path] | None = None
        self.stride, self.source = 1, source
        if isinstance(source, str | os.PathLike):
            self.label = Path(source).name or os.fspath(source)
            self._look(Path(source), most, seed)
            return
        items = list(source)
        if not items:
            raise UsageError("calibration-empty", "the calibration holds no image.")
        self.label = f"{len(items)} images"
        items = _some(items, most, seed)
        if all(isinstance(item, np.ndarray) for item in items):
            self.arrays = [_checked(item) for item in items]
        elif all(isinstance(item, str | os.PathLike) for item in items):
            self.paths = [Path(item) for item in items]
        else:
            kinds = ", ".join(sorted({type(item).__name__ for item in items}))
            raise UsageError(
                "calibration-unfit", f"a calibration is a list of images or of paths. Received: a list of {kinds}."
            )

    def _look(self, path: Path, most: int, seed: int) -> None:
        from visionkit.io.source import open_source

        if path.is_dir() and (files := _files(path)):
            self.paths = _some(files, most, seed)
            return
        with open_source(path) as source:
            total = source.info.frame_count or 0
        self.stride = max(1, total // most)

    def read(self) -> Iterator[tuple[str, Image]]:
        """Names and images uint8 (H, W, 3) BGR."""
        from visionkit.io.images import read_image
        from visionkit.io.source import open_source

        if self.arrays is not None:
            yield from ((str(i), image) for i, image in enumerate(self.arrays))
        elif self.paths is not None:
            for path in self.paths:
                try:
                    image = read_image(path)
                except InputError:
                    continue
                yield path.name, image
        else:
            with open_source(self.source, stride=self.stride) as frames:  # type: ignore[arg-type]
                for frame in frames:
                    yield f"{frame.source}#{frame.index}", frame.image


def _files(folder: Path) -> list[Path]:
    """The images of a folder and of those in it, in the order of their names."""
    from visionkit.io.images import listing

    found: list[Path] = []
    for place in [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]:
        try:
            found += [entry.path for entry in listing(place)]
        except InputError as error:
            if error.slug != "no-images":
                raise
    return found


def _some(items: list[Any], most: int, seed: int) -> list[Any]:
    """Up to `most` of them, at random but always the same, in their order."""
    if len(items) <= most:
        return items
    return [items[i] for i in sorted(np.random.default_rng(seed).choice(len(items), most, replace=False).tolist())]


def _checked(item: Array) -> Image:
    if item.dtype == np.uint8 and item.ndim == 3 and item.shape[2] == 3:
        return item
    raise UsageError(
        "calibration-unfit",
        f"an image is uint8 (H, W, 3) BGR, a network input float32 (h, w, C). Received: {item.dtype} {item.shape}.",
    )


def _given_inputs(source: Source) -> list[npt.NDArray[np.float32]] | None:
    """Network inputs float32 (h, w, C), where that is what the source holds."""
    given: Any = source
    if isinstance(source, str | os.PathLike):
        if Path(source).suffix.lower() not in (".npy", ".npz"):
            return None
        given = _loaded(Path(source))
    if not all(isinstance(item, np.ndarray) for item in given):
        return None
    items = list(given)
    if not items or any(item.dtype.kind != "f" for item in items):
        return None
    items = [item[0] if item.ndim == 4 and len(item) == 1 else item for item in items]
    if any(item.ndim != 3 for item in items):
        raise UsageError("calibration-unfit", f"network inputs are (h, w, C). Received: {items[0].shape}.")
    return [np.asarray(item, np.float32) for item in items]


def _loaded(path: Path) -> Array:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return np.asarray(loaded[loaded.files[0]])
    except (OSError, ValueError, EOFError, IndexError) as error:
        raise InputError("input-undecodable", f"{path.name} holds no array that can be read: {error}.") from error


def _input_descriptor(one: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    small = cv2.resize(np.ascontiguousarray(one), (8, 8), interpolation=cv2.INTER_AREA)
    return np.nan_to_num(small.ravel()).astype(np.float32)


def _shrunk(image: Image) -> Image:
    longer = max(image.shape[:2])
    if longer <= LONGEST:
        return image
    scale = LONGEST / longer
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
