"""A compressed network put in the place of the float one, in every signature of a `.tflite` that computes it.

`serving_default` is a network with an image's preparation before it and a task's results behind it. Both stay in
float32; what lies between is found in the graph by its weights and replaced by the very network of `raw`, so that every
weight lies in the file once and both answer alike.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from visionkit.runtime.tflite_file import (
    compacted,
    data_of,
    kind_of,
    new_operation,
    read_model,
    text_of,
    type_of,
    write_model,
)

__all__ = ["GraftError", "found_inputs", "graft", "integer_ends"]

Pairs = dict[int, int]
Key = tuple[str, str, tuple[tuple[int, str], ...], tuple[int, ...]]

TELLING_BYTES = 64  # of constants that tell an operation apart; axes and sizes are shorter


class GraftError(Exception):
    """Why a graph could not take the network, in a few words."""


def graft(host: bytes, pattern: bytes, network: bytes) -> bytes:
    """`host` with whatever it has of `pattern` computed by `network`.

    Args:
        host: a float file with one signature, such as `serving_default` or `embed`.
        pattern: a float file with one signature: the network, as it also stands in `host` with the same weights.
        network: what `pattern` became: the same inputs and outputs in float32, integers inside.

    Raises:
        GraftError: `host` has nothing of the network, or takes values out of it that `network` does not tell.
    """
    whole, model, inner = read_model(host), read_model(pattern), read_model(network)
    outer, float_graph, new_graph = (one.subgraphs[one.signatureDefs[0].subgraphIndex] for one in (whole, model, inner))
    operations, tensors = _matched((whole, outer), (model, float_graph))
    if not operations:
        raise GraftError("it has no operation in common with the network")
    wanted = _wanted(outer, operations, tensors)
    _check_ancestors(float_graph, operations, [tensors[index] for index in wanted])
    places = _named_places(model, float_graph, inner, new_graph)
    if untold := [index for index in wanted if tensors[index] not in places]:
        raise GraftError(f"the new network does not tell {text_of(outer.tensors[untold[0]].name)!r}")
    sources = {index: places[tensors[index]] for index in wanted}
    entries = {
        places[inner_]: host_ for host_, inner_ in tensors.items() if inner_ in set(map(int, float_graph.inputs))
    }
    _splice(whole, outer, inner, new_graph, set(operations), sources, entries)
    return write_model(compacted(whole))


def found_inputs(host: bytes, pattern: bytes) -> dict[str, str] | None:
    """The tensors of `host`, by name, that are the inputs of `pattern` in it; None if it does not compute all of it.

    Args:
        host: a float file with one signature.
        pattern: a float file with one signature: a network that also stands in `host`.
    """
    whole, model = read_model(host), read_model(pattern)
    outer, inner = (one.subgraphs[one.signatureDefs[0].subgraphIndex] for one in (whole, model))
    _, tensors = _matched((whole, outer), (model, inner))
    back = {theirs: ours for ours, theirs in tensors.items()}
    ends = {text_of(entry.name): int(entry.tensorIndex) for entry in model.signatureDefs[0].inputs}
    if any(index not in back for index in ends.values()):
        return None
    return {name: text_of(outer.tensors[back[index]].name) for name, index in ends.items()}


def integer_ends(content: bytes) -> bytes:
    """The file with one signature without the QUANTIZE at its inputs and the DEQUANTIZE at its outputs.

    An end that float operations read, too, stays float.
    """
    model = read_model(content)
    (entry,) = model.signatureDefs
    graph = model.subgraphs[entry.subgraphIndex]
    removed = []
    for end in entry.inputs:
        readers = [op for op in graph.operators if end.tensorIndex in op.inputs]
        if len(readers) == 1 and kind_of(model, readers[0]) == "QUANTIZE":
            removed.append(readers[0])
            graph.inputs = _renumbered(graph.inputs, end, int(readers[0].outputs[0]))
    for end in entry.outputs:
        makers = [op for op in graph.operators if end.tensorIndex in op.outputs]
        is_read = any(end.tensorIndex in op.inputs for op in graph.operators)
        if len(makers) == 1 and kind_of(model, makers[0]) == "DEQUANTIZE" and not is_read:
            removed.append(makers[0])
            graph.outputs = _renumbered(graph.outputs, end, int(makers[0].inputs[0]))
    graph.operators = [op for op in graph.operators if not any(op is one for one in removed)]
    return write_model(compacted(model))


def _renumbered(ends: Any, entry: Any, index: int) -> Any:
    """The graph's ends with that of the signature's entry replaced, there too."""
    old, entry.tensorIndex = int(entry.tensorIndex), index
    return np.array([index if int(end) == old else int(end) for end in ends], np.int32)


def _matched(host: tuple[Any, Any], pattern: tuple[Any, Any]) -> tuple[Pairs, Pairs]:
    """Operations and tensors of the host by number, with those of the pattern that compute the same.

    It starts at operations whose weights stand once in either graph, goes back from their inputs to what makes them,
    and on to whatever is computed alike from the tensors that are known, until nothing is added.
    """
    keys = [[_key(model, graph, op) for op in graph.operators] for model, graph in (host, pattern)]
    counts = [Counter(part) for part in keys]
    places = {key: index for index, key in enumerate(keys[1])}
    waiting = [
        (index, places[key])
        for index, key in enumerate(keys[0])
        if counts[0][key] == counts[1][key] == 1 and any(size >= TELLING_BYTES for size, _ in key[2])
    ]
    matching = _Matching(host[1], pattern[1], keys)
    matching.add(waiting)
    while found := matching.forward():
        matching.add(found)
    return matching.operations, matching.tensors


class _Matching:
    """Pairs of operations and of tensors found so far."""

    def __init__(self, host: Any, pattern: Any, keys: list[list[Key]]) -> None:
        self.graphs, self.keys = (host, pattern), keys
        self.makers = [{int(i): n for n, op in enumerate(g.operators) for i in op.outputs} for g in self.graphs]
        self.operations: Pairs = {}
        self.tensors: Pairs = {}

    def add(self, waiting: list[tuple[int, int]]) -> None:
        """Takes these pairs of operations, and those that make what they read."""
        while waiting:
            ours, theirs = waiting.pop()
            if ours in self.operations or self.keys[0][ours] != self.keys[1][theirs]:
                continue
            operations = self.graphs[0].operators[ours], self.graphs[1].operators[theirs]
            self.operations[ours] = theirs
            for index, other in zip(operations[0].outputs, operations[1].outputs, strict=True):
                self.tensors[int(index)] = int(other)
            flows = self.keys[0][ours][3]
            for flow in flows:
                index, other = int(operations[0].inputs[flow]), int(operations[1].inputs[flow])
                self.tensors.setdefault(index, other)
                if index in self.makers[0] and other in self.makers[1]:
                    waiting.append((self.makers[0][index], self.makers[1][other]))

    def forward(self) -> list[tuple[int, int]]:
        """Operations that read known tensors only, and do with them what an operation of the pattern does."""
        taken = set(self.operations.values())
        known = {}
        for number, operation in enumerate(self.graphs[1].operators):
            if number not in taken:
                flows = tuple(int(operation.inputs[flow]) for flow in self.keys[1][number][3])
                known[self.keys[1][number], flows] = number
        found = []
        for number, operation in enumerate(self.graphs[0].operators):
            flows = tuple(int(operation.inputs[flow]) for flow in self.keys[0][number][3])
            if number in self.operations or not flows or any(index not in self.tensors for index in flows):
                continue
            other = known.get((self.keys[0][number], tuple(self.tensors[index] for index in flows)))
            if other is not None:
                found.append((number, other))
        return found


def _key(model: Any, graph: Any, operation: Any) -> Key:
    """What an operation does: kind, settings and sizes, digests of its constants, places of the inputs that flow."""
    settings = "" if operation.builtinOptions is None else repr(sorted(_plain(operation.builtinOptions)))
    settings += repr([_sizes(graph.tensors[int(index)]) for index in operation.outputs])
    constants: list[tuple[int, str]] = []
    flows: list[int] = []
    for place, index in enumerate(operation.inputs):
        if index < 0:
            continue
        tensor = graph.tensors[index]
        data = data_of(model, tensor)
        if data is None:
            flows.append(place)
            continue
        digest = hashlib.blake2b(data.tobytes(), digest_size=16)
        digest.update(repr((_sizes(tensor), int(tensor.type))).encode())
        constants.append((len(data), digest.hexdigest()))
    return kind_of(model, operation), settings, tuple(constants), tuple(flows)


def _sizes(tensor: Any) -> list[int]:
    return [int(side) for side in tensor.shape] if tensor.shape is not None else []


def _plain(options: Any) -> Iterable[tuple[str, str]]:
    for name, value in vars(options).items():
        yield name, repr(np.asarray(value).tolist() if isinstance(value, np.ndarray) else value)


def _wanted(outer: Any, operations: Pairs, tensors: Pairs) -> list[int]:
    """Tensors of the network that the rest of the host reads, or gives back."""
    made = {int(index) for number in operations for index in outer.operators[number].outputs}
    read = {int(i) for n, op in enumerate(outer.operators) if n not in operations for i in op.inputs}
    return sorted(made & (read | {int(index) for index in outer.outputs}) & set(tensors))


def _check_ancestors(graph: Any, operations: Pairs, wanted: list[int]) -> None:
    """Everything that leads to the tensors must have been found in the host."""
    makers = {int(index): number for number, op in enumerate(graph.operators) for index in op.outputs}
    found, waiting, seen = set(operations.values()), [makers[i] for i in wanted if i in makers], set()
    while waiting:
        number = waiting.pop()
        if number in seen:
            continue
        seen.add(number)
        if number not in found:
            name = text_of(graph.tensors[graph.operators[number].outputs[0]].name)
            raise GraftError(f"it computes {name!r} in another way than the network")
        waiting += [makers[int(index)] for index in graph.operators[number].inputs if int(index) in makers]


def _named_places(model: Any, graph: Any, inner: Any, new_graph: Any) -> dict[int, int]:
    """Tensors of the float network by number, with those of the new one: ends by signature, others by their names."""
    names = {text_of(tensor.name): index for index, tensor in enumerate(new_graph.tensors)}
    places = {
        index: names[text_of(tensor.name)]
        for index, tensor in enumerate(graph.tensors)
        if text_of(tensor.name) in names
    }
    old, new = model.signatureDefs[0], inner.signatureDefs[0]
    for ours, theirs in ((old.inputs, new.inputs), (old.outputs, new.outputs)):
        ends = {text_of(entry.name): int(entry.tensorIndex) for entry in theirs}
        places |= {int(entry.tensorIndex): ends[text_of(entry.name)] for entry in ours}
    return places


def _splice(
    whole: Any, outer: Any, inner: Any, new_graph: Any, removed: set[int], sources: Pairs, entries: Pairs
) -> None:
    """Takes operations out of the host and puts those of the new network in that `sources` need."""
    offset, buffers = len(outer.tensors), len(whole.buffers)
    places = {index: index + offset for index in range(len(new_graph.tensors))} | entries
    operations = [op for number, op in enumerate(outer.operators) if number not in removed]
    for host, index in sources.items():
        if type_of(new_graph.tensors[index]) == "float32" and places[index] >= offset:
            places[index] = host
        else:
            operations.append(new_operation(whole, "DEQUANTIZE", [places[index]], [host]))
    needed = _needed(new_graph, set(sources.values()), set(entries))
    codes = len(whole.operatorCodes)
    for operation in needed:
        operation.opcodeIndex += codes
        for part in ("inputs", "outputs"):
            indices = [places[int(index)] if index >= 0 else -1 for index in getattr(operation, part)]
            setattr(operation, part, np.array(indices, np.int32))
    for tensor in new_graph.tensors:
        tensor.buffer += buffers
    whole.buffers += inner.buffers
    whole.operatorCodes += inner.operatorCodes
    outer.tensors += new_graph.tensors
    outer.operators = _in_order(outer, operations + needed)


def _needed(graph: Any, targets: set[int], inputs: set[int]) -> list[Any]:
    """Operations that lead to the targets, in order."""
    wanted, kept = set(targets), []
    for operation in reversed(graph.operators):
        if wanted & {int(index) for index in operation.outputs}:
            kept.append(operation)
            wanted |= {int(index) for index in operation.inputs}
    if missing := (wanted & {int(index) for index in graph.inputs}) - inputs:
        raise GraftError(f"it does not compute the network's input {text_of(graph.tensors[min(missing)].name)!r}")
    return kept[::-1]


def _in_order(graph: Any, operations: list[Any]) -> list[Any]:
    """The operations so that each comes behind those it reads from."""
    made = {int(index) for op in operations for index in op.outputs}
    ready, ordered, waiting = set(), [], list(operations)
    while waiting:
        rest = []
        for operation in waiting:
            if all(int(index) in ready or int(index) not in made for index in operation.inputs):
                ordered.append(operation)
                ready |= {int(index) for index in operation.outputs}
            else:
                rest.append(operation)
        if len(rest) == len(waiting):
            raise GraftError("the parts would wait for each other")
        waiting = rest
    return ordered
