"""Networks quantized after training: QNT-1 and QNT-3, what stays in float, what the engines do, and errors."""

from __future__ import annotations

import numpy as np
import pytest

from tests.compress.networks import answers, as_tflite, decibels, fed, inputs_for, residual_net
from visionkit.compress import ai_edge
from visionkit.compress.lowering import lowered
from visionkit.compress.operations import float_islands, float_operations, list_operations
from visionkit.compress.quantize_network import layer_errors, quantize_network
from visionkit.compress.weights_only import rounded
from visionkit.errors import UsageError
from visionkit.runtime.tflite_file import constant_of, main_graph, read_model, text_of, type_of

ENGINES = ("tensorflow", pytest.param("ai-edge", marks=pytest.mark.skipif(not ai_edge.available(), reason="no extra")))


@pytest.fixture(scope="module")
def content() -> bytes:
    return as_tflite(residual_net())


def weights(content: bytes, dtype: str) -> list[tuple[str, np.ndarray, object]]:
    """Names, values and quantization of the constants of a type with four or two axes."""
    model = read_model(content)
    (graph,) = main_graph(model).values()
    found = []
    for tensor in graph.tensors:
        values = constant_of(model, tensor) if type_of(tensor) == dtype else None
        if values is not None and values.ndim >= 2:
            found.append((text_of(tensor.name), values, tensor.quantization))
    return found


# QNT-1


def worst_steps(content: bytes, made: bytes) -> float:
    """The largest difference between a weight and what it became, in steps of its channel."""
    old = {values.shape: values for _, values, _ in weights(content, "float32")}
    worst = 0.0
    for _, levels, scales in weights(made, "int8"):
        view = [1] * levels.ndim
        view[scales.quantizedDimension] = -1
        scale = np.asarray(scales.scale, np.float64).reshape(view)
        assert not np.asarray(scales.zeroPoint).any()
        assert levels.min() >= -127
        worst = max(worst, float((np.abs(old[levels.shape] - levels * scale) / scale).max()))
    return worst


@pytest.mark.parametrize("kind", ["dynamic", "int8"])
def test_a_weight_is_within_half_a_step_of_its_channel(content, kind):
    made = quantize_network(content, fed(inputs_for(8)), kind=kind).content
    assert len(weights(made, "int8")) >= 3
    assert worst_steps(content, made) <= 0.5 + 1e-4


@pytest.mark.skipif(not ai_edge.available(), reason="ai-edge-quantizer is not installed")
def test_a_scale_for_the_whole_tensor_is_further_off():
    """QNT-1's wrong variant: channels of unequal size lose theirs in the step of the largest."""
    model = residual_net()
    kernel = model.get_layer("last").kernel
    kernel.assign(kernel.numpy() * np.logspace(-2, 0, kernel.shape[-1]))
    content, inputs = as_tflite(model), inputs_for(24)
    right, wrong = (
        quantize_network(content, fed(inputs), kind="int8", engine="ai-edge", per_channel=one) for one in (True, False)
    )
    old = next(v for _, v, _ in weights(content, "float32") if v.shape == (32, 3, 3, 16))

    def error(made: bytes) -> float:
        levels, scales = next((v, q) for _, v, q in weights(made, "int8") if v.shape == old.shape)
        return float(np.abs(old - levels * np.reshape(scales.scale, (-1, 1, 1, 1)))[0].max() / np.abs(old[0]).max())

    assert error(right.content) < 0.01
    assert error(wrong.content) > 0.2


# QNT-3


@pytest.mark.parametrize("engine", ENGINES)
def test_int8_is_integer_and_near(content, engine):
    inputs, others = inputs_for(32), inputs_for(16, seed=1)
    made = quantize_network(content, fed(inputs), kind="int8", engine=engine)
    rows = list_operations(made.content)
    assert made.engine == engine
    crossings = [row.kind for row in rows if row.kind in ("QUANTIZE", "DEQUANTIZE")]
    islands = [row.kind for group in float_islands(rows) for row in group]
    if engine == "tensorflow":  # ai-edge-quantizer has no TILE, of which nearest upsampling is made
        assert not float_operations(rows)
        assert (crossings.count("QUANTIZE"), crossings.count("DEQUANTIZE")) == (1, 1)
    assert set(islands) <= {"TILE"}
    assert bool(islands) == bool(made.islands)
    assert decibels(answers(content, others), answers(made.content, others)) > 25


def test_auto_takes_the_engine_that_leaves_no_islands(content):
    made = quantize_network(content, fed(inputs_for(8)), kind="int8")
    assert (made.engine, made.islands) == ("tensorflow", ())


def test_weights_alone_keep_the_answers(content):
    others = inputs_for(16, seed=1)
    expected = answers(content, others)
    half = quantize_network(content, kind="float16").content
    whole = quantize_network(content, kind="dynamic").content
    assert decibels(expected, answers(half, others)) > 50
    assert decibels(expected, answers(whole, others)) > 25
    assert len(half) < 0.75 * len(content)
    assert len(whole) < 0.6 * len(content)


def test_a_large_network_shrinks():
    """QNT-3's sizes need a million weights: a small one is mostly names and shapes."""
    from visionkit.runtime.quiet import import_keras

    keras = import_keras()
    image = keras.Input((20, 28, 3), name="image")
    x = keras.layers.Conv2D(64, 3, activation="relu")(image)
    for _ in range(2):
        x = keras.layers.Conv2D(256, 3, padding="same", activation="relu")(x)
    x = keras.layers.Conv2D(128, 3, activation="relu")(x)
    model = keras.Model(image, keras.layers.Dense(7)(keras.layers.GlobalAveragePooling2D()(x)))
    assert model.count_params() > 1_000_000
    content = as_tflite(model)
    feeds = fed(inputs_for(4, (20, 28)))
    sizes = {kind: len(quantize_network(content, feeds, kind=kind).content) for kind in ("int8", "float16", "dynamic")}
    assert sizes["int8"] <= 0.30 * len(content)
    assert sizes["dynamic"] <= 0.30 * len(content)
    assert sizes["float16"] <= 0.55 * len(content)


# what stays in float


@pytest.mark.parametrize("engine", ENGINES)
def test_named_layers_stay_in_float(content, engine):
    made = quantize_network(content, fed(inputs_for(8)), kind="int8", keep_float=["block\\..*"], engine=engine)
    kept = {row.layer for row in float_operations(list_operations(made.content))} - {"up"}
    assert kept == {"block.depth", "block.point", "block.add"}
    assert set(made.kept) == kept
    assert made.islands == (() if engine == "tensorflow" else ("up",))
    everything = quantize_network(content, fed(inputs_for(8)), kind="int8", engine=engine)
    others = inputs_for(16, seed=1)
    expected = answers(content, others)
    assert decibels(expected, answers(made.content, others)) > decibels(expected, answers(everything.content, others))


def test_weights_of_named_layers_stay_in_float(content):
    made = quantize_network(content, kind="dynamic", keep_float=["last"])
    assert "last" in made.kept
    assert (32, 3, 3, 16) not in {values.shape for _, values, _ in weights(made.content, "int8")}
    assert rounded(content) != made.content


# lowering


def test_hard_swish_is_replaced_by_what_it_means(content):
    made = lowered(content)
    kinds = {row.kind for row in list_operations(made)}
    assert "HARD_SWISH" in {row.kind for row in list_operations(content)}
    assert "HARD_SWISH" not in kinds
    others = inputs_for(4, seed=1)
    np.testing.assert_allclose(answers(made, others), answers(content, others), atol=1e-6)


def test_names_are_told_apart(content):
    model = read_model(lowered(content))
    (graph,) = main_graph(model).values()
    names = [text_of(tensor.name) for tensor in graph.tensors]
    assert len(set(names)) == len(names)


# layer by layer


def test_the_layer_whose_range_is_ruined_adds_most(content):
    """Feeds with one value a thousand times too large make the input's steps too coarse."""
    inputs = inputs_for(8)
    inputs[0] = inputs[0].copy()
    inputs[0][0, 0, 0, 0] = 1000.0
    ruined = quantize_network(content, fed(inputs), kind="int8", method="minmax", engine="tensorflow").content
    sound = quantize_network(content, fed(inputs_for(8)), kind="int8", engine="tensorflow").content
    rows = {name: layer_errors(content, made, fed(inputs_for(4, seed=2))) for name, made in
            (("ruined", ruined), ("sound", sound))}  # fmt: skip
    worst = max(rows["ruined"], key=lambda row: row.added)
    assert worst.layer == "stem"
    assert worst.error > 0.3
    assert max(row.error for row in rows["sound"]) < 0.2


# errors


@pytest.mark.parametrize(
    ("options", "slug", "told"),
    [
        ({"kind": "int4"}, "kind-unknown", "float16"),
        ({"kind": "int8", "engine": "onnx"}, "engine-unknown", "ai-edge"),
        ({"kind": "int8"}, "calibration-missing", "example inputs"),
        ({"kind": "dynamic", "keep_float": ["nothing"]}, "layer-unknown", "block.depth"),
        ({"kind": "dynamic", "keep_float": ["("]}, "layer-unknown", "regular expression"),
    ],
)
def test_what_is_asked_wrongly_is_told(content, options, slug, told):
    with pytest.raises(UsageError, match=told) as caught:
        quantize_network(content, **options)
    assert caught.value.slug == slug
