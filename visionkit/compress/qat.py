"""Quantization-aware training in Keras itself: a network whose numbers are those that eight bits can say. Any backend.

Jacob et al., Quantization and training of neural networks for efficient integer-arithmetic-only inference, CVPR 2018:
weights and activations are rounded in training as they will be in inference, so that the network learns to live with
it. Where to round follows what LiteRT does: once for each tensor that it writes to memory. A rectifier belongs to the
sum or convolution before it; a hard swish does not. What only moves numbers about (pooling, padding, resizing, joining)
has one scale for all that goes in and out, which is found where those numbers are made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from visionkit.compress.fake_quant import MIDDLES, FakeQuant
from visionkit.compress.fold import fold_graph, trained_norm
from visionkit.compress.graph import Graph, Part, Step, Value, read_graph
from visionkit.compress.qat_rules import FLOAT, NORM, OWN, RECTIFIER, SAME, WEIGHTS, Role, role_of
from visionkit.compress.quant_layers import TWINS
from visionkit.nets.blocks import layer_name

__all__ = [
    "LayerPlan",
    "calibrate_ranges",
    "freeze_ranges",
    "plan_quantization",
    "quantize_aware",
    "rounded_to",
    "unseen_ranges",
]

NORMS = ("fold", "train")
RANGES = ("moving", "learned")
JOINABLE = (keras.layers.Add, *TWINS)  # LiteRT does a rectifier behind these at once
QUANTIZED = (WEIGHTS, OWN)


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """What becomes of one layer of a network.

    Args:
        name: of the layer, after folding.
        kind: its class.
        how: `int8`, or `float`.
        reason: why it stays in float.
    """

    name: str
    kind: str
    how: str
    reason: str = ""


def quantize_aware(
    model: keras.Model,
    *,
    batch_norm: str = "fold",
    ranges: str = "moving",
    momentum: float = 0.99,
    input_range: Sequence[float] | None = None,
    keep_float: Sequence[str] = (),
    samples: Iterable[Any] = (),
) -> keras.Model:
    """A network of the same inputs and outputs that rounds weights and activations to eight bits, to be trained.

    `compile()` and `fit()` it as any other; layers keep their names and weights, and those that round activations are
    called after what they round, with `.quant` behind. `model` stays as it is. Rebuild it by the same call and
    `load_weights` to take it up again.

    Args:
        model: functional or sequential, its batch normalisations trained.
        batch_norm: `fold` puts normalisations into the weights now; `train` leaves them to be trained on, and folds
            them at the export, which is exact as every output channel has its own scale.
        ranges: of activations; `moving` means of what batches hold, or `learned` from where `samples` put them.
        momentum: of the moving mean.
        input_range: (low, high) of the network's input where it is known, such as that of normalised images.
        keep_float: patterns of the names of layers that stay in float (`classifier.*`).
        samples: batches of inputs to find the first ranges with; without, the first batch of the training does.

    Raises:
        ModelError: `model-graph`; the model is written as a subclass.
        ValueError: an argument out of its range, or a pattern that no layer has.
    """
    if batch_norm not in NORMS or ranges not in RANGES:
        raise ValueError(
            f"`batch_norm` must be one of {', '.join(NORMS)}, `ranges` of {', '.join(RANGES)}. "
            f"Received: batch_norm={batch_norm!r}, ranges={ranges!r}."
        )
    batches = list(samples)
    if ranges == "learned" and not batches:
        raise ValueError("`ranges`='learned' needs `samples` to start from. Received: samples=().")
    graph = read_graph(model)
    fold_graph(graph, norms=batch_norm == "fold")
    options = {"learned": ranges == "learned", "momentum": momentum}
    _Rounding(graph, keep_float, options, input_range).apply()
    network = graph.build()
    calibrate_ranges(network, batches)
    return network


def plan_quantization(
    model: keras.Model, *, batch_norm: str = "fold", keep_float: Sequence[str] = ()
) -> list[LayerPlan]:
    """What `quantize_aware` would do with each layer, in the order in which they run, and why not."""
    graph = read_graph(model)
    fold_graph(graph, norms=batch_norm == "fold")
    roles = _roles(graph, keep_float)
    rows: dict[Part, LayerPlan] = {}
    for step in graph.steps:
        role = roles[step]
        how = "float" if role.kind == FLOAT else "int8"
        rows.setdefault(step.part, LayerPlan(step.part.name, step.part.kind.__name__, how, role.reason))
    return list(rows.values())


def calibrate_ranges(network: keras.Model, batches: Iterable[Any]) -> None:
    """Take batches of inputs into the ranges of a network of `quantize_aware`, in inference, nothing else learnt."""
    layers = _rounding_layers(network)
    for layer in layers:
        layer.calibrating = True
    try:
        for batch in batches:
            network(batch, training=False)
    finally:
        for layer in layers:
            layer.calibrating = False


def freeze_ranges(network: keras.Model, frozen: bool = True) -> None:
    """Hold moving ranges where they are, as one does for the last epochs; or let them move again."""
    for layer in _rounding_layers(network):
        if layer.fixed is None:
            layer.moving.assign(0.0 if frozen else 1.0)


def rounded_to(network: keras.Model) -> dict[str, tuple[float, float]]:
    """By name of the rounding layer, the range that activations are rounded in, of those that have one."""
    found = {layer.name: layer.range() for layer in _rounding_layers(network)}
    return {name: limits for name, limits in found.items() if limits is not None}


def unseen_ranges(network: keras.Model) -> list[str]:
    """Names of the rounding layers that saw no batch, and so have no range."""
    return [layer.name for layer in _rounding_layers(network) if layer.range() is None]


def _rounding_layers(network: keras.Model) -> list[FakeQuant]:
    return [layer for layer in network.layers if isinstance(layer, FakeQuant)]


def _roles(graph: Graph, keep_float: Sequence[str]) -> dict[Step, Role]:
    """What becomes of each step; a normalisation that is trained is part of the layer before it."""
    names = {step.part.name for step in graph.steps}
    for pattern in keep_float:
        if not any(role_of(step, [pattern]).reason.startswith("kept") for step in graph.steps):
            raise ValueError(
                f"`keep_float` must match names of layers. Received: {pattern!r}; there are {sorted(names)}."
            )
    makers = graph.maker()
    roles = {}
    for step in graph.steps:
        roles[step] = role_of(step, keep_float)
        if trained_norm(graph, makers, step) and roles[makers[step.inputs[0]]].kind == WEIGHTS:
            roles[step] = Role(NORM)
    return roles


class _Rounding:
    """Puts rounding into a graph: one `FakeQuant` for each set of tensors that must have one scale."""

    def __init__(
        self, graph: Graph, keep_float: Sequence[str], options: dict[str, Any], input_range: Sequence[float] | None
    ) -> None:
        self.graph, self.options = graph, options
        self.input_range = None if input_range is None else (float(input_range[0]), float(input_range[1]))
        self.roles = _roles(graph, keep_float)
        self.makers, self.users = graph.maker(), graph.users()
        self.same: dict[Value, Value] = {}  # towards the first of those with the same scale
        self.names: Counter[str] = Counter()

    def apply(self) -> None:
        """Change the graph."""
        for step in self.graph.steps:
            if self.roles[step].kind == SAME:
                first, *rest = [*step.inputs, *step.outputs]
                for value in rest:
                    self.same[self._root(value)] = self._root(first)
        sets: dict[Value, list[Value]] = {}
        for value in [*self.graph.inputs, *(value for step in self.graph.steps for value in step.outputs)]:
            if value.dtype.startswith("float"):
                sets.setdefault(self._root(value), []).append(value)
        rounded = [self._layers(values) for values in sets.values() if self._is_integer(values)]
        for step in self.graph.steps:
            if self.roles[step].kind == WEIGHTS:
                step.part = self._twin(step.part)
        self._insert({value: steps for found in rounded for value, steps in found.items()})

    def _twin(self, part: Part) -> Part:
        self._twins: dict[Part, Part] = getattr(self, "_twins", {})
        if part not in self._twins:
            self._twins[part] = Part(part.name, TWINS[part.kind], part.config, part.weights)
        return self._twins[part]

    def _root(self, value: Value) -> Value:
        while (above := self.same.get(value, value)) != value:
            value = above
        return value

    def _is_integer(self, values: list[Value]) -> bool:
        """Whether any eight-bit operation gives or takes one of these tensors."""
        for value in values:
            steps = [self.makers.get(value), *self.users[value]]
            if any(step is not None and self._calculates(step) for step in steps):
                return True
        return False

    def _calculates(self, step: Step) -> bool:
        kind = self.roles[step].kind
        if kind != RECTIFIER:
            return kind in QUANTIZED or kind == NORM
        maker = self.makers.get(step.inputs[0])
        return maker is None or not self._is_inside(step.inputs[0]) or self._calculates(maker)

    def _is_inside(self, value: Value) -> bool:
        """Whether a tensor is never written to memory: what takes it is part of the operation that makes it."""
        users = self.users[value]
        step, maker = users[0] if len(users) == 1 else None, self.makers.get(value)
        if step is None or maker is None:
            return False
        if self.roles[step].kind == NORM:
            return True
        if self.roles[step].kind != RECTIFIER:
            return False
        return self.roles[maker].kind == NORM or (maker.part.kind in JOINABLE and self.roles[maker].kind in QUANTIZED)

    def _layers(self, values: list[Value]) -> dict[Value, list[tuple[Part, int]]]:
        """Of the tensors with one scale that are made, rather than moved, the layers to put behind them."""
        made = [value for value in values if self._is_made(value)]
        if not made:
            return {}
        found: dict[Value, list[tuple[Part, int]]] = {value: [] for value in made}
        fixed = {value: limits for value in made if (limits := self._fixed(value)) is not None}
        for value, limits in fixed.items():
            found[value].append((self._part(value, {"fixed": limits}), 0))
        if len(fixed) == len(made) and len(set(fixed.values())) == 1:
            shared = found[made[0]][0][0]
        else:
            shared = self._part(made[0], {"sites": len(made), **self.options}, joined=bool(fixed))
            for site, value in enumerate(made):
                found[value].append((shared, site))
        sites = {middle: site for site, middle in MIDDLES.items()}
        middles = {value: self.roles[self.makers[value]].middle for value in values if value in self.makers}
        return {**found, **{value: [(shared, sites[middle])] for value, middle in middles.items() if middle}}

    def _is_made(self, value: Value) -> bool:
        maker = self.makers.get(value)
        return not self._is_inside(value) and (maker is None or self.roles[maker].kind != SAME)

    def _fixed(self, value: Value) -> tuple[float, float] | None:
        maker = self.makers.get(value)
        return self.input_range if maker is None else self.roles[maker].fixed

    def _part(self, value: Value, config: dict[str, Any], *, joined: bool = False) -> Part:
        maker = self.makers.get(value)
        source = self.graph.sources[self.graph.inputs.index(value)] if maker is None else maker.part
        name = f"{source.name}.{'join' if joined else 'quant'}"
        self.names[name] += 1
        if self.names[name] > 1:
            name = f"{name}.{self.names[name]}"
        return Part(name, FakeQuant, {"name": layer_name(name), "dtype": "float32", **config})

    def _insert(self, layers: dict[Value, list[tuple[Part, int]]]) -> None:
        """Put the layers behind their tensors, and what takes those behind the layers."""
        steps: list[Step] = []
        names: dict[Value, Value] = {}
        self._round(self.graph.inputs, layers, steps, names)
        for step in self.graph.steps:
            step.renamed(names)
            steps.append(step)
            self._round(step.outputs, layers, steps, names)
        self.graph.steps = steps
        self.graph.outputs = keras.tree.map_structure(lambda value: names.get(value, value), self.graph.outputs)

    def _round(
        self,
        values: list[Value],
        layers: dict[Value, list[tuple[Part, int]]],
        steps: list[Step],
        names: dict[Value, Value],
    ) -> None:
        for value in values:
            last = value
            for part, site in layers.get(value, []):
                rounded = self.graph.value(value)
                steps.append(Step(part, (last,), {"site": site} if site else {}, [rounded]))
                last = rounded
            if last is not value:
                names[value] = last
