"""The stream of training batches, rendered by other processes as the network learns; no Keras, to start fast."""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.geometry.crops import cell_cover
from visionkit.train.motion import Sighting
from visionkit.train.pairs import PairSampler
from visionkit.train.shapes import Image

__all__ = ["Batch", "Material", "make_batch", "pair_batches"]

COVER_CELLS, COVER_STRIDE = 8, 8  # as in visionkit.nets.siambox, which needs Keras
Batch = tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]


@dataclass(frozen=True)
class Material:
    """What pairs are made of, besides procedures: unlabelled images, and things that moved in clips."""

    images: list[Image] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)


def _worker(material: Material, seed: int, share: tuple[int, int], options: dict[str, Any], out: Any) -> None:
    """Fill `out` with the batches k = first, first + step ... of the seed, for ever."""
    import cv2

    cv2.setNumThreads(1)
    sampler = PairSampler(material.images, material.sightings, **options["sampler"])
    first, step = share
    k = first + options["skip"]
    while True:
        out.put(make_batch(sampler, seed, k, options["batch"]))
        k += step


def make_batch(sampler: PairSampler, seed: int, k: int, batch: int) -> Batch:
    """Batch number `k` of a seed: images uint8 RGB (B, size, size, 3), box float32 (B, 4), present float32 (B,)."""
    rng = np.random.default_rng((seed, k))
    pairs = [sampler(rng) for _ in range(batch)]
    covers = [cell_cover(p.exemplar_box, len(p.exemplar), cells=COVER_CELLS, stride=COVER_STRIDE) for p in pairs]
    x = {
        "exemplar": np.stack([p.exemplar[..., ::-1] for p in pairs]),
        "exemplar_cover": np.stack(covers)[..., None],
        "search": np.stack([p.search[..., ::-1] for p in pairs]),
    }
    y = {
        "box": np.stack([p.box for p in pairs]).astype(np.float32),
        "present": np.array([p.present for p in pairs], np.float32),
    }
    return x, y


def pair_batches(
    material: Material, *, seed: int, batch: int, workers: int, skip: int = 0, sampler: dict[str, Any] | None = None
) -> Generator[Batch, None, None]:
    """Batches 'skip', 'skip' + 1 ... of a seed, the same whatever the number of `workers` (processes)."""
    context = multiprocessing.get_context("spawn")
    options = {"batch": batch, "skip": skip, "sampler": sampler or {}}
    queues = [context.Queue(maxsize=4) for _ in range(workers)]
    processes = [
        context.Process(target=_worker, args=(material, seed, (i, workers), options, q), daemon=True)
        for i, q in enumerate(queues)
    ]
    for process in processes:
        process.start()
    try:
        k = 0
        while True:
            try:
                yield queues[k % workers].get(timeout=60)
            except queue.Empty as error:
                raise RuntimeError("A process that renders training pairs has stopped.") from error
            k += 1
    finally:
        for process in processes:
            process.terminate()
