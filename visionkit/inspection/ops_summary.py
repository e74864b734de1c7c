"""The table of an exported graph: the same rows as a Keras network's, as far as its operations allow."""

from __future__ import annotations

import math
from collections.abc import Sequence

from visionkit.geometry.receptive_field import ReceptiveField
from visionkit.inspection import effects
from visionkit.inspection.behaviour import Behaviour, map_of
from visionkit.inspection.effects import Trace
from visionkit.inspection.facts import LayerFacts, Summary
from visionkit.inspection.ops_graph import Operation, OpsGraph, TensorFacts
from visionkit.inspection.ops_rules import data_inputs, rule_of

__all__ = ["summarize_ops"]


def summarize_ops(graph: OpsGraph) -> Summary:
    """One row for each operation: output size, numbers in the file, multiply-adds, receptive field.

    Batch normalisation is folded into the weights of an exported file, so that its parameters are fewer than the
    network's; what quantization adds (scales, zero points) is not counted.
    """
    walk = _Walk(graph)
    for operation in graph.operations:
        walk.step(operation)
    return Summary(
        name=graph.name,
        inputs={name: graph.tensors[index].shape[1:] for name, index in graph.inputs.items()},
        outputs={name: graph.tensors[index].shape[1:] for name, index in graph.outputs.items()},
        layers=tuple(walk.rows),
        parameters=sum(row.parameters for row in walk.rows),
        trainable=0,
        notes=(
            "Parameters are the numbers in the file: batch normalisation is folded into them, none is trainable.",
            "MACs count multiplications by weights; pooling, normalisation and elementwise operations count 0.",
            *graph.notes,
        ),
    )


class _Walk:
    def __init__(self, graph: OpsGraph) -> None:
        self.graph = graph
        self.rows: list[LayerFacts] = []
        self._traces: dict[int, Trace] = {}
        self._rows_of: dict[int, str] = {}
        self._counted: set[int] = set()
        self._names = short_names([graph.tensors[op.outputs[0]].name for op in graph.operations])
        self._weights_behind: dict[int, int] = {}  # a decompressed weight -> the constant it is made of
        for name, index in graph.inputs.items():
            shape = graph.tensors[index].shape
            fields = {name: ReceptiveField()} if len(shape) == 4 else {}
            self._traces[index] = Trace(fields, map_of(shape))
            self._rows_of[index] = name
            self.rows.append(LayerFacts(name, "Input", shape[1:], fields=fields))

    def step(self, operation: Operation) -> None:
        """Add the operation's row; one that only unpacks a weight has none."""
        tensors = self.graph.tensors
        constant = [i for i in operation.inputs if i >= 0 and (tensors[i].constant or i in self._weights_behind)]
        if operation.kind == "DEQUANTIZE" and constant:
            self._weights_behind[operation.outputs[0]] = constant[0]
            return
        inputs = [tensors[i] if i >= 0 else None for i in operation.inputs]
        result = tensors[operation.outputs[0]]
        behaviour = self._behaviour(operation, inputs, result)
        # what is no map, such as sizes that are worked out, is not looked at through
        data = [i for i in data_inputs(operation) if i in self._traces]
        trace, notes = behaviour.effect([self._traces[i] for i in data], map_of(result.shape))
        name = self._names[result.name]
        for index in operation.outputs:
            self._traces[index], self._rows_of[index] = trace, name
        self.rows.append(
            LayerFacts(
                name=name,
                kind=_kind(operation),
                output_shape=result.shape[1:],
                parameters=self._count(constant),
                macs=behaviour.macs,
                fields=trace.fields,
                window=behaviour.window,
                notes=notes,
                inputs=tuple(dict.fromkeys(self._rows_of[i] for i in data)),
            )
        )

    def _behaviour(self, operation: Operation, inputs: list[TensorFacts | None], result: TensorFacts) -> Behaviour:
        try:
            return rule_of(operation.kind)(operation, inputs, result)
        except (ValueError, IndexError, KeyError, ZeroDivisionError):  # sizes left open, or a file made by chance
            return Behaviour(effects.unknown, None)

    def _count(self, constant: list[int]) -> int:
        """Numbers of the network among these constants that no operation before has used."""
        sources = {self._weights_behind.get(i, i) for i in constant}
        fresh = {i for i in sources - self._counted if self.graph.tensors[i].weights}
        self._counted |= fresh
        return sum(math.prod(self.graph.tensors[i].shape) for i in fresh)


def _kind(operation: Operation) -> str:
    fused = operation.options.get("activation")
    return f"{operation.kind} + {fused}" if fused else operation.kind


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The converter's names made readable, by the name: the first of those it joined, without the folders all share."""
    first = {name: name.split(";")[0] or "?" for name in names}
    folders = [text.split("/")[:-1] for text in first.values() if "/" in text]
    shared = 0
    if folders:
        shared = next(
            (i for i, parts in enumerate(zip(*folders, strict=False)) if len(set(parts)) > 1), min(map(len, folders))
        )
    return {name: "/".join(text.split("/")[shared:]) if "/" in text else text for name, text in first.items()}
