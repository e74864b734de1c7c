"""A segmentation network compiled for some sizes of input, several instances of each."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError

if TYPE_CHECKING:
    from visionkit.runtime import Runner

__all__ = ["SegmentNetwork"]

Floats = npt.NDArray[np.float32]
Size = tuple[int, int]

COMPILED_SIZES = 6


class SegmentNetwork:
    """Runners for inputs of some sizes, made when first needed; those used last are kept.

    The runtime that was chosen for the first size is taken for the others.

    Args:
        compile_size: from a size and a runtime (None: the one asked for) to the instances of the network for it, each
            of one input (1, h, w, C) and an output (1, h', w', L), called `logits` where there are several.
        channels: of the input.

    Attributes:
        runtime, precision, instances, threads: of what was compiled; None before.
    """

    def __init__(self, compile_size: Callable[[Size, str | None], Sequence[Runner]], *, channels: int = 3) -> None:
        self._compile, self.channels = compile_size, channels
        self._lock = threading.Lock()
        self._sizes: OrderedDict[Size, _Instances] = OrderedDict()
        self.runtime: str | None = None
        self.precision: str | None = None
        self.instances: int | None = None
        self.threads: int | None = None

    def prepare(self, size_hw: Size) -> None:
        """Compile the network for a size."""
        with self._borrowed(size_hw):
            pass

    @contextlib.contextmanager
    def input(self, size_hw: Size) -> Iterator[Floats]:
        """Memory for one input float32 (1, h, w, C), borrowed; what it holds is finite, and not yours."""
        with self._borrowed(size_hw) as instances:
            buffer = instances.borrow()
            try:
                yield buffer
            finally:
                instances.give_back(buffer)

    def __call__(self, inputs: Floats) -> Floats:
        """The logits float32 (L, h', w') of one input float32 (1, h, w, C).

        Raises:
            ModelError: `model-not-finite`; `model-unfit` where the answer is no map of scores.
        """
        with self._borrowed((inputs.shape[1], inputs.shape[2])) as instances:
            values = instances(inputs)
        if values.ndim != 4 or values.shape[0] != 1 or values.shape[3] < 2:
            raise ModelError("model-unfit", f"the network's answer is no map (1, h, w, classes) but {values.shape}")
        if not np.isfinite(values).all():
            raise ModelError("model-not-finite", "the network's answer is not finite (NaN or infinity)")
        return np.ascontiguousarray(values[0].transpose(2, 0, 1), np.float32)

    def close(self) -> None:
        """Give the runners' memory back."""
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
                found = _Instances(self._compile(size_hw, self.runtime), (1, *size_hw, self.channels))
                first = found.runners[0]
                self.runtime, self.precision, self.threads = first.name, first.precision, first.threads
                self.instances = len(found.runners)
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
    """As many runners of one size as there are calls side by side."""

    def __init__(self, runners: Sequence[Runner], shape: tuple[int, ...]) -> None:
        self.runners, self.shape, self.users = tuple(runners), shape, 0
        self._idle: queue.SimpleQueue[Runner] = queue.SimpleQueue()
        for runner in self.runners:
            self._idle.put(runner)
        (self._input,) = self.runners[0].inputs
        outputs = tuple(self.runners[0].outputs)
        self._output = "logits" if "logits" in outputs else outputs[0]
        self._buffers: list[Floats] = []

    def __call__(self, inputs: Floats) -> Floats:
        runner = self._idle.get()
        try:
            return np.asarray(runner(**{self._input: inputs})[self._output])
        finally:
            self._idle.put(runner)

    def borrow(self) -> Floats:
        try:
            return self._buffers.pop()  # atomic: threads share it
        except IndexError:
            return np.zeros(self.shape, np.float32)

    def give_back(self, buffer: Floats) -> None:
        self._buffers.append(buffer)

    def close(self) -> None:
        for runner in self.runners:
            runner.close()
