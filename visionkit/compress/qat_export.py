"""A network of quantization-aware training as a `.tflite` of eight-bit integers; its own ranges need no calibration."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from visionkit.compress.fake_quant import HIGHEST, LOWEST, MIDDLES, FakeQuant
from visionkit.compress.fold import activation_name, fold_graph
from visionkit.compress.graph import Graph, Part, Step, read_graph
from visionkit.compress.qat import unseen_ranges
from visionkit.compress.quant_layers import TWINS
from visionkit.errors import ModelError
from visionkit.runtime.quiet import import_tensorflow, quiet

__all__ = ["ExportedFakeQuant", "Lsb", "convert_quantized", "export_twin", "levels_apart"]

SIGNATURE = "raw"
NEXT_TO_NOTHING = 1e-20  # less than a level of any bias
ABOVE_ONE = 1.001  # 255 times a 255th is not quite 1
ORIGINALS = {twin: original for original, twin in TWINS.items()}


class ExportedFakeQuant(keras.layers.Layer):
    """What `FakeQuant` does, as the operation that TensorFlow's converter knows, between two levels.

    Args:
        least, most: the outermost levels: -128 and 127, less the zero point, times the scale.
    """

    def __init__(self, least: float, most: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.least, self.most = least, most

    def call(self, inputs: Any) -> Any:
        """The rounded tensor."""
        tf = import_tensorflow()
        return tf.quantization.fake_quant_with_min_max_args(inputs, self.least, self.most, num_bits=8)

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "least": self.least, "most": self.most}


class ChangedSign(keras.layers.Layer):
    """A tensor times -1."""

    def call(self, inputs: Any) -> Any:
        """The tensor."""
        return keras.ops.negative(inputs)


def export_twin(network: keras.Model) -> keras.Model:
    """A network of `quantize_aware` as one of plain layers, whose weights are what they are rounded to.

    Normalisations that were trained are folded. The converter gives each output channel the scale of its largest
    weight, which is the scale that it was rounded with. An output is called as the layer that made it.

    Raises:
        ModelError: `quantization-unready`; an activation's range was never seen.
    """
    if unseen := unseen_ranges(network):
        raise ModelError(
            "quantization-unready",
            f"{len(unseen)} ranges of {network.name} saw no batch ({', '.join(unseen[:3])} …); train it, or give "
            "samples to quantize_aware",
        )
    graph = read_graph(network)
    ranges = {layer.name: layer for layer in network.layers if isinstance(layer, FakeQuant)}
    parts: dict[Part, Part] = {}
    _drop_again(graph)
    _hold_floats(graph)
    for step in graph.steps:
        if step.part not in parts:
            parts[step.part] = _plain(step.part, network, ranges)
        step.part = parts[step.part]
        if step.part.kind is ExportedFakeQuant:
            step.kwargs = {}
    fold_graph(graph)
    for part in {step.part: None for step in graph.steps if step.part.kind in TWINS}:
        _set_bias(part)
    _drop_clips(graph)
    _name_outputs(graph)
    return graph.build()


def _plain(part: Part, network: keras.Model, ranges: dict[str, FakeQuant]) -> Part:
    """What stands for a layer in the export."""
    if part.kind is FakeQuant:
        scale, zero = ranges[part.name].levels() or (1.0, 0)
        ends = {"least": (LOWEST - zero) * scale, "most": (HIGHEST - zero) * scale}
        return Part(part.name, ExportedFakeQuant, {"name": part.name, **ends})
    if part.kind not in ORIGINALS:
        return part
    weights = [network.get_layer(part.name).rounded(), *(part.weights or [])[1:]]
    return dataclasses.replace(part, kind=ORIGINALS[part.kind], weights=weights)


def _set_bias(part: Part) -> None:
    """Give a layer the bias that the converter needs.

    If it is the same everywhere, all channels would get the level of the first one. A transposed convolution takes in
    the rectifier behind it only with a bias, and one of zeros would be left out.
    """
    kernel, *given = part.weights or []
    transposed = part.kind is keras.layers.Conv2DTranspose
    if not given and not transposed:
        return
    bias = np.array(given[0] if given else np.zeros(kernel.shape[2], np.float32))
    if bias.any() and bias.size > 1 and np.ptp(bias) == 0:
        bias[-1] = np.nextafter(bias[-1], np.float32(0))
    elif transposed and not bias.any():
        bias[-1] = NEXT_TO_NOTHING
    part.config, part.weights = {**part.config, "use_bias": True}, [kernel, bias]


def _drop_again(graph: Graph) -> None:
    """Leave out the rounding of what keeps its scale: the operation rounds, and the converter finds its scale."""
    again = [step for step in graph.steps if step.part.kind is FakeQuant and step.kwargs.get("site") in MIDDLES]
    for step in again:
        graph.rename({step.output: step.inputs[0]})
        graph.steps.remove(step)


def _hold_floats(graph: Graph) -> None:
    """Turn the sign of what goes into layers that are to stay in float, and of their weights.

    The converter would make integers of all that stands between roundings, but knows no integer form of a change of
    sign.
    """
    turned: dict[Part, Part] = {}
    steps: list[Step] = []
    for step in graph.steps:
        part = step.part
        if part.kind in TWINS and part.weights and part not in turned:
            turned[part] = dataclasses.replace(part, weights=[-part.weights[0], *part.weights[1:]])
        if part in turned:
            (value,) = step.inputs
            negative = graph.value(value)
            name = f"{part.name}.sign.{len(steps)}"
            steps.append(Step(Part(name, ChangedSign, {"name": name}), (value,), {}, [negative]))
            step.renamed({value: negative})
            step.part = turned[part]
        steps.append(step)
    graph.steps = steps


def _drop_clips(graph: Graph) -> None:
    """Leave out clippings to 0 … 1 before levels of that range, which clip: LiteRT has no such convolution."""
    makers = graph.maker()
    for step in graph.steps:
        before = makers.get(step.inputs[0]) if step.part.kind is ExportedFakeQuant else None
        if before is None or activation_name(before.part) != "relu1" or len(graph.users()[before.output]) > 1:
            continue
        if step.part.config["least"] == 0 and step.part.config["most"] < ABOVE_ONE:
            step.renamed({before.output: before.inputs[0]})
            graph.steps = [other for other in graph.steps if other is not before]


def _name_outputs(graph: Graph) -> None:
    """Give what rounds an output the name of the layer before it."""
    makers = graph.maker()
    for value in keras.tree.flatten(graph.outputs):
        step = makers.get(value)
        if step is None or step.part.kind is not ExportedFakeQuant:
            continue
        before = makers.get(step.inputs[0])
        if before is not None and step.part.name != before.part.name:
            name = before.part.name
            before.part = _called(before, f"{name}.linear", graph)
            step.part = _called(step, name, graph)


def _called(step: Step, name: str, graph: Graph) -> Part:
    """The part of a step under another name, for all that share it."""
    old = step.part
    new = dataclasses.replace(old, name=name, config={**old.config, "name": name})
    for other in graph.steps:
        if other.part is old:
            other.part = new
    return new


def convert_quantized(network: keras.Model, *, integer_io: bool = False) -> bytes:
    """A network of `quantize_aware` as the bytes of a `.tflite` for one image, signature `raw`.

    Names are those of the network's inputs and outputs.

    Args:
        network: with fixed sizes, its ranges seen.
        integer_io: int8 tensors in and out, in the place of float32.

    Raises:
        ModelError: `quantization-unready`, `conversion-failed`, `model-shape`.
    """
    from visionkit.compress.graft import integer_ends
    from visionkit.runtime.convert import NamedCall, convert_saved_model, write_saved_model
    from visionkit.runtime.keras_net import ordered_call, signature_of

    twin = export_twin(network)
    signature, call = signature_of(twin, 1), ordered_call(twin)
    names = [spec.name for spec in signature.inputs], [spec.name for spec in signature.outputs]

    def named(**tensors: Any) -> dict[str, Any]:
        return dict(zip(names[1], call([tensors[name] for name in names[0]]), strict=True))

    with quiet(), tempfile.TemporaryDirectory(prefix="visionkit-") as folder:
        functions = {SIGNATURE: NamedCall(named, signature.inputs).traced()}
        write_saved_model(folder, functions, [variable._value for variable in twin.variables])
        content = convert_saved_model(folder, [SIGNATURE], quantized=True, layers=[layer.name for layer in twin.layers])
    return integer_ends(content) if integer_io else content


@dataclass(frozen=True, slots=True)
class Lsb:
    """How far a converted network is from the one it was made of, in steps of each output's scale.

    Args:
        worst, mean: over all numbers.
        agreement: share of rows (of the last axis) whose largest number is the same one.
    """

    worst: float
    mean: float
    agreement: float


def levels_apart(network: keras.Model, content: bytes, inputs: Sequence[npt.NDArray[Any]]) -> dict[str, Lsb]:
    """By output, how far `convert_quantized` of a network of one input is from it, on inputs (1, …)."""
    from visionkit.compress.graft import integer_ends
    from visionkit.runtime.litert import open_litert

    rows: dict[str, list[tuple[Any, Any]]] = {}
    with open_litert(integer_ends(content), threads=1) as integers:
        scales = {key: spec.quantization[0] for key, spec in integers.outputs.items() if spec.quantization}
    with open_litert(content, threads=1) as runner:
        (name,) = runner.inputs
        for given in inputs:
            asked = network(given, training=False)
            found = runner(**{name: given})
            for key, expected in zip(runner.outputs, keras.tree.flatten(asked), strict=True):
                rows.setdefault(key, []).append((found[key], keras.ops.convert_to_numpy(expected)))
    result = {}
    for key, pairs in rows.items():
        ours, theirs = (np.concatenate([pair[side] for pair in pairs]).astype(np.float64) for side in (0, 1))
        apart = np.abs(ours - theirs) / scales.get(key, 1.0)
        same = float((ours.argmax(axis=-1) == theirs.argmax(axis=-1)).mean())
        result[key] = Lsb(float(apart.max()), float(apart.mean()), same)
    return result
