"""What every runtime has in common: the tensors' specifications and the checked call."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Runner", "Signature", "TensorSpec"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of one input or output; None in the shape is a size known only at the call.

    `quantization` is (scale, zero point) of an integer tensor that stands for `scale * (value - zero_point)`.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    quantization: tuple[float, int] | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype.name} {shape_text(self.shape)}"

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype.name}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TensorSpec:
        shape = tuple(None if size is None else int(size) for size in data["shape"])
        return cls(str(data["name"]), shape, np.dtype(data["dtype"]))


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a network in the order of its declaration.

    Inside a converted file they are called `input_0`, `output_0` … in this order: each runtime has its own idea of
    which names are legal and of how to sort them.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def input_keys(self) -> list[str]:
        return [f"input_{index}" for index in range(len(self.inputs))]

    @property
    def output_keys(self) -> list[str]:
        return [f"output_{index}" for index in range(len(self.outputs))]

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Signature:
        return cls(
            tuple(TensorSpec.from_json(spec) for spec in data["inputs"]),
            tuple(TensorSpec.from_json(spec) for spec in data["outputs"]),
        )


class Runner:
    """A compiled network: call it with one array per input, by name, and get one array per output, by name.

    The arrays returned belong to the caller. Calls from several threads wait for each other. Close it, or use it as a
    context manager, to give its memory back.

    Attributes:
        name: the runtime, e.g. `litert`.
        inputs, outputs: TensorSpec by name, in the network's order.
        native: the inputs as the file has them, where `visionkit.runtime.steps.FloatFace` shows floats.
        coarse: names of the outputs that are, or were, steps of a scale.
        threads: cores the runtime may use.
        precision: of the arithmetic, `float32` unless less was asked for; `file` where the model file decides.
        timings: median milliseconds a call of each runtime that `auto` measured; None where nothing was measured.
        rejected: runtimes left out, with the reason.
    """

    def __init__(self, name: str, signature: Signature, *, threads: int, precision: str = "float32") -> None:
        self.name = name
        self.threads = threads
        self.precision = precision
        self.inputs = {spec.name: spec for spec in signature.inputs}
        self.outputs = {spec.name: spec for spec in signature.outputs}
        self.native = self.inputs
        self.coarse = frozenset(name for name, spec in self.outputs.items() if spec.quantization is not None)
        self.timings: dict[str, float] | None = None
        self.rejected: dict[str, str] = {}
        self._expected = [(spec.name, spec.shape, spec.dtype, None in spec.shape) for spec in signature.inputs]
        self._output_names = [spec.name for spec in signature.outputs]
        self._lock = threading.Lock()
        self._closed = False

    def __call__(self, /, **arrays: Array) -> dict[str, Array]:
        """The network's outputs for one batch.

        Raises:
            ValueError: a name, shape or dtype that is not in `inputs`, or the runner is closed.
        """
        feed = []
        if len(arrays) != len(self._expected):
            raise self._names_error(arrays)
        for name, shape, dtype, is_dynamic in self._expected:
            array = arrays.get(name)
            if array is None:
                raise self._names_error(arrays)
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                raise self._array_error(name, array)
            if array.shape != shape and not (is_dynamic and fits(array.shape, shape)):
                raise self._array_error(name, array)
            feed.append(array)
        with self._lock:
            if self._closed:
                raise ValueError(f"this {self.name} runner is closed.")
            return dict(zip(self._output_names, self._run(feed), strict=True))

    def _run(self, feed: list[Array]) -> Sequence[Array]:
        """The outputs in order, in memory of their own, for inputs in order that are already checked."""
        raise NotImplementedError

    def _release(self) -> None:
        """Drops what holds memory."""

    def close(self) -> None:
        """Gives the memory back; a call after this is an error, a second close is not."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _names_error(self, arrays: Mapping[str, Array]) -> ValueError:
        wanted = ", ".join(str(spec) for spec in self.inputs.values())
        return ValueError(f"the network takes the inputs ({wanted}). Received: {sorted(arrays)}.")

    def _array_error(self, name: str, array: Any) -> ValueError:
        if not isinstance(array, np.ndarray):
            return ValueError(f"input {name!r} must be a NumPy array. Received: {type(array).__name__}.")
        wanted = self.inputs[name]
        return ValueError(
            f"input {name!r} must be {wanted.dtype.name} {shape_text(wanted.shape)}. "
            f"Received: {array.dtype.name} {shape_text(array.shape)}."
        )


def fits(shape: tuple[int, ...], pattern: tuple[int | None, ...]) -> bool:
    """Whether `shape` has the sizes of `pattern` wherever that says one."""
    return len(shape) == len(pattern) and all(want in (None, have) for have, want in zip(shape, pattern, strict=True))


def shape_text(shape: tuple[int | None, ...]) -> str:
    return (
        "(" + ", ".join("?" if size is None else str(size) for size in shape) + ("," if len(shape) == 1 else "") + ")"
    )
