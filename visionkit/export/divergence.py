"""From which layer on two forms of one network say different things."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.runtime.tflite_trace import TracedOperation, trace_tflite

if TYPE_CHECKING:
    import keras

__all__ = ["LayerDifference", "compare_files", "compare_layers", "first_diverging", "layer_outputs"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

FLOAT_TOLERANCE = 1e-3  # of float arithmetic, as a share of the layer's own spread
INTEGER_TOLERANCE = 0.2  # of 8-bit integers; their rounding adds up from layer to layer


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """How far one layer's output is from the same layer's of the reference.

    Args:
        layer: its name in Keras; `operation`, the kind of the operation in the file.
        error: root of the mean square of the difference, as a share of that of the reference.
        largest: absolute difference.
        integer: whether the operation computes with integers.
    """

    layer: str
    operation: str
    error: float
    largest: float
    integer: bool

    @property
    def tolerance(self) -> float:
        """What its kind of arithmetic may differ by."""
        return INTEGER_TOLERANCE if self.integer else FLOAT_TOLERANCE


def compare_layers(
    reference: Mapping[str, Floats], content: bytes, inputs: Mapping[str, Array], signature: str | None = None
) -> list[LayerDifference]:
    """Every operation of a `.tflite` that is a layer of the reference, in the order in which they run.

    Of several operations that one layer became (the sum, the product and the division of a hard swish on integers),
    only the last one says what the layer does.

    Args:
        reference: outputs by layer, for the same inputs: `layer_outputs`.
        content, inputs, signature: as `trace_tflite`.
    """
    rows: list[LayerDifference] = []
    order = list(reference)
    traced = trace_tflite(content, inputs, signature)
    last = {one.layers[0]: one for one in traced if one.layers}
    for operation in traced:
        if operation.layers and last[operation.layers[0]] is not operation:
            continue
        # What a signature gives back has a name without layers: it is one that comes after those that were met.
        later = order[order.index(rows[-1].layer) + 1 :] if rows else order
        found = _nearest(operation, operation.layers or later, reference)
        if found is not None:
            rows.append(found)
    return rows


def first_diverging(rows: Iterable[LayerDifference]) -> LayerDifference | None:
    """The first layer that differs by more than its arithmetic explains, if a later one does, too, or none comes after.

    A layer that is off for itself alone (one whose values cancel) is none from which the networks part.
    """
    listed = list(rows)
    off = [place for place, row in enumerate(listed) if not row.error <= row.tolerance]
    alone = len(off) == 1 and off[0] < len(listed) - 1
    return None if not off or alone else listed[off[0]]


def layer_outputs(model: keras.Model, inputs: Mapping[str, Array]) -> dict[str, Floats]:
    """The output of every layer of a functional model, by its name; of those inside of nested models too.

    Args:
        model: with inputs as `visionkit.runtime.keras_net.signature_of` calls them.
        inputs: by those names.
    """
    from visionkit.runtime.keras_net import signature_of
    from visionkit.runtime.quiet import import_keras

    keras = import_keras()
    tensors: dict[str, Any] = {}
    for layer in model.layers:
        if type(layer).__name__ != "InputLayer" and not isinstance(layer, keras.Model):
            output = layer.output
            if not isinstance(output, list | tuple | dict):
                tensors[layer.name] = output
    names = [spec.name for spec in signature_of(model, 1).inputs]
    probe = keras.Model(model.inputs, list(tensors.values()))
    found = probe.predict_on_batch([inputs[name] for name in names])
    found = found if isinstance(found, list | tuple) else [found]
    return {name: np.asarray(value, np.float32) for name, value in zip(tensors, found, strict=True)}


def compare_files(
    reference: bytes, content: bytes, inputs: Mapping[str, Array], signature: str | None = None
) -> list[LayerDifference]:
    """As `compare_layers`, one `.tflite` next to another; what is of integers in either is judged as such."""
    told = _by_layer(reference, inputs, signature)
    rows = compare_layers({layer: one.value for layer, one in told.items()}, content, inputs, signature)
    return [replace(row, integer=row.integer or told[row.layer].scale is not None) for row in rows]


def _by_layer(content: bytes, inputs: Mapping[str, Array], signature: str | None) -> dict[str, TracedOperation]:
    return {one.layers[0]: one for one in trace_tflite(content, inputs, signature) if one.layers}


def _nearest(
    operation: TracedOperation, layers: Sequence[str], reference: Mapping[str, Floats]
) -> LayerDifference | None:
    """Of the layers that an operation may be, the one whose output is nearest to its."""
    rows = [
        _difference(layer, operation, reference[layer])
        for layer in layers
        if layer in reference and reference[layer].size == operation.value.size
    ]
    return min(rows, key=lambda row: row.error, default=None)


def _difference(layer: str, operation: TracedOperation, wanted: Floats) -> LayerDifference:
    apart = operation.value.astype(np.float64).reshape(-1) - wanted.astype(np.float64).reshape(-1)
    size = float(np.sqrt(np.mean(wanted.astype(np.float64) ** 2)))
    error = float(np.sqrt(np.mean(apart**2)))
    share = error / size if size else float(error > 0)
    largest = float(np.abs(apart).max(initial=0.0))
    return LayerDifference(layer, operation.kind, share, largest, operation.scale is not None)
