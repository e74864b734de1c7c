"""Pixels and boxes of a data set: decoded when asked for, kept where they fit into memory, handed out in batches."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError
from visionkit.io.images import decode_image
from visionkit.tasks.input_rule import InputRule
from visionkit.train.class_folders import Problem
from visionkit.train.detect_augment import DetectAugmentation, DetectView
from visionkit.train.detection_folders import DetectionFolders, DetectionSample

__all__ = ["CheckedDetections", "DetectBatches", "DetectMaterial", "Targets", "check_detections"]

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
CACHE_BYTES = 2 << 30
MOST_BYTES = 1 << 28  # of one file
AHEAD = 3  # batches prepared while one is learnt from


class DetectMaterial:
    """Images of a data set, decoded when asked for and kept up to `cache_bytes`; for several threads."""

    def __init__(self, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._kept: dict[str, Image] = {}
        self._room, self._lock = cache_bytes, threading.Lock()

    def __call__(self, sample: DetectionSample) -> Image:
        """The image uint8 (H, W, 3) BGR, upright.

        Raises:
            InputError: it cannot be read or decoded.
        """
        kept = self._kept.get(sample.name)
        if kept is None:
            kept = self.load(sample)[0]
            with self._lock:
                if sample.name not in self._kept and kept.nbytes <= self._room:
                    self._kept[sample.name] = kept
                    self._room -= kept.nbytes
        return kept

    def load(self, sample: DetectionSample) -> tuple[Image, str]:
        """The image, and a digest of its file and boxes."""
        try:
            if sample.path.stat().st_size > MOST_BYTES:
                raise InputError("image-too-large", f"{sample.name} has more than {MOST_BYTES} bytes.")
            data = sample.path.read_bytes()
        except OSError as error:
            raise InputError("input-unreadable", f"{sample.name} cannot be read: {error.strerror}.") from None
        image = decode_image(data, name=sample.name)[0]
        if image.shape[:2] != sample.size_hw:
            raise InputError("input-undecodable", f"{sample.name} has another size than its header says.")
        return image, hashlib.sha256(data).hexdigest()

    def view(self, sample: DetectionSample) -> DetectView:
        """Image and boxes; crowds and difficult objects are ignored."""
        return DetectView(
            self(sample), sample.xyxy.astype(np.float64), sample.class_id, sample.difficult | sample.crowd
        )


@dataclass(frozen=True)
class CheckedDetections:
    """Samples whose image can be used, digests of their files by name, and what was wrong with others."""

    samples: list[DetectionSample]
    digests: dict[str, str]
    problems: list[Problem] = field(default_factory=list)


def check_detections(folders: DetectionFolders, material: DetectMaterial) -> CheckedDetections:
    """Every image decoded once; what cannot be used is told by name and left out.

    Raises:
        InputError: `no-boxes` where not one can be used; it tells the first reason.
    """
    good, digests, problems = [], {}, list(folders.problems)
    for sample in folders.samples:
        try:
            digest = material.load(sample)[1]
        except InputError as error:
            problems.append(Problem(error.slug, sample.name, error.message))
            continue
        good.append(sample)
        digests[sample.name] = digest
    if not good:
        raise InputError("no-boxes", f"Not one image with boxes can be used: {problems[-1].reason}")
    return CheckedDetections(good, digests, problems)


class Targets(Protocol):
    """What a network should answer to a view."""

    def __call__(self, view: DetectView, rng: np.random.Generator, /) -> Floats:
        """Targets of one view, an array of the same shape for each."""


class DetectBatches:
    """Batches of changed views with their targets, endless and the same for a seed whatever the number of threads.

    Args:
        rule: how an image becomes the network's input; its size is that of the views.
        targets: from a view to what the loss takes; `packed` makes of stacked images and targets what the network and
            the loss take.
        repeats: how often an epoch shows each image.
    """

    def __init__(
        self,
        material: DetectMaterial,
        samples: Sequence[DetectionSample],
        rule: InputRule,
        augmentation: DetectAugmentation,
        targets: Targets,
        *,
        batch: int,
        seed: int,
        packed: Callable[[Floats, Floats], tuple[Any, Any]] = lambda images, targets: (images, targets),
        repeats: int = 1,
        workers: int = 1,
    ) -> None:
        self._material, self._samples, self._rule = material, list(samples), rule
        self._augmentation, self._targets = augmentation, targets
        self._seed, self._workers, self._packed = seed, workers, packed
        self._fill = np.clip(np.rint(_mean_bgr(rule)), 0, 255).astype(np.uint8)
        self.batch = min(batch, len(self._samples))
        self._passes = repeats
        self.steps_per_epoch = max(1, len(self._samples) * repeats // self.batch)

    def stream(self, first: int) -> Iterator[tuple[Any, Any]]:
        """Batches number `first`, `first` + 1 …: images float32 (B, h, w, 3) and targets (B, …), packed."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="augment") as pool:
            pending: list[list[Future[tuple[Floats, Floats]]]] = []
            step = first
            try:
                while True:
                    while len(pending) <= AHEAD:
                        chosen = self._chosen(step + len(pending))
                        pending.append([pool.submit(self._view, *one) for one in chosen])
                    views = [future.result() for future in pending.pop(0)]
                    yield self._packed(np.stack([x for x, _ in views]), np.stack([y for _, y in views]))
                    step += 1
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _chosen(self, step: int) -> list[tuple[int, tuple[int, int, int]]]:
        """Places of samples, and keys of their views: each pass shows every image once."""
        epoch, place = divmod(step, self.steps_per_epoch)
        passes = [
            np.random.default_rng((self._seed, epoch, k)).permutation(len(self._samples)) for k in range(self._passes)
        ]
        order = np.concatenate(passes)
        numbers = range(place * self.batch, (place + 1) * self.batch)
        return [(int(order[k % len(order)]), (self._seed, epoch, k)) for k in numbers]

    def _view(self, place: int, key: tuple[int, int, int]) -> tuple[Floats, Floats]:
        rng = np.random.default_rng(key)

        def draw(number: int) -> DetectView:
            chosen = place if number == 0 else int(rng.integers(len(self._samples)))
            return self._material.view(self._samples[chosen])

        view = self._augmentation(draw, self._rule.size_hw, rng, self._fill)
        return self._rule.normalize(view.image), self._targets(view, rng)


def _mean_bgr(rule: InputRule) -> npt.NDArray[np.float64]:
    mean = np.asarray(rule.mean, np.float64)
    return mean[::-1] if rule.channel_order == "rgb" else mean
