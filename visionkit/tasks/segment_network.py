"""A segmentation network compiled for some sizes of input, several instances of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.tasks.instances import SizedNetwork

if TYPE_CHECKING:
    from visionkit.runtime import Runner

__all__ = ["SegmentNetwork"]

Floats = npt.NDArray[np.float32]
Size = tuple[int, int]


class SegmentNetwork(SizedNetwork["Runner"]):
    """Runners for inputs of some sizes.

    Args:
        compile_size: as `SizedNetwork`; each runner is of one input (1, h, w, C) and an output (1, h', w', L), called
            `logits` where there are several.
        channels, dtype: of the input.
    """

    def __init__(
        self,
        compile_size: Callable[[Size, str | None], Sequence[Runner]],
        *,
        channels: int = 3,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        super().__init__(compile_size, lambda runner: runner.name, channels=channels, dtype=dtype)

    def __call__(self, inputs: npt.NDArray[Any]) -> Floats:
        """The logits float32 (L, h', w') of one input (1, h, w, C).

        Raises:
            ModelError: `model-not-finite`; `model-unfit` where the answer is no map of scores.
        """
        with self.instance((inputs.shape[1], inputs.shape[2])) as runner:
            (name,) = runner.inputs
            outputs = tuple(runner.outputs)
            values = runner(**{name: inputs})["logits" if "logits" in outputs else outputs[0]]
        if values.ndim != 4 or values.shape[0] != 1 or values.shape[3] < 2:
            raise ModelError("model-unfit", f"the network's answer is no map (1, h, w, classes) but {values.shape}")
        if not np.isfinite(values).all():
            raise ModelError("model-not-finite", "the network's answer is not finite (NaN or infinity)")
        return np.ascontiguousarray(values[0].transpose(2, 0, 1), np.float32)
