"""Weights of every format into a network: all of it, or an error that lists what does not fit."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.weights.keras_nets import card_of, torch_state
from tests.weights.torch_files import write_checkpoint, write_legacy
from visionkit.errors import ModelError
from visionkit.weights import build_network, load_weights
from visionkit.weights.loading import weights_format
from visionkit.weights.storage import save_half

CARD = card_of("lenet5", (32, 32), 7)
RESNET = card_of("resnet18", (64, 96), 5)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A network and the file that Keras made of it."""
    keras.utils.set_random_seed(1)
    model = build_network(CARD)
    path = tmp_path_factory.mktemp("saved") / "lenet5.weights.h5"
    model.save_weights(path)
    return model, path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The state of a resnet18 as torchvision would have it, and the network's shapes."""
    model = build_network(RESNET)
    return model, torch_state(model, "fc")


def test_own_weights_fill_a_second_network(saved):
    model, path = saved
    other = build_network(CARD)
    image = np.random.RandomState(0).rand(3, *model.input_shape[1:]).astype(np.float32)
    assert np.abs(np.asarray(other(image)) - np.asarray(model(image))).max() > 1e-3
    load_weights(other, CARD, path)
    np.testing.assert_array_equal(np.asarray(other(image)), np.asarray(model(image)))
    assert weights_format(path) == "visionkit"


def test_half_precision_fills_too(saved, tmp_path):
    model, _ = saved
    save_half(model, tmp_path / "half.weights.h5")
    other = build_network(CARD)
    load_weights(other, CARD, tmp_path / "half.weights.h5")
    for ours, theirs in zip(other.weights, model.weights, strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=2**-10, atol=1e-7)


def test_weights_of_a_compiled_model_fill_too(tmp_path):
    model = build_network(CARD)
    model.compile("adam", "mse")
    image = np.zeros((1, *model.input_shape[1:]), np.float32)
    model.fit(image, np.zeros((1, 7), np.float32), verbose=0)
    model.save_weights(tmp_path / "trained.weights.h5")
    other = build_network(CARD)
    load_weights(other, CARD, tmp_path / "trained.weights.h5")
    np.testing.assert_array_equal(np.asarray(other(image)), np.asarray(model(image)))


@pytest.mark.parametrize("write", [write_checkpoint, write_legacy])
def test_a_checkpoint_of_torchvision(checkpoint, tmp_path, write):
    model, state = checkpoint
    path = write(tmp_path / "resnet18.pth", state)
    load_weights(model, RESNET, path)
    np.testing.assert_array_equal(
        np.asarray(model.get_layer("layer1.0.conv1").kernel), state["layer1.0.conv1.weight"].transpose(2, 3, 1, 0)
    )
    np.testing.assert_array_equal(np.asarray(model.get_layer("logits").kernel), state["fc.weight"].T)
    assert weights_format(path) == "torchvision"


def test_d10_every_mismatch_is_listed(saved, tmp_path):
    model, path = saved
    for classes, words in ((9, "logits has"), (7, "")):
        card = card_of("lenet5", (32, 32), classes)
        other = build_network(card)
        if words:
            with pytest.raises(ModelError, match=words) as caught:
                load_weights(other, card, path)
            assert caught.value.slug == "model-unfit"
            assert "84x7" in caught.value.message
            assert "84x9" in caught.value.message
        else:
            load_weights(other, card, path)
    names = [layer.name for layer in model.layers if layer.weights]
    small = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name=names[0]), keras.layers.Dense(2, name="x")])
    small.save_weights(tmp_path / "small.weights.h5")
    with pytest.raises(ModelError) as caught:
        load_weights(build_network(CARD), CARD, tmp_path / "small.weights.h5")
    for name in names[1:]:
        assert f"{name} is missing in the file" in caught.value.message
    assert f"{names[0]} has " in caught.value.message
    assert "x is not in the network" in caught.value.message


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_d11_a_weight_that_is_no_number(saved, checkpoint, tmp_path, wrong):
    model, state = checkpoint
    state = {**state, "fc.bias": np.array([0, 1, wrong, 3, 4], np.float32)}
    path = write_checkpoint(tmp_path / "a.pth", state)
    with pytest.raises(ModelError, match=r"1 of 5 numbers of logits/bias are NaN or infinite") as caught:
        load_weights(model, RESNET, path)
    assert caught.value.slug == "model-not-finite"
    load_weights(model, RESNET, path, allow_nonfinite=True)


def test_d12_damaged_weights_leave_the_network_alone(saved, tmp_path):
    model, path = saved
    before = [np.asarray(variable) for variable in model.variables]
    raw = path.read_bytes()
    broken = tmp_path / "a.weights.h5"
    for content in (raw[: len(raw) // 2], b"", b"<html>", b"PK\x03\x04" + raw):
        broken.write_bytes(content)
        with pytest.raises(ModelError) as caught:
            load_weights(model, CARD, broken)
        assert caught.value.slug == "model-corrupt"
    for variable, old in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(np.asarray(variable), old)


def test_a_name_that_keras_does_not_take(saved, tmp_path):
    model, path = saved
    (tmp_path / "weights.hdf5").write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match=r"end in `\.weights\.h5`: rename it") as caught:
        load_weights(model, CARD, tmp_path / "weights.hdf5")
    assert caught.value.slug == "model-unfit"


def test_a_card_with_several_heads_builds_them():
    import dataclasses

    card = dataclasses.replace(CARD, labels=(), heads={"colour": ("red", "green"), "shape": ("round",) * 3})
    shapes = {name: tuple(output.shape) for name, output in build_network(card).output.items()}
    assert shapes == {"colour": (None, 2), "shape": (None, 3)}
