"""Integer tensors that stand for real numbers: steps of a scale, and a face of floats over a network that has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from visionkit.runtime.base import Array, Runner, Signature, TensorSpec

__all__ = ["FloatFace", "float_face", "from_steps", "to_steps"]

F32 = np.dtype(np.float32)
Quantization = tuple[float, int]


def to_steps(values: Array, dtype: np.dtype[Any], quantization: Quantization | None) -> Array:
    """Numbers in another type: with a scale, the steps nearest to them; without, themselves, rounded for integers."""
    if quantization is not None:
        scale, zero_point = quantization
        values = values / np.float32(scale) + np.float32(zero_point)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(dtype)


def from_steps(values: Array, quantization: Quantization | None) -> Array:
    """The numbers float32 that steps stand for; without a scale the values as they are."""
    if quantization is None:
        return values
    scale, zero_point = quantization
    return (values.astype(np.float32) - zero_point) * np.float32(scale)


class FloatFace(Runner):
    """A runner that takes float32 and gives float32 where the network has integers with a scale.

    An input may also come as the network has it (`native`), such as steps that were looked up in a table.
    """

    def __init__(self, inner: Runner) -> None:
        face = Signature(
            tuple(_as_float(spec, always=True) for spec in inner.inputs.values()),
            tuple(_as_float(spec) for spec in inner.outputs.values()),
        )
        super().__init__(inner.name, face, threads=inner.threads, precision=inner.precision)
        self.timings, self.rejected = inner.timings, inner.rejected
        self.native, self.coarse = inner.inputs, inner.coarse
        self._inner = inner
        self._scales = [spec.quantization for spec in inner.outputs.values()]

    def __call__(self, /, **arrays: Array) -> dict[str, Array]:
        for name, spec in self.native.items():
            array = arrays.get(name)
            if not isinstance(array, np.ndarray) or array.dtype == spec.dtype:
                continue
            if array.dtype != F32:
                raise self._array_error(name, array)
            arrays[name] = to_steps(array, spec.dtype, spec.quantization)
        found = self._inner(**arrays)
        return {
            name: from_steps(array, scale) for (name, array), scale in zip(found.items(), self._scales, strict=True)
        }

    def _run(self, feed: list[Array]) -> Sequence[Array]:
        raise NotImplementedError("the runner inside is called as a whole")

    def _release(self) -> None:
        self._inner.close()


def float_face(runner: Runner) -> Runner:
    """The runner, behind a face of floats if an input or an output is of another type."""
    inputs, outputs = runner.inputs.values(), runner.outputs.values()
    plain = all(spec.dtype == F32 for spec in inputs) and not any(spec.quantization for spec in outputs)
    return runner if plain else FloatFace(runner)


def _as_float(spec: TensorSpec, *, always: bool = False) -> TensorSpec:
    return replace(spec, dtype=F32, quantization=None) if always or spec.quantization else spec
