"""A network compiled for some sizes of input, several instances of each, shared by threads."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["SizedNetwork"]

Array = npt.NDArray[Any]
Size = tuple[int, int]

COMPILED_SIZES = 6


class Instance(Protocol):
    """What can be run, and then closed."""

    @property
    def precision(self) -> str: ...
    @property
    def threads(self) -> int: ...
    def close(self) -> None: ...


One = TypeVar("One", bound=Instance)


class SizedNetwork(Generic[One]):
    """Instances for inputs of some sizes, made when first needed; those used last are kept.

    The runtime that was chosen for the first size is taken for the others.

    Args:
        compile_size: from the size of the input and a runtime (None: the one asked for) to the instances for it.
        runtime_of: the runtime of an instance.
        batch, channels: of the input (batch, h, w, channels).
        dtype: of the input.

    Attributes:
        runtime, precision, instances, threads: of what was compiled; None before.
    """

    def __init__(
        self,
        compile_size: Callable[[Size, str | None], Sequence[One]],
        runtime_of: Callable[[One], str],
        *,
        batch: int = 1,
        channels: int = 3,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self._compile, self._runtime_of = compile_size, runtime_of
        self.batch, self.channels, self.dtype = batch, channels, np.dtype(dtype)
        self._lock = threading.Lock()
        self._sizes: OrderedDict[Size, _Pool[One]] = OrderedDict()
        self.runtime: str | None = None
        self.precision: str | None = None
        self.instances: int | None = None
        self.threads: int | None = None

    def prepare(self, size_hw: Size) -> None:
        """Compile the network for inputs of a size."""
        with self._borrowed(size_hw):
            pass

    @contextlib.contextmanager
    def inputs(self, size_hw: Size) -> Iterator[Array]:
        """Memory for a batch of inputs (B, h, w, C), borrowed; what it holds is finite, and not yours."""
        with self._borrowed(size_hw) as pool:
            buffer = pool.buffer(lambda: np.zeros((self.batch, *size_hw, self.channels), self.dtype))
            try:
                yield buffer
            finally:
                pool.buffers.append(buffer)

    @contextlib.contextmanager
    def instance(self, size_hw: Size) -> Iterator[One]:
        """An instance for inputs of a size that nobody else uses; waits for one."""
        with self._borrowed(size_hw) as pool:
            taken = pool.idle.get()
            try:
                yield taken
            finally:
                pool.idle.put(taken)

    def close(self) -> None:
        """Give the instances' memory back."""
        with self._lock:
            for pool in self._sizes.values():
                pool.close()
            self._sizes.clear()

    @contextlib.contextmanager
    def _borrowed(self, size_hw: Size) -> Iterator[_Pool[One]]:
        """The instances for a size, which are kept while they are borrowed."""
        with self._lock:
            found = self._sizes.pop(size_hw, None)
            if found is None:
                self._make_room()
                found = _Pool(self._compile(size_hw, self.runtime))
                first = found.all[0]
                self.runtime, self.precision, self.threads = self._runtime_of(first), first.precision, first.threads
                self.instances = len(found.all)
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


class _Pool(Generic[One]):
    """As many instances of one size as there are calls side by side."""

    def __init__(self, instances: Sequence[One]) -> None:
        self.all, self.users = tuple(instances), 0
        self.idle: queue.SimpleQueue[One] = queue.SimpleQueue()
        for instance in self.all:
            self.idle.put(instance)
        self.buffers: list[Array] = []

    def buffer(self, make: Callable[[], Array]) -> Array:
        try:
            return self.buffers.pop()  # atomic: threads share it
        except IndexError:
            return make()

    def close(self) -> None:
        for instance in self.all:
            instance.close()
