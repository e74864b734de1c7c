"""The pixels of images and masks: checked once, kept where they fit into memory, handed out in batches."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError
from visionkit.io.images import decode_image
from visionkit.tasks.input_rule import InputRule
from visionkit.train.class_folders import Problem
from visionkit.train.mask_files import decode_mask
from visionkit.train.mask_folders import VOID, LabelSet, MaskFolders, MaskSample
from visionkit.train.segment_augment import SegmentAugmentation

__all__ = ["CheckedMasks", "MaskBatches", "SegmentMaterial", "check_masks", "class_weights"]

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]
Pair = tuple[Image, Mask]
CACHE_BYTES = 2 << 30
MOST_BYTES = 1 << 28  # of one file
AHEAD = 3  # batches prepared while one is learnt from


class SegmentMaterial:
    """Images and masks of folders, decoded when asked for and kept up to `cache_bytes`; for several threads.

    Args:
        labels: names and void numbers; a void pixel of what is handed out is 255.
    """

    def __init__(self, folders: MaskFolders, labels: LabelSet, *, cache_bytes: int = CACHE_BYTES) -> None:
        self.folders, self.labels = folders, labels
        self._kept: dict[str, Pair] = {}
        self._room, self._lock = cache_bytes, threading.Lock()
        self._table = np.arange(256, dtype=np.uint8)
        self._table[list(labels.void)] = VOID

    def __call__(self, sample: MaskSample) -> Pair:
        """Image uint8 (H, W, 3) BGR upright and mask uint8 (H, W) of class numbers, 255 where void.

        Raises:
            InputError: one of them cannot be read or decoded; `mask-size` where their sizes differ; `mask-unknown`
                where a number is no class.
        """
        kept = self._kept.get(sample.name)
        if kept is None:
            kept = self.load(sample)[0]
            size = kept[0].nbytes + kept[1].nbytes
            with self._lock:
                if sample.name not in self._kept and size <= self._room:
                    self._kept[sample.name] = kept
                    self._room -= size
        return kept

    def load(self, sample: MaskSample) -> tuple[Pair, str]:
        """The pair, and a digest of both files."""
        image_bytes, mask_bytes = self._bytes(sample.name), self._bytes(sample.mask)
        image = decode_image(image_bytes, name=sample.name)[0]
        mask = decode_mask(mask_bytes, sample.mask)
        if image.shape[:2] != mask.shape:
            raise InputError(
                "mask-size",
                f"{sample.mask} is {mask.shape[1]}x{mask.shape[0]}, its image {sample.name} is "
                f"{image.shape[1]}x{image.shape[0]}.",
            )
        there = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
        unknown = [int(k) for k in there if self._table[k] != VOID and k >= len(self.labels.names)]
        if self.labels.names and unknown:
            raise InputError(
                "mask-unknown",
                f"{sample.mask} has the numbers {', '.join(map(str, unknown[:8]))}{', …' if len(unknown) > 8 else ''}; "
                f"the {len(self.labels.names)} classes are 0 to {len(self.labels.names) - 1}, void is "
                f"{', '.join(map(str, sorted(self.labels.void | {VOID})))}. --void N makes a number void.",
            )
        digest = hashlib.sha256(image_bytes + mask_bytes).hexdigest()
        return (image, self._table[mask]), digest

    def _bytes(self, name: str) -> bytes:
        path = self.folders.path(name)
        try:
            if path.stat().st_size > MOST_BYTES:
                raise InputError("image-too-large", f"{name} has more than {MOST_BYTES} bytes.")
            return path.read_bytes()
        except OSError as error:
            raise InputError("input-unreadable", f"{name} cannot be read: {error.strerror}.") from None


@dataclass(frozen=True)
class CheckedMasks:
    """Samples whose image and mask fit, and what was wrong with others.

    Args:
        pixels: int64 (N, 256), of each sample the pixels of each class number.
        digests: by name, of both files.
    """

    samples: list[MaskSample]
    pixels: npt.NDArray[np.int64]
    digests: dict[str, str]
    problems: list[Problem] = field(default_factory=list)


def check_masks(material: SegmentMaterial, samples: Sequence[MaskSample] | None = None) -> CheckedMasks:
    """Every pair decoded once; what cannot be used is told by name and left out.

    Raises:
        InputError: `no-masks` where not one can be used; it tells the first reason.
    """
    good, rows, digests, problems = [], [], {}, list(material.folders.problems)
    for sample in material.folders.samples if samples is None else samples:
        try:
            (_, mask), digest = material.load(sample)
        except InputError as error:
            problems.append(Problem(error.slug, sample.name, error.message))
            continue
        good.append(sample)
        rows.append(np.bincount(mask.ravel(), minlength=256))
        digests[sample.name] = digest
    if not good:
        raise InputError("no-masks", f"Not one pair of image and mask can be used: {problems[-1].reason}")
    return CheckedMasks(good, np.array(rows, np.int64), digests, problems)


def class_weights(pixels: npt.NDArray[np.int64], kind: str) -> npt.NDArray[np.float32]:
    """Weights (L,) of the classes in the loss from pixels (N, L) of each image and class.

    Args:
        kind: `none`, all 1; `median`, the median frequency over the class's own (Eigen, Fergus, Predicting depth,
            surface normals and semantic labels, ICCV 2015, section 4.3.2: frequency counts only images that have the
            class); `sqrt`, the root of that. A class without pixels weighs 1.
    """
    if kind not in ("none", "median", "sqrt"):
        raise ValueError(f"`kind` must be none, median or sqrt. Received: kind={kind!r}.")
    counted = pixels.sum(axis=0).astype(np.float64)
    weights = np.ones(pixels.shape[1])
    there = counted > 0
    if kind == "none" or not there.any():
        return weights.astype(np.float32)
    of_images = np.where(pixels > 0, pixels.sum(axis=1, keepdims=True), 0).sum(axis=0)
    frequency = counted[there] / of_images[there]
    weights[there] = (np.median(frequency) / frequency) ** (1.0 if kind == "median" else 0.5)
    return weights.astype(np.float32)


class MaskBatches:
    """Batches of changed views with their masks, endless and the same for a seed whatever the number of threads.

    Args:
        rule: how an image becomes the network's input; a view of `crop_hw` is cut from an image of its size.
    """

    def __init__(
        self,
        material: SegmentMaterial,
        samples: Sequence[MaskSample],
        rule: InputRule,
        augmentation: SegmentAugmentation,
        *,
        crop_hw: tuple[int, int],
        batch: int,
        seed: int,
        workers: int = 1,
    ) -> None:
        self._material, self._samples, self._rule = material, list(samples), rule
        self._augmentation, self._crop_hw = augmentation, crop_hw
        self._seed, self._workers = seed, workers
        self.batch = min(batch, len(self._samples))
        self.steps_per_epoch = len(self._samples) // self.batch

    def stream(self, first: int) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[Any]]]:
        """Batches number `first`, `first` + 1 …: images float32 (B, h, w, 3), class numbers int32 (B, h, w)."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="augment") as pool:
            pending: list[list[Future[tuple[npt.NDArray[np.float32], Mask]]]] = []
            step = first
            try:
                while True:
                    while len(pending) <= AHEAD:
                        pending.append([pool.submit(self._view, *one) for one in self._chosen(step + len(pending))])
                    views = [future.result() for future in pending.pop(0)]
                    yield np.stack([x for x, _ in views]), np.stack([y for _, y in views]).astype(np.int32)
                    step += 1
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _chosen(self, step: int) -> list[tuple[MaskSample, tuple[int, int, int]]]:
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._samples))
        chosen = order[place * self.batch : (place + 1) * self.batch]
        return [(self._samples[k], (self._seed, epoch, int(k))) for k in chosen]

    def _view(self, sample: MaskSample, key: tuple[int, int, int]) -> tuple[npt.NDArray[np.float32], Mask]:
        image, mask = self._material(sample)
        x1, y1, x2, y2 = self._rule.window((image.shape[0], image.shape[1]))
        scale = (self._rule.size_hw[1] / (x2 - x1), self._rule.size_hw[0] / (y2 - y1))
        if max(scale) < 0.7:  # a linear view of a much larger image would skip pixels
            size_wh = tuple(max(1, round(n * k * 1.4)) for n, k in zip(image.shape[1::-1], scale, strict=True))
            scale = (scale[0] * image.shape[1] / size_wh[0], scale[1] * image.shape[0] / size_wh[1])
            image = np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), np.uint8)
            mask = np.asarray(cv2.resize(mask, size_wh, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
        view, truth = self._augmentation(image, mask, scale, self._crop_hw, np.random.default_rng(key))
        return self._rule.normalize(view), truth
