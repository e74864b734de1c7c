"""How receptive fields pass through layers and meet, whatever the network is written in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from visionkit.geometry.receptive_field import Pair, ReceptiveField, merge

__all__ = ["Effect", "Trace", "all_of", "correlate", "first", "flatten", "join", "local", "same", "unknown"]


@dataclass(frozen=True, slots=True)
class Trace:
    """What the features of one tensor see.

    Args:
        fields: receptive field by name of the input; None where it is not known.
        map_hw: size of the feature map; (1, 1) for vectors.
        flat: the map was flattened and its positions lie in one vector: a dense layer unites them.
    """

    fields: Mapping[str, ReceptiveField] | None = field(default_factory=dict)
    map_hw: Pair = (1, 1)
    flat: bool = False


# From the traces of the inputs and the size of the output's map to the output's trace and notes.
Effect = Callable[[Sequence[Trace], Pair], tuple[Trace, tuple[str, ...]]]


def same(traces: Sequence[Trace], map_hw: Pair) -> tuple[Trace, tuple[str, ...]]:
    """Each position depends on the same position; several inputs meet."""
    traces = [trace for trace in traces if trace.fields is None or trace.fields]
    if len(traces) == 1 and traces[0].map_hw == map_hw:
        return traces[0], ()
    if len(traces) == 1 and traces[0].flat:
        return traces[0], ()
    return join(traces, map_hw)


def join(traces: Sequence[Trace], map_hw: Pair) -> tuple[Trace, tuple[str, ...]]:
    """Branches are added, multiplied or joined; one of a single position is spread over the others' map."""
    traces = [_united(trace) for trace in traces if trace.fields is None or trace.fields]
    if any(trace.fields is None for trace in traces):
        return Trace(None, map_hw), ()
    found: dict[str, ReceptiveField] = {}
    notes: list[str] = []
    names = dict.fromkeys(name for trace in traces for name in trace.fields or ())
    for name in names:
        fields = [_spread(trace, name, map_hw) for trace in traces if trace.fields and name in trace.fields]
        found[name], word = merge(fields)
        if word and map_hw != (1, 1):
            notes.append(f"misaligned: {word}" + (f" (input {name})" if len(names) > 1 else ""))
    return Trace(found, map_hw), tuple(notes)


def _united(trace: Trace) -> Trace:
    """A flattened map as one position that sees everything."""
    return all_of([trace], (1, 1))[0] if trace.flat else trace


def _spread(trace: Trace, name: str, map_hw: Pair) -> ReceptiveField:
    seen = (trace.fields or {})[name]
    return seen.still() if trace.map_hw == (1, 1) != map_hw else seen


def local(change: Callable[[ReceptiveField], ReceptiveField]) -> Effect:
    """The effect of a layer that looks through a window: `change` is what becomes of a field."""

    def effect(traces: Sequence[Trace], map_hw: Pair) -> tuple[Trace, tuple[str, ...]]:
        trace, notes = same(traces, traces[0].map_hw) if traces else (Trace(), ())
        fields = None if trace.fields is None else {name: change(seen) for name, seen in trace.fields.items()}
        return Trace(fields, map_hw), notes

    return effect


def first(effect: Effect) -> Effect:
    """The effect on the first input; of the others only the size is read."""
    return lambda traces, map_hw: effect(traces[:1], map_hw)


def all_of(traces: Sequence[Trace], map_hw: Pair) -> tuple[Trace, tuple[str, ...]]:
    """Every output depends on every position of the map: global pooling, a dense layer over a flattened map."""
    trace, notes = same(traces, traces[0].map_hw) if traces else (Trace(), ())
    if trace.fields is None:
        return Trace(None, map_hw), notes
    fields = {name: seen.window(trace.map_hw) for name, seen in trace.fields.items()}
    if map_hw != (1, 1):
        fields = {name: seen.still() for name, seen in fields.items()}
    return Trace(fields, map_hw), notes


def flatten(traces: Sequence[Trace], map_hw: Pair) -> tuple[Trace, tuple[str, ...]]:
    """The positions of the map are put side by side in a vector."""
    trace, notes = same(traces, traces[0].map_hw) if traces else (Trace(), ())
    return replace(trace, flat=trace.map_hw != (1, 1)), notes


def correlate(exemplar_window: bool) -> Effect:
    """A cross-correlation of [exemplar, search]; the exemplar's map is the window, or each position is a 1x1 one."""

    def effect(traces: Sequence[Trace], map_hw: Pair) -> tuple[Trace, tuple[str, ...]]:
        exemplar, search = traces
        if exemplar.fields is None or search.fields is None:
            return Trace(None, map_hw), ()
        kernel = exemplar.map_hw if exemplar_window else (1, 1)
        seen = {name: field_.window(exemplar.map_hw).still() for name, field_ in exemplar.fields.items()}
        moved = {name: field_.window(kernel) for name, field_ in search.fields.items()}
        return join([Trace(seen, (1, 1)), Trace(moved, map_hw)], map_hw)

    return effect


def unknown(traces: Sequence[Trace], map_hw: Pair) -> tuple[Trace, tuple[str, ...]]:
    """A layer that this version does not know: nothing can be told of what lies behind it."""
    seen = any(trace.fields is None or trace.fields for trace in traces)
    return Trace(None if seen else {}, map_hw), ("how this layer looks at its input is not known",) if seen else ()
