"""Dead and saturated units, counted on real images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from visionkit.inspection.running import run

__all__ = ["ActivationFacts", "activation_facts", "activation_of"]

FLAT_SLOPE = 1e-3
RECTIFIERS = ("relu", "relu6")
# |f'| of each saturating function, from its output
SLOPES = {
    "sigmoid": lambda y: y * (1 - y),
    "tanh": lambda y: 1 - y * y,
    "hard_sigmoid": lambda y: np.where((y <= 0) | (y >= 1), 0.0, 1 / 6),
}
LAYERS = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu", "Relu6": "relu6", "HardSigmoid": "hard_sigmoid"}


@dataclass(frozen=True, slots=True)
class ActivationFacts:
    """What one layer's activations did on the images given.

    Args:
        name: of the row, and `function`, the activation.
        units: channels of a map, or features of a vector.
        dead: units that were 0 at every position of every image; None where the function has no dead side.
        zeros: share of all activations that were 0; None likewise.
        saturated: share of all activations where |f'| < 1e-3; None for rectifiers.
    """

    name: str
    function: str
    units: int
    dead: int | None = None
    zeros: float | None = None
    saturated: float | None = None


@dataclass
class _Tally:
    function: str
    alive: npt.NDArray[np.bool_]
    zeros: int = 0
    flat: int = 0
    count: int = 0


def activation_of(layer: Any) -> str | None:
    """Name of the layer's activation where it can die or saturate: relu, relu6, sigmoid, tanh, hard_sigmoid."""
    kind = type(layer).__name__
    if kind == "ReLU":
        if layer.negative_slope or layer.threshold:
            return None
        return "relu" if layer.max_value is None else "relu6"
    name = LAYERS.get(kind) or getattr(getattr(layer, "activation", None), "__name__", None)
    return name if name in RECTIFIERS or name in SLOPES else None


def activation_facts(model: keras.Model, batches: Iterable[npt.NDArray[np.float32]]) -> list[ActivationFacts]:
    """One entry for each layer with such an activation, in the order in which they run.

    Args:
        model: a functional or a built sequential model of one input.
        batches: of inputs float32 (B, H, W, C).
    """
    tallies: dict[str, _Tally] = {}

    def watch(name: str, layer: Any, outputs: list[Any]) -> list[Any]:
        if (function := activation_of(layer)) is not None:
            values = np.asarray(keras.ops.convert_to_numpy(outputs[0]), np.float32)
            tally = tallies.setdefault(name, _Tally(function, np.zeros(values.shape[-1], bool)))
            _add(tally, values)
        return outputs

    for batch in batches:
        run(model, [batch], watch)
    return [_facts(name, tally) for name, tally in tallies.items()]


def _add(tally: _Tally, values: npt.NDArray[np.float32]) -> None:
    tally.count += values.size
    if tally.function in RECTIFIERS:
        on = values.reshape(-1, values.shape[-1]) > 0
        tally.alive |= on.any(axis=0)
        tally.zeros += int(on.size - on.sum())
    else:
        tally.flat += int((np.abs(SLOPES[tally.function](values)) < FLAT_SLOPE).sum())


def _facts(name: str, tally: _Tally) -> ActivationFacts:
    units = len(tally.alive)
    if tally.function in RECTIFIERS:
        return ActivationFacts(
            name, tally.function, units, dead=units - int(tally.alive.sum()), zeros=tally.zeros / tally.count
        )
    return ActivationFacts(name, tally.function, units, saturated=tally.flat / tally.count)
