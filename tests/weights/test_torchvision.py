"""The converter of torchvision's checkpoints: layouts against loops, and what does not fit. tests/nets/test_parity.py
has the proof on whole networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from visionkit import nets
from visionkit.errors import ModelError
from visionkit.weights.torchvision import FAMILIES, Family, load_torchvision

TINY = {"tiny": Family({"logits": "fc"}, ("fc.",), {"flat.fc1": (3, 4, 5)})}


@pytest.fixture(autouse=True)
def _tiny_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visionkit.weights.torchvision.FAMILIES", {**FAMILIES, **TINY})


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def torch_convolution(x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: int, groups: int) -> np.ndarray:
    """x (C, H, W), w (O, C / groups, kh, kw) -> (O, H', W'), as torch.nn.Conv2d without padding defines it."""
    outputs, inputs, kh, kw = w.shape
    height, width = (x.shape[1] - kh) // stride + 1, (x.shape[2] - kw) // stride + 1
    out = np.zeros((outputs, height, width))
    for o, y, z in np.ndindex(out.shape):
        first = o // (outputs // groups) * inputs
        window = x[first : first + inputs, y * stride : y * stride + kh, z * stride : z * stride + kw]
        out[o, y, z] = (window * w[o]).sum() + b[o]
    return out


def torch_transposed(x: np.ndarray, w: np.ndarray, b: np.ndarray, stride: int) -> np.ndarray:
    """x (C, H, W), w (C, O, kh, kw) -> (O, H', W'), as torch.nn.ConvTranspose2d without padding defines it."""
    channels, height, width = x.shape
    _, outputs, kh, kw = w.shape
    out = np.zeros((outputs, (height - 1) * stride + kh, (width - 1) * stride + kw))
    for c, o, y, z in np.ndindex(channels, outputs, height, width):
        out[o, y * stride : y * stride + kh, z * stride : z * stride + kw] += x[c, y, z] * w[c, o]
    return out + b[:, None, None]


def run_layer(layer: keras.Layer, x: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
    """(C, H, W) -> (C', H', W') through the layer alone, filled from the state."""
    image = keras.Input((*x.shape[1:], x.shape[0]))
    model = keras.Model(image, layer(image))
    load_torchvision(model, "tiny", state)
    return np.asarray(model(x.transpose(1, 2, 0)[None], training=False))[0].transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("layer", "weight", "groups"),
    [
        (layers.Conv2D(5, (3, 2), 2, name="a.conv"), (5, 4, 3, 2), 1),
        (layers.Conv2D(6, (2, 3), 2, groups=2, name="a.conv"), (6, 2, 2, 3), 2),
        (layers.DepthwiseConv2D((3, 2), 2, name="a.conv"), (4, 1, 3, 2), 4),
        (layers.DepthwiseConv2D((3, 2), 2, depth_multiplier=2, name="a.conv"), (8, 1, 3, 2), 4),
    ],
    ids=["plain", "grouped", "depthwise", "two for each channel"],
)
def test_a_convolution_gives_torchs_numbers(layer: keras.Layer, weight: tuple[int, ...], groups: int) -> None:
    x, w, b = noise(4, 9, 7), noise(*weight, seed=1), noise(weight[0], seed=2)
    found = run_layer(layer, x, {"a.conv.weight": w, "a.conv.bias": b})
    assert np.allclose(found, torch_convolution(x, w, b, 2, groups), atol=1e-4)


def test_a_transposed_convolution_gives_torchs_numbers() -> None:
    x, w, b = noise(4, 5, 3), noise(4, 6, 3, 2, seed=1), noise(6, seed=2)
    layer = layers.Conv2DTranspose(6, (3, 2), 2, name="up")
    found = run_layer(layer, x, {"up.weight": w, "up.bias": b})
    assert np.allclose(found, torch_transposed(x, w, b, 2), atol=1e-4)


def test_a_flattened_map_goes_from_channels_first_to_channels_last() -> None:
    maps, w, b = noise(3, 4, 5), noise(7, 60, seed=1), noise(7, seed=2)
    image = keras.Input((4, 5, 3))
    model = keras.Model(image, layers.Dense(7, name="flat.fc1")(layers.Flatten()(image)))
    load_torchvision(model, "tiny", {"flat.fc1.weight": w, "flat.fc1.bias": b})
    found = np.asarray(model(maps.transpose(1, 2, 0)[None]))[0]
    assert np.allclose(found, w @ maps.ravel() + b, atol=1e-4)


def test_a_normalisation_has_torchs_formula() -> None:
    x, gamma, beta, mean = noise(3, 4, 5), noise(3, seed=1), noise(3, seed=2), noise(3, seed=3)
    var = np.array([1e-5, 0.5, 2], np.float32)  # the first as small as epsilon
    state = {"bn.weight": gamma, "bn.bias": beta, "bn.running_mean": mean, "bn.running_var": var}
    state["bn.num_batches_tracked"] = np.array(7)
    found = run_layer(layers.BatchNormalization(epsilon=1e-5, name="bn"), x, state)
    scale = gamma / np.sqrt(var.astype(np.float64) + 1e-5)
    assert np.allclose(found, (x - mean[:, None, None]) * scale[:, None, None] + beta[:, None, None], rtol=1e-4)


def small_net(**options: Any) -> keras.Model:
    """A residual network with the names of ResNet-18's first layers."""
    return nets.resnet(depths=(1, 1), width=4, size_hw=(32, 40), **({"classes": 3} | options))


def torch_state(model: keras.Model, head: str = "fc") -> Iterator[tuple[str, np.ndarray]]:
    """Noise of the shapes that torch would have for the layers of `model`."""
    for layer in model.layers:
        name = head if layer.name == "logits" else layer.name
        for variable in layer.weights if not isinstance(layer, layers.Dropout) else ():
            shape = tuple(variable.shape)
            names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
            shape = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
            tensor = {"kernel": "weight", **names}.get(variable.name, variable.name)
            yield f"{name}.{tensor}", np.abs(noise(*shape, seed=len(name))) + 0.1


def test_a_whole_network_is_filled_in_any_precision() -> None:
    model = small_net()
    state = dict(torch_state(model))
    assert load_torchvision(model, "resnet18", {k: v.astype(np.float16) for k, v in state.items()}) == ()
    kernel = model.get_layer("layer2.0.conv1").kernel
    assert np.allclose(kernel, state["layer2.0.conv1.weight"].transpose(2, 3, 1, 0), rtol=1e-3)
    assert np.allclose(model.get_layer("logits").kernel, state["fc.weight"].T, rtol=1e-3)


def test_all_misfits_are_told_and_nothing_is_changed() -> None:
    model = small_net()
    state = dict(torch_state(model))
    before = [np.array(value) for value in model.get_weights()]
    del state["layer1.0.bn2.running_var"]
    state["conv1.weight"] = noise(4, 3, 5, 5)
    state["layer9.conv.weight"] = noise(2, 2)
    state["bn1.bias"] = np.arange(4)
    with pytest.raises(ModelError) as caught:
        load_torchvision(model, "resnet18", state)
    assert caught.value.slug == "model-unfit"
    for part in (
        "does not fit resnet18, 4 differences",
        "layer1.0.bn2.running_var (4,) is missing",
        "conv1.weight is (4, 3, 5, 5), expected (4, 3, 7, 7)",
        "bn1.bias is of int64",
        "layer9.conv.weight (2, 2) has no layer",
        "Give a checkpoint of resnet18",
    ):
        assert part in caught.value.message
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_head_of_other_classes_is_refused_or_kept() -> None:
    state = dict(torch_state(small_net(classes=3)))
    model = small_net(classes=5)
    with pytest.raises(ModelError, match=r"fc\.weight is \(3, 8\), expected \(5, 8\).*skip_head=True"):
        load_torchvision(model, "resnet18", state)
    head = np.array(model.get_layer("logits").kernel)
    assert load_torchvision(model, "resnet18", state, skip_head=True) == ("logits",)
    assert np.array_equal(model.get_layer("logits").kernel, head)
    assert np.array_equal(model.get_layer("bn1").beta, state["bn1.bias"])


def test_several_heads_are_kept_by_name() -> None:
    state = dict(torch_state(small_net()))
    model = small_net(classes={"colour": 4, "make": 2})
    with pytest.raises(ModelError, match=r"logits_colour\.weight \(4, 8\) is missing.*skip_head=True"):
        load_torchvision(model, "resnet18", state)
    assert load_torchvision(model, "resnet18", state, skip_head=True) == ("logits_colour", "logits_make")


def test_a_trunk_leaves_what_lies_behind_it() -> None:
    trunk = small_net(classes=None)
    assert load_torchvision(trunk, "resnet18", dict(torch_state(small_net()))) == ()


def test_auxiliary_heads_are_left_or_filled_but_not_invented() -> None:
    plain, training = nets.googlenet(size_hw=(64, 80)), nets.googlenet(size_hw=(64, 80), aux=True)
    state = dict(torch_state(training))
    assert load_torchvision(plain, "googlenet", state) == ()
    load_torchvision(training, "googlenet", state)
    expected = state["aux1.fc1.weight"].reshape(1024, 128, 4, 4).transpose(2, 3, 1, 0).reshape(2048, 1024)
    assert np.array_equal(training.get_layer("aux1.fc1").kernel, expected)
    with pytest.raises(ModelError, match=r"aux2\.fc2\.weight \(1000, 1024\) is missing"):
        load_torchvision(training, "googlenet", dict(torch_state(plain)))


def test_a_network_without_a_converter_is_named() -> None:
    with pytest.raises(ValueError, match="network='lenet5'"):
        load_torchvision(small_net(), "lenet5", {})


def test_a_layer_that_torchvision_does_not_have_is_named() -> None:
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, layers.PReLU(name="act")(image))
    with pytest.raises(ModelError, match="the layer act is a PReLU, which has no counterpart"):
        load_torchvision(model, "tiny", {})


def test_every_family_is_a_network() -> None:
    assert all(callable(getattr(nets, name)) for name in FAMILIES)
