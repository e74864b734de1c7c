"""The pixels of labelled samples: checked once, kept where they fit into memory, handed out in batches."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError
from visionkit.io.images import decode_image
from visionkit.tasks.input_rule import InputRule
from visionkit.train.augment import Augmentation, base_matrix
from visionkit.train.class_folders import ClassFolders, Problem, Sample, without_contradictions
from visionkit.train.distort import Distortion

__all__ = ["CACHE_BYTES", "Checked", "TrainingBatches", "ValidationBatches", "check_images", "load_image"]

Image = npt.NDArray[np.uint8]
Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
CACHE_BYTES = 2 << 30
MOST_BYTES = 1 << 28  # of one file
ROOM = 1.4  # training images are kept this much larger than the network sees them, to be cut and turned
AHEAD = 4  # batches prepared while one is learnt from


@dataclass(frozen=True)
class Checked:
    """Samples that can be decoded and have one class, a digest of each file's bytes, and what was wrong with others."""

    samples: list[Sample]
    digests: dict[str, str]
    problems: list[Problem] = field(default_factory=list)


def load_image(folders: ClassFolders, sample: Sample, distort: Distortion | None = None) -> tuple[Image, str]:
    """The image of a sample, uint8 (H, W, 3) BGR upright, and the sha256 of its file.

    Args:
        distort: put it down crooked, as its name has it.

    Raises:
        InputError: as `visionkit.io.read_image`.
    """
    path = folders.path(sample)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError("image-too-large", f"{sample.name} has more than {MOST_BYTES} bytes.")
        data = path.read_bytes()
    except OSError as error:
        raise InputError("input-unreadable", f"{sample.name} cannot be read: {error.strerror}.") from None
    image = decode_image(data, name=sample.name)[0]
    return image if distort is None else distort.named(image, sample.name), hashlib.sha256(data).hexdigest()


def check_images(folders: ClassFolders, progress: Callable[[int], None] | None = None) -> Checked:
    """Every image of the folders decoded once: what is damaged, doubled or has two classes is told.

    Raises:
        InputError: `no-images`, where not one can be decoded.
    """
    good, digests, problems = [], {}, []
    for count, sample in enumerate(folders.samples, 1):
        try:
            digests[sample.name] = load_image(folders, sample)[1]
            good.append(sample)
        except InputError as error:
            problems.append(Problem("damaged", sample.name, error.message))
        if progress:
            progress(count)
    if not good:
        raise InputError("no-images", f"Not one of {len(folders.samples)} images can be decoded: {problems[0].reason}")
    kept, told = without_contradictions(good, digests, folders.classes)
    return Checked(kept, digests, [*folders.problems, *problems, *told])


class _Store:
    """What `make` gives for each sample, kept up to a number of bytes; for use from several threads."""

    def __init__(self, make: Callable[[Sample], npt.NDArray[Any]], limit: int) -> None:
        self._make, self._room = make, limit
        self._kept: dict[str, npt.NDArray[Any]] = {}
        self._lock = threading.Lock()

    def __call__(self, sample: Sample) -> npt.NDArray[Any]:
        kept = self._kept.get(sample.name)
        if kept is not None:
            return kept
        made = self._make(sample)
        with self._lock:
            if sample.name not in self._kept and made.nbytes <= self._room:
                self._kept[sample.name] = made
                self._room -= made.nbytes
        return made


class TrainingBatches:
    """Batches of changed views, endless and the same for a seed whatever the number of workers (threads).

    Args:
        rule: how a view becomes the network's input; the same that inference uses.
        batch: images in a batch; each epoch shuffles anew and leaves out what does not fill its last batch.
        distort: put each image down crooked first, another way each time.
        ramp: epochs between which the distortion grows from nothing to the whole; a transformer can learn to straighten
            once there is a classifier that knows what upright is.
        cache_bytes: memory for decoded images.
    """

    def __init__(
        self,
        folders: ClassFolders,
        samples: Sequence[Sample],
        rule: InputRule,
        augmentation: Augmentation,
        *,
        batch: int,
        seed: int,
        workers: int = 1,
        distort: Distortion | None = None,
        ramp: tuple[int, int] = (0, 0),
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._folders, self._samples, self._rule = folders, list(samples), rule
        self._augmentation, self._seed, self._workers = augmentation, seed, workers
        self._distort, self._ramp = distort, ramp
        self.batch = min(batch, len(self._samples))
        self.steps_per_epoch = len(self._samples) // self.batch
        self._images = _Store(self._shrunk, cache_bytes)
        self._one_hot = np.eye(len(folders.classes), dtype=np.float32)
        self._border = _mean_bgr(rule) if rule.resize == "letterbox" else None

    def stream(self, first: int) -> Iterator[Batch]:
        """Batches number `first`, `first` + 1 …: images float32 (B, H, W, 3), classes one-hot float32 (B, L)."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="augment") as pool:
            pending: list[list[Future[npt.NDArray[np.float32]]]] = []
            step = first
            try:
                while True:
                    while len(pending) <= AHEAD:
                        chosen = self._chosen(step + len(pending))
                        pending.append([pool.submit(self._view, sample, key) for sample, key in chosen])
                    views = [future.result() for future in pending.pop(0)]
                    ids = [sample.class_id for sample, _ in self._chosen(step)]
                    yield np.stack(views), self._one_hot[ids]
                    step += 1
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _chosen(self, step: int) -> list[tuple[Sample, tuple[int, int, int]]]:
        """The samples of a batch, each with what its random numbers are drawn from: seed, epoch, place."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self._seed, epoch)).permutation(len(self._samples))
        chosen = order[place * self.batch : (place + 1) * self.batch]
        return [(self._samples[k], (self._seed, epoch, int(k))) for k in chosen]

    def _view(self, sample: Sample, key: tuple[int, int, int]) -> npt.NDArray[np.float32]:
        image, size_hw = self._images(sample), self._rule.size_hw
        rng = np.random.default_rng(key)
        if self._distort is not None:
            first, last = self._ramp
            share = (key[1] - first) / (last - first) if key[1] < last else 1.0
            image = self._distort(image, rng, max(0.0, share))
        base = base_matrix(self._rule.window((image.shape[0], image.shape[1])), size_hw)
        return self._rule.normalize(self._augmentation(image, base, size_hw, rng, border=self._border))

    def _shrunk(self, sample: Sample) -> Image:
        image = load_image(self._folders, sample)[0]
        x1, y1, x2, y2 = self._rule.window((image.shape[0], image.shape[1]))
        scale = ROOM * max(self._rule.size_hw[0] / (y2 - y1), self._rule.size_hw[1] / (x2 - x1))
        scale *= 1 if self._distort is None else self._distort.canvas
        if scale >= 1:
            return image
        size_wh = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
        return np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def _mean_bgr(rule: InputRule) -> tuple[float, ...]:
    """The colour that a letterboxed image is filled up with."""
    mean = {"rgb": rule.mean[::-1], "gray": rule.mean[:1] * 3}.get(rule.channel_order, rule.mean)
    return tuple(float(np.clip(round(level), 0, 255)) for level in mean)


class ValidationBatches:
    """Images as inference sees them, in order, in batches of one size (the last one filled up with zeros).

    With `distort`, they are put down crooked first, each as its name and the distortion's seed have it.
    """

    def __init__(
        self,
        folders: ClassFolders,
        samples: Sequence[Sample],
        rule: InputRule,
        *,
        batch: int,
        distort: Distortion | None = None,
        cache_bytes: int = CACHE_BYTES // 2,
    ) -> None:
        self.samples, self._batch, self._rule = list(samples), batch, rule
        self.labels = np.array([sample.class_id for sample in self.samples], np.int64)
        self._inputs = _Store(lambda sample: rule(load_image(folders, sample, distort)[0]), cache_bytes)

    def logits(self, predict: Callable[[npt.NDArray[np.float32]], Any]) -> npt.NDArray[np.float32]:
        """Logits (N, L) of all samples; `predict` takes float32 (B, H, W, 3)."""
        rows = []
        for start in range(0, len(self.samples), self._batch):
            views = [self._inputs(sample) for sample in self.samples[start : start + self._batch]]
            filled = views + [np.zeros_like(views[0])] * (self._batch - len(views))
            rows.append(np.asarray(predict(np.stack(filled)), np.float32)[: len(views)])
        return np.concatenate(rows)
