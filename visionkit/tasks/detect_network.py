"""A detector's network behind one face: inputs in, boxes of the input out, several instances for some sizes."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["DetectEngine", "DetectNetwork", "Limits", "RawDetections"]

Floats = npt.NDArray[np.float32]
Size = tuple[int, int]

COMPILED_SIZES = 6


@dataclass(frozen=True)
class Limits:
    """What an engine keeps of its answer.

    Args:
        conf: boxes of at least this probability.
        iou: of two boxes of a class that overlap more than this, the weaker goes; None is the network's own value.
        max_det: so many boxes of an image, the most probable ones.
    """

    conf: float
    iou: float | None
    max_det: int


@dataclass(frozen=True, slots=True, eq=False)
class RawDetections:
    """What an engine found in one input, most probable first.

    Args:
        xyxy: float32 (K, 4) in pixels of the input.
        scores: float32 (K,).
        classes: int64 (K,) as the network counts, background 0.
        masks: float32 (K, m, m), the probability of the object over its box; or None.
    """

    xyxy: Floats
    scores: Floats
    classes: npt.NDArray[np.int64]
    masks: Floats | None = None


class DetectEngine(Protocol):
    """One instance of a network for inputs of one size."""

    runtime: str
    precision: str
    threads: int

    def __call__(self, inputs: Floats, valid_hw: Floats, limits: Limits, /) -> list[RawDetections]:
        """What is in each of the inputs float32 (B, h, w, 3), of which `valid_hw` (B, 2) holds an image."""

    def close(self) -> None:
        """Give the memory back."""


class DetectNetwork:
    """Engines for inputs of some sizes, made when first needed; those used last are kept.

    The runtime that was chosen for the first size is taken for the others.

    Args:
        compile_size: from the size of the input and a runtime (None: the one asked for) to the instances of the engine.
        batch: inputs in one call.

    Attributes:
        runtime, precision, instances, threads: of what was compiled; None before.
    """

    def __init__(self, compile_size: Callable[[Size, str | None], Sequence[DetectEngine]], *, batch: int = 1) -> None:
        self._compile, self.batch = compile_size, batch
        self._lock = threading.Lock()
        self._sizes: OrderedDict[Size, _Instances] = OrderedDict()
        self.runtime: str | None = None
        self.precision: str | None = None
        self.instances: int | None = None
        self.threads: int | None = None

    def prepare(self, size_hw: Size) -> None:
        """Compile the network for inputs of a size."""
        with self._borrowed(size_hw):
            pass

    @contextlib.contextmanager
    def inputs(self, size_hw: Size) -> Iterator[Floats]:
        """Memory for a batch of inputs float32 (B, h, w, 3), borrowed; what it holds is finite, and not yours."""
        with self._borrowed(size_hw) as instances:
            buffer = instances.borrow()
            try:
                yield buffer
            finally:
                instances.give_back(buffer)

    def __call__(self, inputs: Floats, valid_hw: Floats, limits: Limits) -> list[RawDetections]:
        """What is in each input of a whole batch."""
        with self._borrowed((inputs.shape[1], inputs.shape[2])) as instances:
            return instances(inputs, valid_hw, limits)

    def close(self) -> None:
        """Give the engines' memory back."""
        with self._lock:
            for instances in self._sizes.values():
                instances.close()
            self._sizes.clear()

    @contextlib.contextmanager
    def _borrowed(self, size_hw: Size) -> Iterator[_Instances]:
        """The instances for a size, which are kept while they are borrowed."""
        with self._lock:
            found = self._sizes.pop(size_hw, None)
            if found is None:
                self._make_room()
                found = _Instances(self._compile(size_hw, self.runtime), (self.batch, *size_hw, 3))
                first = found.engines[0]
                self.runtime, self.precision, self.threads = first.runtime, first.precision, first.threads
                self.instances = len(found.engines)
            self._sizes[size_hw] = found
            found.users += 1
        try:
            yield found
        finally:
            with self._lock:
                found.users -= 1

    def _make_room(self) -> None:
        for size_hw in list(self._sizes):
            if len(self._sizes) < COMPILED_SIZES:
                return
            if not self._sizes[size_hw].users:
                self._sizes.pop(size_hw).close()


class _Instances:
    """As many engines of one size as there are calls side by side."""

    def __init__(self, engines: Sequence[DetectEngine], shape: tuple[int, ...]) -> None:
        self.engines, self.shape, self.users = tuple(engines), shape, 0
        self._idle: queue.SimpleQueue[DetectEngine] = queue.SimpleQueue()
        for engine in self.engines:
            self._idle.put(engine)
        self._buffers: list[Floats] = []

    def __call__(self, inputs: Floats, valid_hw: Floats, limits: Limits) -> list[RawDetections]:
        engine = self._idle.get()
        try:
            return engine(inputs, valid_hw, limits)
        finally:
            self._idle.put(engine)

    def borrow(self) -> Floats:
        try:
            return self._buffers.pop()  # atomic: threads share it
        except IndexError:
            return np.zeros(self.shape, np.float32)

    def give_back(self, buffer: Floats) -> None:
        self._buffers.append(buffer)

    def close(self) -> None:
        for engine in self.engines:
            close: Any = getattr(engine, "close", None)
            if close is not None:
                close()
