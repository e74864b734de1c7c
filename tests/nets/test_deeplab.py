"""Torchvision's segmentation networks: sizes, parameters, second heads, names, export."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from visionkit import nets
from visionkit.errors import ModelError
from visionkit.inspection import summarize
from visionkit.weights.torchvision import load_torchvision

# parameters without and with the second head (torchvision's counts are those with it), stride of the scores
NETWORKS = {
    "fcn_resnet50": (32_957_013, 35_322_218, 8),
    "fcn_resnet101": (51_949_141, 54_314_346, 8),
    "deeplabv3_resnet50": (39_638_869, 42_004_074, 8),
    "deeplabv3_resnet101": (58_630_997, 60_996_202, 8),
    "deeplabv3_mobilenet_v3_large": (11_025_477, 11_029_328, 16),
}
LIGHT = ("deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large")


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_sizes(name: str) -> None:
    plain, both, stride = NETWORKS[name]
    model = getattr(nets, name)(size_hw=(97, 131), aux=True)
    summary = summarize(model)
    assert summary.trainable == both
    second = sum(row.trainable for row in summary.layers if row.name.startswith("aux"))
    assert both - second == plain
    assert summary.outputs == {"logits": (97, 131, 21), "aux": (97, 131, 21)}
    assert summary.layer("logits_low").output_shape == (-(-97 // stride), -(-131 // stride), 21)


def test_lraspp_is_torchvisions_size() -> None:
    model = nets.lraspp_mobilenet_v3_large(size_hw=(97, 131))
    summary = summarize(model)
    assert summary.trainable == 3_221_538
    assert summary.layer("logits_low").output_shape == (13, 17, 21)
    assert summary.layer("backbone.16.1.hard_swish").output_shape[:2] == (7, 9)
    assert summarize(nets.lraspp_mobilenet_v3_large()).macs == pytest.approx(2.086e9, rel=1e-3)  # torchvision's number


def test_dilation_is_torchvisions() -> None:
    """`replace_stride_with_dilation`: the first block of a dilated stage has the dilation from before."""
    model = nets.fcn_resnet50(size_hw=(64, 96), resize=False)
    found = [model.get_layer(f"backbone.layer{s}.{i}.conv2").dilation_rate[0] for s in (1, 2, 3, 4) for i in (0, 1, 2)]
    assert found == [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 4, 4]
    strides = [model.get_layer(f"backbone.layer{s}.0.conv2").strides[0] for s in (1, 2, 3, 4)]
    assert strides == [1, 2, 1, 1]
    mobile = nets.lraspp_mobilenet_v3_large(size_hw=(64, 96))
    rates = [mobile.get_layer(f"backbone.{i}.block.1.0").dilation_rate[0] for i in (12, 13, 14, 15)]
    assert rates == [1, 2, 2, 2]


@pytest.mark.parametrize("name", LIGHT)
def test_open_sizes_and_saved_weights(name: str, tmp_path: Path) -> None:
    """One pixel less than a multiple of the stride, one more, smaller than it; B != H != W."""
    free = getattr(nets, name)(size_hw=None, classes=3)
    free.save_weights(tmp_path / "free.weights.h5")
    for size_hw in ((63, 97), (9, 40)):
        fixed = getattr(nets, name)(size_hw=size_hw, classes=3)
        fixed.load_weights(tmp_path / "free.weights.h5")
        x = np.random.default_rng(0).normal(size=(2, *size_hw, 3)).astype("float32")
        expected = np.asarray(fixed(x, training=False))
        assert expected.shape == (2, *size_hw, 3)
        np.testing.assert_allclose(np.asarray(free(x, training=False)), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow  # seconds; as every card does in tests/export/test_every_card.py, and FCN at each run
def test_savedmodel_loaded_by_tensorflow_alone_equals_keras(tmp_path: Path) -> None:
    import tensorflow as tf

    model = nets.deeplabv3_mobilenet_v3_large(size_hw=None, classes=3)
    model.export(tmp_path / "saved", verbose=False)
    x = np.random.default_rng(0).normal(size=(2, 49, 70, 3)).astype("float32")
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"](tf.constant(x))
    expected = np.asarray(model(x, training=False))
    ((_, answer),) = served.items()
    np.testing.assert_allclose(answer.numpy(), expected, atol=1e-5 * np.abs(expected).max())


def _state(model: keras.Model) -> dict[str, np.ndarray]:
    """A checkpoint for the model, in torch's names and layout."""
    names = {"logits_low": "classifier.4", "aux_low": "aux_classifier.4"}
    state: dict[str, np.ndarray] = {}
    for layer in model.layers:
        name = names.get(layer.name, layer.name)
        for weight in layer.weights:
            kind = {"kernel": "weight", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
            value = np.asarray(weight)
            if value.ndim == 4:
                value = value.transpose((2, 3, 0, 1) if "Depthwise" in type(layer).__name__ else (3, 2, 0, 1))
            state[
                f"{name}.{kind.get(weight.name, {'moving_variance': 'running_var'}.get(weight.name, weight.name))}"
            ] = value
    return state


def test_second_heads_tensors_are_left_unless_wanted() -> None:
    name = "deeplabv3_mobilenet_v3_large"
    state = _state(nets.deeplabv3_mobilenet_v3_large(size_hw=(64, 96), aux=True))
    load_torchvision(nets.deeplabv3_mobilenet_v3_large(size_hw=(64, 96)), name, state)
    load_torchvision(nets.deeplabv3_mobilenet_v3_large(size_hw=(64, 96), aux=True), name, state)
    without = {key: value for key, value in state.items() if not key.startswith("aux")}
    load_torchvision(nets.deeplabv3_mobilenet_v3_large(size_hw=(64, 96)), name, without)
    with pytest.raises(ModelError, match=r"aux_classifier\.4\.weight .* is missing"):
        load_torchvision(nets.deeplabv3_mobilenet_v3_large(size_hw=(64, 96), aux=True), name, without)
    other = nets.deeplabv3_mobilenet_v3_large(size_hw=(64, 96), classes=5)
    assert load_torchvision(other, name, state, skip_head=True) == ("logits_low",)


@pytest.mark.parametrize("name", [*NETWORKS, "lraspp_mobilenet_v3_large", "unet"])
def test_bad_arguments_are_refused(name: str) -> None:
    for classes in (0, True, 2.0, {"a": 3}):
        with pytest.raises(ValueError, match="`classes` must be a positive integer"):
            getattr(nets, name)(classes=classes)
    with pytest.raises(ValueError, match="`size_hw` must be"):
        getattr(nets, name)(size_hw=(0, 64))


# The small network to train


def test_unet_takes_any_size() -> None:
    free = nets.unet(size_hw=None, classes=5, width=8, depth=3)
    for size_hw in ((64, 96), (37, 50), (1, 7)):
        fixed = nets.unet(size_hw=size_hw, classes=5, width=8, depth=3)
        fixed.set_weights(free.get_weights())
        x = np.random.default_rng(0).normal(size=(2, *size_hw, 3)).astype("float32")
        found = np.asarray(fixed(x, training=False))
        assert found.shape == (2, *size_hw, 5)
        assert fixed.layers[-1].name == "logits"
        np.testing.assert_allclose(np.asarray(free(x, training=False)), found, atol=1e-5 * np.abs(found).max())


def test_unet_is_small_and_knows_its_resolutions() -> None:
    assert summarize(nets.unet()).parameters < 2_000_000
    low = nets.unet(size_hw=(64, 96), resize=False)
    assert low.layers[-1].name == "logits_low"
    assert low.output_shape == (None, 32, 48, 21)
    assert nets.unet(size_hw=(64, 96), resize=False, stem_stride=1).output_shape == (None, 64, 96, 21)
    for options in ({"stem_stride": 3}, {"width": 0}, {"depth": True}):
        with pytest.raises(ValueError, match=r"must be .*Received"):
            nets.unet(**options)
