"""The fast engine: permutohedral lattice and separable Gaussian in compiled loops, several threads."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import itertools
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.crf.diagonal import lattice_diagonal, needs_unit_diagonal
from visionkit.crf.exact import scales
from visionkit.crf.gaussian import gaussian_arrays
from visionkit.crf.params import CRFParams
from visionkit.resources import cache_dir

__all__ = ["CompiledField", "kernels_are_kept", "load_kernels"]

KERNELS = ("visionkit.crf.kernels", "visionkit.crf.lattice_kernels")
SOURCES = ("jitting.py", "vectors.py", "kernels.py", "lattice_kernels.py")

Array = npt.NDArray[np.float32]
NOTHING = np.zeros(0, np.float32)
NO_MATRIX = np.zeros((0, 0), np.float32)
NO_IDS = np.zeros((0, 1), np.int32)
_LOADING = Lock()


def load_kernels() -> tuple[ModuleType, ModuleType]:
    """The compiled loops of an update and those of a lattice; ImportError without numba.

    What they compile to is kept in the user's cache folder; numba would keep it beside the code, maybe read-only.
    The folder is a setting of the whole process, so it is put back when the loops are declared.
    """
    with _LOADING:
        config: Any = importlib.import_module("numba.core.config")
        before = config.CACHE_DIR
        try:
            if not before and (folder := _kept()) is not None:
                config.CACHE_DIR = str(folder)
            update, lattice = (importlib.import_module(name) for name in KERNELS)
            return update, lattice
        finally:
            config.CACHE_DIR = before


def kernels_are_kept() -> bool:
    """Whether the loops lie compiled in the cache folder, or this process has them: else the first CRF takes 10 s."""
    if KERNELS[0] in sys.modules:
        return True
    folder = _kept()
    return folder is not None and any(folder.glob("*/kernels.update-*.nbc"))


def _kept() -> Path | None:
    """The folder of what was compiled of these very sources: numba itself looks only at the file a loop stands in."""
    folder = cache_dir()
    if folder is None:
        return None
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    with contextlib.suppress(PackageNotFoundError):
        digest.update(version("numba").encode())
    return folder / "numba" / digest.hexdigest()[:16]


class Crew:
    """Runs one function over ranges, the last of them in the calling thread."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, "visionkit-crf") if threads > 1 else None

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def ranges(self, count: int) -> list[tuple[int, int]]:
        """`count` things in as many nearly equal ranges as there are threads; none empty but where count is 0."""
        pieces = max(1, min(self.threads, count))
        edges = [count * i // pieces for i in range(pieces + 1)]
        return list(itertools.pairwise(edges))

    def run(self, work: Callable[..., Any], calls: list[tuple[Any, ...]]) -> list[Any]:
        """What `work` returns for each tuple of arguments, at once as far as there are threads."""
        if self._pool is None or len(calls) == 1:
            return [work(*call) for call in calls]
        waiting = [self._pool.submit(work, *call) for call in calls[:-1]]
        last = work(*calls[-1])
        return [*(future.result() for future in waiting), last]


class Lattice:
    """The permutohedral lattice of one image.

    Adams, Baek and Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice, Eurographics 2010.
    """

    def __init__(self, colours: Array, widths: npt.NDArray[np.float64], crew: Crew, *, unit_diagonal: bool) -> None:
        self.kernels, building = load_kernels()
        height, width, channels = colours.shape
        axes = channels + 3
        self.ids = np.empty((height * width, axes), np.int32)
        self.weights = np.empty((height * width, axes), np.float32)
        sizes = widths.astype(np.float32)
        ranges = crew.ranges(height)
        calls = [(colours, sizes, a, b, self.ids, self.weights) for a, b in ranges]
        keys, *rest = crew.run(building.embed, calls)
        for more, (a, b) in zip(rest, ranges[1:], strict=True):
            keys, numbers = building.merge(keys, more)
            building.remap(self.ids, a * width, b * width, numbers)
        if unit_diagonal:
            self.weights /= np.sqrt(lattice_diagonal(self.weights))[:, None]
        self.beside = building.neighbours(keys)
        self.rows = len(keys) + 1
        self.gain = 1 / (1 + 2.0 ** -(axes - 1))  # of splat, blur, slice: Adams's code

    def sums(self, crew: Crew) -> Array:
        """What the lattice makes of an image of ones: the row sums of the kernel it stands for."""
        count = len(self.ids)
        part = np.empty((1, self.rows, 8), np.float32)
        self.kernels.splat_ones(self.ids, self.weights, part[0])
        values = np.empty((self.rows, 8), np.float32)
        self.kernels.blur(part, values, self.beside, np.float32(self.gain), 0, 1)
        out = np.empty(count, np.float32)
        crew.run(self.kernels.row_sums, [(ends, self.ids, self.weights, values, out) for ends in crew.ranges(count)])
        return out


class CompiledField:
    """Mean field over one image; see `FastMeanField`."""

    engine = "numba"

    def __init__(self, image: npt.NDArray[Any], params: CRFParams, threads: int | None) -> None:
        self.kernels = load_kernels()[0]
        self.params = params
        self.size_hw: tuple[int, int] = (image.shape[0], image.shape[1])
        self.threads = threads or available_threads()
        count = self.size_hw[0] * self.size_hw[1]
        own = np.zeros(count if not params.self_term else 0)
        self.lattice: Lattice | None = None
        self.scale_in = self.scale_out = NOTHING
        if params.bilateral_weight:
            colours = np.array(image, np.float32, order="C")  # writable: a read-only array is another type to numba
            with Crew(self.threads) as crew:
                widths = params.bilateral_widths(colours.shape[2])
                self.lattice = Lattice(colours, widths, crew, unit_diagonal=needs_unit_diagonal(params))
                sums = np.maximum(self.lattice.sums(crew), 1e-20)
            before, after = scales(sums.astype(np.float64), params.normalization)
            if own.size:
                own += params.bilateral_weight * before * after
            self.scale_in, self.scale_out = before.astype(np.float32), after.astype(np.float32)
        self.gauss = gaussian_arrays(self.size_hw, params)
        if own.size and params.gaussian_weight:
            _, in_y, out_y, _, in_x, out_x = self.gauss
            own += params.gaussian_weight * np.outer(in_y * out_y, in_x * out_x).ravel()
        self.own = own.astype(np.float32)

    def infer(self, unary: Array, first: Array | None, iterations: int) -> Array:
        """Marginals float32 (H, W, L) after `iterations` updates of softmax(-unary), or of `first`."""
        height, width, labels = unary.shape
        if not unary.flags.writeable:
            unary = unary.copy()  # to numba a type of its own, for which everything would be compiled again
        run = _Run(self, unary.reshape(height, width * labels), labels)
        with Crew(self.threads) as crew:
            result = run.iterate(crew, first, iterations)
        return result.reshape(unary.shape)


class _Run:
    """The arrays of one inference."""

    def __init__(self, field: CompiledField, unary: Array, labels: int) -> None:
        self.field, self.unary, self.labels = field, unary, labels
        self.blocks = (labels + 7) // 8
        matrix = field.params.compat_matrix(labels)
        self.costs = NO_MATRIX if matrix is None else np.ascontiguousarray(matrix)
        rows = field.lattice.rows if field.lattice else 0
        self.values = np.zeros((rows, 8 * self.blocks), np.float32)
        taps_y, in_y, out_y, taps_x, in_x, out_x = field.gauss
        self.gauss = (taps_y, in_y, out_y, taps_x, np.repeat(in_x, labels), np.repeat(out_x, labels))
        self.no_gauss = (NOTHING, in_y, out_y, NOTHING, in_x, out_x)
        self.new = np.empty_like(unary)

    def iterate(self, crew: Crew, first: Array | None, iterations: int) -> Array:
        ranges = crew.ranges(len(self.unary))
        parts = np.empty((len(ranges), *self.values.shape), np.float32)
        splats = list(parts) if iterations else [parts[0, :0]] * len(ranges)
        if first is None:
            q = np.empty_like(self.unary)
            calls = [
                self._arguments(ends, q, q, self.no_gauss, self.values[:0], part, False)
                for ends, part in zip(ranges, splats, strict=True)
            ]
            crew.run(self.field.kernels.update, calls)
        else:
            q = np.array(first.reshape(self.unary.shape))
            if self.field.lattice is not None and iterations:
                calls = [
                    (ends, self.labels, q, self._lattice(self.values), part)
                    for ends, part in zip(ranges, splats, strict=True)
                ]
                crew.run(self.field.kernels.splat, calls)
        new = self.new
        for i in range(iterations):
            self._blur(crew, parts)
            last = i == iterations - 1
            calls = [
                self._arguments(ends, q, new, self.gauss, self.values, part[:0] if last else part, True)
                for ends, part in zip(ranges, splats, strict=True)
            ]
            crew.run(self.field.kernels.update, calls)
            q, new = new, q
        return q

    def _blur(self, crew: Crew, parts: Array) -> None:
        lattice = self.field.lattice
        if lattice is None:
            return
        scale = np.float32(lattice.gain * self.field.params.bilateral_weight)
        calls = [(parts, self.values, lattice.beside, scale, a, b) for a, b in crew.ranges(self.blocks)]
        crew.run(self.field.kernels.blur, calls)

    def _lattice(self, values: Array) -> tuple[Any, ...]:
        field = self.field
        if field.lattice is None:
            return NO_IDS, np.zeros((0, 1), np.float32), NOTHING, NOTHING, values
        return field.lattice.ids, field.lattice.weights, field.scale_in, field.scale_out, values

    def _arguments(
        self, ends: tuple[int, int], q: Array, new: Array, gauss: Any, values: Array, part: Array, messages: bool
    ) -> tuple[Any, ...]:
        own = self.field.own if messages else NOTHING
        costs = self.costs if messages else NO_MATRIX
        return ends, self.labels, self.unary, q, new, gauss, self._lattice(values), own, costs, part


def available_threads() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
