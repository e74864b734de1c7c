"""MobileNetV2 and V3: published parameters, sizes, blocks against NumPy (CLS-1), and what LiteRT makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.nets.numpy_forward import Weights, activations, randomize, relu, worst
from tests.nets.synthetic import calibrate
from visionkit import nets
from visionkit.nets.mobilenet_v2 import divisible
from visionkit.runtime import compile_model

TOLERANCE = 1e-4
WRONG = 1e-2  # what a wrong variant exceeds
SIZE_HW = (65, 43)
NETWORKS = ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")


def image(batch: int = 2) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(batch, *SIZE_HW, 3)).astype(np.float32)


def build(name: str, **options: Any) -> keras.Model:
    model: keras.Model = getattr(nets, name)(**({"classes": 5, "size_hw": SIZE_HW} | options))
    return model


@pytest.mark.parametrize(
    ("name", "count"),
    [("mobilenet_v2", 3_504_872), ("mobilenet_v3_large", 5_483_032), ("mobilenet_v3_small", 2_542_856)],
)
def test_parameters_are_the_published_ones(name: str, count: int) -> None:
    model = getattr(nets, name)()
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == count
    assert model.output_shape == (None, 1000)


def test_keras_counts_mobilenet_v2_as_its_own() -> None:
    assert nets.mobilenet_v2().count_params() == 3_538_984


@pytest.mark.parametrize(("width", "count"), [(0.5, 1_968_680), (0.75, 2_636_424), (1.4, 6_108_776)])
def test_mobilenet_v2_has_the_published_parameters_at_other_widths(width: float, count: int) -> None:
    model = nets.mobilenet_v2(width_multiplier=width)
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == count


@pytest.mark.parametrize(
    ("channels", "expected"),
    [(1, 8), (12, 16), (11, 16), (20, 24), (33.6, 32), (18, 24), (44.8, 48)],
)
def test_channels_are_multiples_of_8_that_lose_no_tenth(channels: float, expected: int) -> None:
    assert divisible(channels) == expected  # 11: nearest is 8, which loses more than a tenth


@pytest.mark.parametrize(("name", "channels"), [(NETWORKS[0], 1280), (NETWORKS[1], 960), (NETWORKS[2], 576)])
def test_the_last_map_has_stride_32(name: str, channels: int) -> None:
    assert build(name, classes=None, size_hw=(161, 193)).output_shape == (None, 6, 7, channels)


def test_cls1_an_inverted_residual_is_numpys() -> None:
    """Blocks 1 (no expansion), 2 (stride 2), 3 (a shortcut)."""
    model, x = randomize(build("mobilenet_v2")), image()
    assert worst(activations(model, x, list(want := inverted_forward(model, x, 1e-5))), want) < TOLERANCE
    assert worst(activations(model, x, list(want := inverted_forward(model, x, 1e-3))), want) > WRONG


def inverted_forward(model: keras.Model, x: np.ndarray, epsilon: float) -> dict[str, np.ndarray]:
    weights, want = Weights(model), {}

    def unit(x: np.ndarray, conv: str, norm: str, **options: Any) -> np.ndarray:
        want[norm] = weights.norm(norm, weights.conv(conv, x, **options), epsilon)
        return want[norm]

    def relu6(x: np.ndarray) -> np.ndarray:
        return np.clip(x, 0, 6)

    x = relu6(unit(x, "features.0.0", "features.0.1", stride=2, padding=1))
    x = relu6(unit(x, "features.1.conv.0.0", "features.1.conv.0.1", padding=1, groups=32))
    x = unit(x, "features.1.conv.1", "features.1.conv.2")
    for name, stride, hidden in (("features.2.conv", 2, 96), ("features.3.conv", 1, 144)):
        y = relu6(unit(x, f"{name}.0.0", f"{name}.0.1"))
        y = relu6(unit(y, f"{name}.1.0", f"{name}.1.1", stride=stride, padding=1, groups=hidden))
        y = unit(y, f"{name}.2", f"{name}.3")
        x = x + y if stride == 1 else y
    return want | {"features.3.add": x}


def hard_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.clip(x + 3, 0, 6) / 6


def squeeze_forward(model: keras.Model, x: np.ndarray, epsilon: float) -> dict[str, np.ndarray]:
    """MobileNetV3-small's stem, block 1 (squeeze, no expansion), and block 4 from the network's own block 3."""
    weights, want = Weights(model), {}

    def unit(x: np.ndarray, name: str, **options: Any) -> np.ndarray:
        want[f"{name}.1"] = weights.norm(f"{name}.1", weights.conv(f"{name}.0", x, **options), epsilon)
        return want[f"{name}.1"]

    def squeeze(x: np.ndarray, name: str) -> np.ndarray:
        gate = relu(weights.conv(f"{name}.fc1", x.mean((1, 2), keepdims=True)))
        want[f"{name}.scale"] = x * hard_sigmoid(weights.conv(f"{name}.fc2", gate))
        return want[f"{name}.scale"]

    x = unit(x, "features.0", stride=2, padding=1)
    x = relu(unit(x * hard_sigmoid(x), "features.1.block.0", stride=2, padding=1, groups=16))
    unit(squeeze(x, "features.1.block.1"), "features.1.block.2")
    x = activations(model, image(), ["features.3.add"])["features.3.add"].astype(np.float64)
    y = unit(x, "features.4.block.0")
    y = unit(y * hard_sigmoid(y), "features.4.block.1", stride=2, padding=2, groups=96)
    unit(squeeze(y * hard_sigmoid(y), "features.4.block.2"), "features.4.block.3")
    return want


def test_cls1_squeeze_and_excitation_is_numpys() -> None:
    model, x = randomize(build("mobilenet_v3_small")), image()
    assert worst(activations(model, x, list(want := squeeze_forward(model, x, 1e-3))), want) < TOLERANCE
    assert worst(activations(model, x, list(want := squeeze_forward(model, x, 1e-5))), want) > WRONG


@pytest.mark.parametrize("name", NETWORKS)
def test_heads_share_one_trunk_at_any_size(name: str) -> None:
    model = randomize(build(name, classes={"colour": 4, "make": 2}, size_hw=None))
    answers = model(image(), training=False)
    assert {head: tuple(answer.shape) for head, answer in answers.items()} == {"colour": (2, 4), "make": (2, 2)}


def test_litert_has_builtins_for_every_activation(tmp_path: Path) -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    model = calibrate(randomize(build("mobilenet_v3_small")), image())
    with compile_model(model, runtime="litert", cache_dir=tmp_path) as runner:
        want = np.asarray(model(image(1), training=False))
        assert np.abs(runner(image=image(1))["logits"] - want).max() < 1e-5 * max(1.0, np.abs(want).max())
    (file,) = tmp_path.rglob("*.tflite")
    delegates = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    program = interpreter.Interpreter(str(file), experimental_op_resolver_type=delegates)
    names = [detail["op_name"] for detail in program._get_ops_details()]
    assert names.count("HARD_SWISH") == 19  # 2 around the bottlenecks, 16 in 8 of them, 1 in the classifier
    builtins = {"CONV_2D", "DEPTHWISE_CONV_2D", "HARD_SWISH", "MEAN", "MUL", "ADD", "PAD", "FULLY_CONNECTED", "RESHAPE"}
    assert {*names} <= builtins | {"RELU_0_TO_1", "RELU", "RELU6", "MAXIMUM", "MINIMUM"}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("width", [0, -1.0, float("nan")])
def test_a_width_that_is_not_positive_is_named(name: str, width: float) -> None:
    with pytest.raises(ValueError, match="`width_multiplier` must be positive"):
        build(name, width_multiplier=width)
