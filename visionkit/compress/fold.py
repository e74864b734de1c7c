"""A network without what integer arithmetic has no use for: normalisations and gates folded into weights. Any backend.

Jacob et al., Quantization and training of neural networks for efficient integer-arithmetic-only inference, CVPR 2018,
section 3.2: a batch normalisation in inference is a factor and an addend for each channel, which the convolution before
it can do itself.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from visionkit.compress.graph import Graph, Part, Step, Value, read_graph
from visionkit.compress.quant_layers import TWINS

__all__ = ["activation_name", "fold_batch_norm", "fold_graph", "norm_factors", "scaled_kernel"]

Floats = npt.NDArray[np.float32]
GATE, GATE_SHIFT = 6.0, 3.0  # a hard sigmoid is relu6(x + 3) / 6
NO_ACTIVATION = {"activation": "linear"}


def fold_batch_norm(model: keras.Model) -> keras.Model:
    """A network of the same answers in inference, each batch normalisation folded into the layer before it.

    One that follows no convolution, transposed convolution or dense layer stays, and so does one behind a layer whose
    output is used elsewhere. `model` stays as it is.
    """
    graph = read_graph(model)
    _split_activations(graph)
    _fold_norms(graph)
    return graph.build()


def fold_graph(graph: Graph, *, norms: bool = True) -> None:
    """Change the steps of `graph` to what can be quantized, exactly: its answers in inference stay what they are.

    Activations become steps of their own, swish a product with a sigmoid, sums of many a chain of sums of two; a hard
    sigmoid behind a layer with weights goes into them, and leaves a clipping to 0 … 1; a batch normalisation of a map
    that no convolution precedes becomes a depthwise convolution of 1x1.

    Args:
        norms: fold batch normalisations into weights, too; otherwise those that can be stay to be trained.
    """
    _split_activations(graph)
    if norms:
        _fold_norms(graph)
    _fold_gates(graph)
    _split_swish(graph)
    _split_sums(graph)
    _lone_norms(graph)


def activation_name(part: Part) -> str | None:
    """What a layer without weights does to each number: `relu`, `relu6`, `relu1`, `leaky_relu`, `hard_silu` …"""
    if part.kind is keras.layers.ReLU:
        if part.config.get("threshold") or part.config.get("negative_slope"):
            return None
        return {None: "relu", 6: "relu6", 1: "relu1"}.get(part.config.get("max_value"))
    if part.kind is keras.layers.LeakyReLU:
        return "leaky_relu"
    if part.kind is keras.layers.Softmax:
        return "softmax" if part.config.get("axis") in (-1, [-1]) else None
    if part.kind is keras.layers.Activation:
        found = keras.activations.get(part.config["activation"])
        return str(getattr(found, "__name__", "")) or None
    return None


def norm_factors(part: Part) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Factor and addend of each channel in a batch normalisation's inference."""
    weights = [np.asarray(weight, np.float64) for weight in part.weights or []]
    gamma = weights.pop(0) if part.config["scale"] else 1.0
    beta = weights.pop(0) if part.config["center"] else 0.0
    mean, variance = weights
    factor = gamma / np.sqrt(variance + part.config["epsilon"])
    return factor, beta - mean * factor


def scaled_kernel(kind: type, kernel: npt.NDArray[Any], factor: npt.NDArray[np.float64]) -> Floats:
    """A kernel whose output channels are multiplied by `factor`."""
    if kind is keras.layers.DepthwiseConv2D:
        factor = factor.reshape(kernel.shape[2:])  # (C, multiplier)
    elif kind is keras.layers.Conv2DTranspose:
        factor = factor[:, None]  # (h, w, filters, C)
    return np.asarray(kernel.astype(np.float64) * factor, np.float32)


def _only_user(graph: Graph, step: Step) -> Step | None:
    """The one step that takes a step's output, if there is one only and it is no output of the model."""
    users = graph.users()[step.output]
    return users[0] if len(users) == 1 else None


def _split_activations(graph: Graph) -> None:
    """Layers with weights lose their activation to a step behind them."""
    plain: dict[Part, tuple[Part, Part]] = {}
    steps: list[Step] = []
    for step in graph.steps:
        steps.append(step)
        part = step.part
        if part.kind not in TWINS or keras.activations.get(part.config["activation"]) is keras.activations.linear:
            continue
        if part not in plain:
            config = {"activation": part.config["activation"], "name": f"{part.name}.activation"}
            bare = dataclasses.replace(part, config={**part.config, **NO_ACTIVATION})
            plain[part] = bare, Part(config["name"], keras.layers.Activation, config)
        step.part, activation = plain[part]
        before = graph.value(step.output)
        steps.append(Step(activation, (before,), {}, [step.output]))
        step.outputs = [before]
    graph.steps = steps


def _fold_norms(graph: Graph) -> None:
    users = graph.users()
    callers: dict[Part, list[Step]] = {}
    for step in graph.steps:
        callers.setdefault(step.part, []).append(step)
    for part, steps in callers.items():
        if part.kind not in TWINS:
            continue
        behind = [users[step.output] for step in steps]
        norms = [found[0] for found in behind if len(found) == 1 and found[0] is not None]
        if len(norms) < len(steps) or not all(is_norm(step) for step in norms):
            continue
        if len({step.part for step in norms}) > 1 or len(callers[norms[0].part]) != len(norms):
            continue  # one of them is shared with others
        folded = with_norm(part, norms[0].part)
        for step, norm in zip(steps, norms, strict=True):
            step.part, step.outputs = folded, norm.outputs
            graph.steps.remove(norm)


def is_norm(step: Step) -> bool:
    """Whether a step is a batch normalisation of the last axis."""
    part = step.part
    if part.kind is not keras.layers.BatchNormalization:
        return False
    return part.config["axis"] in (-1, len(step.output.shape) - 1)


def with_norm(part: Part, norm: Part) -> Part:
    """A layer with weights that does the normalisation behind it, too."""
    factor, addend = norm_factors(norm)
    kernel, *bias = part.weights or []
    old = np.asarray(bias[0], np.float64) if bias else 0.0
    weights = [scaled_kernel(part.kind, kernel, factor), np.asarray(old * factor + addend, np.float32)]
    return dataclasses.replace(part, config={**part.config, "use_bias": True}, weights=weights)


def _fold_gates(graph: Graph) -> None:
    """`relu6(x + 3) / 6` behind weights: a sixth of them, the bias raised, and a clipping to 0 … 1."""
    for step in graph.steps:
        behind = _only_user(graph, step) if step.part.kind in TWINS else None
        if behind is None or activation_name(behind.part) != "hard_sigmoid":
            continue
        if sum(other.part is step.part for other in graph.steps) > 1:
            continue
        kernel, *bias = step.part.weights or []
        channels = int(step.output.shape[-1] or 0)
        old = bias[0] if bias else np.zeros(channels, np.float32)
        weights = [kernel / np.float32(GATE), (old + np.float32(GATE_SHIFT)) / np.float32(GATE)]
        step.part = dataclasses.replace(step.part, config={**step.part.config, "use_bias": True}, weights=weights)
        name = behind.part.name
        behind.part = Part(name, keras.layers.ReLU, {"max_value": 1.0, "name": name})


def _split_swish(graph: Graph) -> None:
    steps: list[Step] = []
    for step in graph.steps:
        if activation_name(step.part) != "silu":
            steps.append(step)
            continue
        gate, name = graph.value(step.output), step.part.name
        names = f"{name}.sigmoid", f"{name}.product"
        config = {"activation": "sigmoid", "name": names[0]}
        steps.append(Step(Part(names[0], keras.layers.Activation, config), step.args, {}, [gate]))
        product = Part(names[1], keras.layers.Multiply, {"name": names[1]})
        steps.append(Step(product, ([step.inputs[0], gate],), {}, step.outputs))
    graph.steps = steps


def _split_sums(graph: Graph) -> None:
    steps: list[Step] = []
    for step in graph.steps:
        first, *rest = step.inputs
        if step.part.kind is not keras.layers.Add or len(rest) < 2:
            steps.append(step)
            continue
        for number, value in enumerate(rest, 1):
            last = number == len(rest)
            name = step.part.name if last else f"{step.part.name}.{number}"
            output = step.output if last else graph.value(step.output)
            steps.append(Step(Part(name, keras.layers.Add, {"name": name}), ([first, value],), {}, [output]))
            first = output
    graph.steps = steps


def _lone_norms(graph: Graph) -> None:
    """A normalisation of a map (B, H, W, C) that follows no weights, as a depthwise convolution."""
    makers = graph.maker()
    made: dict[Part, Part] = {}
    for step in graph.steps:
        if not is_norm(step) or len(step.output.shape) != 4 or trained_norm(graph, makers, step):
            continue
        if step.part not in made:
            factor, addend = norm_factors(step.part)
            config = {"kernel_size": 1, "use_bias": True, "name": step.part.name}
            weights = [np.asarray(factor, np.float32).reshape(1, 1, -1, 1), np.asarray(addend, np.float32)]
            made[step.part] = Part(step.part.name, keras.layers.DepthwiseConv2D, config, weights)
        step.part, step.kwargs = made[step.part], {}


def trained_norm(graph: Graph, makers: dict[Value, Step], step: Step) -> bool:
    """Whether a step is a normalisation that its weights can take in when the training is over."""
    if not is_norm(step):
        return False
    before = makers.get(step.inputs[0])
    if before is None or before.part.kind not in TWINS or _only_user(graph, before) is not step:
        return False
    alone = [other for other in graph.steps if other.part in (before.part, step.part)]
    return len(alone) == 2  # neither is called elsewhere
