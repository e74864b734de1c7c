"""One network, as a float `.tflite` with one signature, quantized after training; and what that does to each layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from visionkit.compress import ai_edge, weights_only
from visionkit.compress.lowering import floors, lowered, named_apart
from visionkit.compress.operations import OperationRow, float_islands, layers_of, list_operations
from visionkit.compress.ranges import RangeMeter
from visionkit.errors import ModelError, UsageError
from visionkit.runtime.base import Array
from visionkit.runtime.litert import open_litert
from visionkit.runtime.tflite_file import main_graph, read_model, text_of
from visionkit.runtime.tflite_watch import Feed, watch_tensors

__all__ = ["ENGINES", "LayerError", "Quantized", "layer_errors", "quantize_network"]

ENGINES = ("auto", "ai-edge", "tensorflow")
STATIC = {"int8": 8, "int16x8": 16}  # bits of activations; weights have 8
WEIGHTS_ONLY = ("float16", "dynamic")
METHODS = ("minmax", "mse", "0.9999", "0.999")  # of ranges that `auto` tries
COMPARED = 24  # feeds on which it compares


@dataclass(frozen=True)
class Quantized:
    """A quantized network.

    Args:
        content: the `.tflite`: the float one's signature, inputs and outputs in float32.
        engine: that made it: `ai-edge`, `tensorflow` or `own`.
        kept: layers that stayed in float because that was asked for, or because they are `samplers`.
        islands: layers that compute in float between integer ones although nobody asked.
        method: by which the ranges of activations were taken.
    """

    content: bytes
    engine: str
    kept: tuple[str, ...] = ()
    islands: tuple[str, ...] = ()
    method: str = ""


@dataclass(frozen=True)
class LayerError:
    """How far one operation's output is from the float network's.

    Args:
        layer, kind, name: as `OperationRow`.
        error: root mean square of the difference over that of the float output.
        added: what of it is not in the inputs already: the error less the largest among the tensors it reads.
    """

    layer: str
    kind: str
    name: str
    error: float
    added: float


def quantize_network(
    content: bytes,
    feeds: Sequence[Feed] = (),
    *,
    kind: str,
    keep_float: Sequence[str] = (),
    engine: str = "auto",
    method: str = "auto",
    per_channel: bool = True,
) -> Quantized:
    """The network in fewer bits.

    Args:
        content: a float `.tflite` with one signature.
        feeds: example inputs by name, for `int8` and `int16x8`.
        kind: `float16` and `dynamic` (weights only), `int8`, or `int16x8` (slow: no kernels are tuned for it).
        keep_float: regular expressions; layers that one of them matches wholly stay in float32.
        engine: `ai-edge` (the extra `quant`), `tensorflow`; `auto` takes the first and, where that leaves islands of
            float, the second if it leaves fewer. Weights alone are stored by ourselves: dynamic range by ai-edge, which
            may be asked for, is no smaller or faster, and 15 dB further from a MobileNetV3 in float.
        method: of the activations' ranges (`RangeMeter.ranges`); `auto` tries four for eight bits, and takes the one
            whose answers to the feeds are nearest to the float network's.
        per_channel: a scale for each output channel of the weights, or one for all.

    Raises:
        UsageError: `kind-unknown`, `engine-unknown`, `calibration-missing`, `layer-unknown`.
        ModelError: `quantization-failed`, `quantizer-missing`.
    """
    if kind not in (*WEIGHTS_ONLY, *STATIC):
        raise UsageError(
            "kind-unknown", f"a network becomes {', '.join((*WEIGHTS_ONLY, *STATIC))}. Received: {kind!r}."
        )
    if engine not in ENGINES:
        raise UsageError("engine-unknown", f"engine must be one of {', '.join(ENGINES)}. Received: {engine!r}.")
    if kind in WEIGHTS_ONLY:
        return _weights_only(content, kind, keep_float, engine)
    if not feeds:
        raise UsageError(
            "calibration-missing", f"{kind} needs example inputs, from which the ranges of activations are measured."
        )
    return _static(named_apart(content), feeds, kind, keep_float, engine, method, per_channel)


def layer_errors(content: bytes, quantized: bytes, feeds: Sequence[Feed]) -> list[LayerError]:
    """How far each operation's output is from the float network's, in the order in which they run.

    Args:
        content: the float network as it was handed to `quantize_network`.
        quantized: what that made of it, float inputs and outputs.
        feeds: inputs by name.
    """
    sums: dict[str, list[float]] = {}
    with_float: list[dict[str, Array]] = []

    def keep(name: str, values: Array) -> None:
        with_float[-1].setdefault(name, values)

    def compare(name: str, values: Array) -> None:
        other = with_float[-1].get(name)
        if other is not None and other.shape == values.shape:
            total = sums.setdefault(name, [0.0, 0.0])
            total[0] += float(np.square(values - other, dtype=np.float64).sum())
            total[1] += float(np.square(other, dtype=np.float64).sum())

    model = lowered(content)
    for feed in feeds:
        with_float.append({})
        watch_tensors(model, [feed], keep)
        watch_tensors(quantized, [feed], compare)
        with_float.pop()
    errors = {name: float(np.sqrt(wrong / whole)) if whole else 0.0 for name, (wrong, whole) in sums.items()}
    return _error_rows(quantized, errors)


def matches(patterns: Sequence[str], name: str, layer: str = "") -> bool:
    """Whether one of a tensor's layers, or that of its operation, is one of those that the patterns mean."""
    layers = [*layers_of(name), *([layer] if layer else [])]
    return any(re.fullmatch(pattern, one) for pattern in patterns for one in layers)


def kept_layers(content: bytes, patterns: Sequence[str]) -> dict[str, str]:
    """Output tensors of the operations that the patterns mean, with their layers.

    Raises:
        UsageError: `layer-unknown`, a pattern means none, or is no regular expression.
    """
    rows = list_operations(content)
    names = {row.name: row.layer for row in rows}
    for pattern in patterns:
        try:
            found = any(matches([pattern], name, layer) for name, layer in names.items())
        except re.error as error:
            raise UsageError("layer-unknown", f"{pattern!r} is no regular expression: {error}.") from error
        if not found:
            known = ", ".join(dict.fromkeys(layer for layer in names.values() if layer))
            raise UsageError("layer-unknown", f"no layer matches {pattern!r}; there are: {known}.")
    return {name: layer for name, layer in names.items() if matches(patterns, name, layer)}


def samplers(content: bytes) -> dict[str, str]:
    """Output tensors of layers that take values at computed places (a spatial transformer), with their layers.

    Eight bits of a coordinate are a third of a pixel on an input of 96, so these stay in float (a classifier of signs
    that it straightens itself: 98.8 % in eight bits, 99.6 % so, and in float).
    """
    rows = list_operations(content)
    layers = {row.layer for row in rows if row.kind == "FLOOR" and row.layer}
    return {row.name: row.layer for row in rows if row.layer in layers}


def _weights_only(content: bytes, kind: str, keep_float: Sequence[str], engine: str) -> Quantized:
    kept = kept_layers(content, keep_float)
    if kind == "dynamic" and engine == "ai-edge":
        if not ai_edge.available():
            raise _missing(engine)
        made, maker = ai_edge.quantize_dynamic(named_apart(content), keep=list(kept)), engine
    else:
        make: Callable[..., bytes] = weights_only.halved if kind == "float16" else weights_only.rounded
        made, maker = make(content, kept.__contains__), "own"
    return Quantized(made, maker, tuple(dict.fromkeys(kept.values())))


def _static(
    content: bytes,
    feeds: Sequence[Feed],
    kind: str,
    keep_float: Sequence[str],
    engine: str,
    method: str,
    per_channel: bool,
) -> Quantized:
    low, content = floors(content), lowered(content)
    kept = kept_layers(content, keep_float) | samplers(content)
    meter = RangeMeter(content, feeds, exact=_ends(content), floors=low)
    methods = [method] if method != "auto" else METHODS if kind == "int8" else METHODS[:1]
    how = {"keep": list(kept), "activation_bits": STATIC[kind], "per_channel": per_channel}
    asked = tuple(dict.fromkeys(kept.values()))
    best: Quantized | None = None
    failure: ModelError | None = None
    for name in _order(engine if kind == "int8" else "ai-edge"):  # TensorFlow's makes no int16x8 that LiteRT takes
        try:
            tries = {way: STATIC_ENGINES[name](content, meter.ranges(way), **how) for way in methods}
        except ModelError as error:
            failure = error
            continue
        way = nearest(content, tries, feeds) if len(tries) > 1 else methods[0]
        methods = [way]  # of the next engine
        islands = tuple(row.layer or row.kind for group in float_islands(list_operations(tries[way])) for row in group)
        unasked = tuple(layer for layer in dict.fromkeys(islands) if layer not in asked)
        found = Quantized(tries[way], name, asked, unasked, way)
        if best is None or len(found.islands) < len(best.islands):
            best = found
        if not best.islands:
            break
    if best is None:
        raise failure or ModelError("quantization-failed", "no engine took the network")
    return best


def nearest(content: bytes, tries: Mapping[str, bytes], feeds: Sequence[Feed]) -> str:
    """The name of the one whose outputs are nearest to the float network's, in the mean of decibels over outputs."""
    shown = [feeds[int(i)] for i in np.linspace(0, len(feeds) - 1, min(len(feeds), COMPARED)).round()]
    expected = _outputs(content, shown)
    scores = {name: _decibels(expected, _outputs(one, shown)) for name, one in tries.items()}
    return max(scores, key=lambda name: scores[name])


def _outputs(content: bytes, feeds: Sequence[Feed]) -> dict[str, Array]:
    with open_litert(content, threads=1) as runner:
        answers = [runner(**feed) for feed in feeds]
    return {name: np.stack([answer[name] for answer in answers]) for name in answers[0]}


def _decibels(expected: Mapping[str, Array], found: Mapping[str, Array]) -> float:
    ratios = []
    for name, values in expected.items():
        noise = float(np.square(values - found[name], dtype=np.float64).mean())
        signal = float(np.square(values, dtype=np.float64).mean())
        ratios.append(10 * np.log10(max(signal, 1e-30) / max(noise, 1e-30)))
    return float(np.mean(ratios))


def _by_ai_edge(content: bytes, *args: object, **options: object) -> bytes:
    if not ai_edge.available():
        raise _missing("ai-edge")
    return ai_edge.quantize_static(content, *args, **options)  # type: ignore[arg-type]


def _by_tensorflow(content: bytes, *args: object, activation_bits: int, **options: object) -> bytes:
    from visionkit.runtime.mlir_quantize import quantize_ranges

    return quantize_ranges(content, *args, **options)  # type: ignore[arg-type]


STATIC_ENGINES: dict[str, Callable[..., bytes]] = {"ai-edge": _by_ai_edge, "tensorflow": _by_tensorflow}


def _missing(name: str) -> ModelError:
    return ModelError(
        "quantizer-missing", f"engine {name!r} needs ai-edge-quantizer: pip install 'visionkit[quant]', or 'tensorflow'"
    )


def _order(engine: str) -> list[str]:
    """Engines to try, the preferred one first."""
    if engine != "auto":
        return [engine]
    return list(STATIC_ENGINES) if ai_edge.available() else ["tensorflow"]


def _ends(content: bytes) -> list[str]:
    """Names of the tensors that go in and come out: their extremes count, such as the logit of the sure class."""
    ((_, graph),) = main_graph(read_model(content)).items()
    return [text_of(graph.tensors[int(index)].name) for index in (*graph.inputs, *graph.outputs)]


def _error_rows(content: bytes, errors: dict[str, float]) -> list[LayerError]:
    ((_, graph),) = main_graph(read_model(content)).items()
    names = [text_of(tensor.name) for tensor in graph.tensors]
    known: dict[int, float] = {}
    rows = []
    for row in list_operations(content):
        carried = max((known.get(index, 0.0) for index in row.reads), default=0.0)
        for index in row.writes:
            known[index] = errors.get(names[index], carried)
        if row.name in errors and not _is_crossing(row):
            error = errors[row.name]
            rows.append(LayerError(row.layer, row.kind, row.name, error, max(0.0, error - carried)))
    return rows


def _is_crossing(row: OperationRow) -> bool:
    return row.kind in ("QUANTIZE", "DEQUANTIZE")
