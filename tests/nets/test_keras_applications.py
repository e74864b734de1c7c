"""Weights of `keras.applications` in our networks: equal outputs, from both file formats, with no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving.legacy_h5_format import save_model_to_hdf5

from tests.nets.synthetic import calibrate
from visionkit import nets
from visionkit.errors import ModelError
from visionkit.weights.keras_applications import load_keras_application
from visionkit.weights.loading import weights_format

SIZE_HW = (96, 111)
APPLICATIONS = {
    "vgg16": (keras.applications.VGG16, {}),
    "vgg19": (keras.applications.VGG19, {}),
    "resnet50": (keras.applications.ResNet50, {"layout": "keras"}),
    "resnet101": (keras.applications.ResNet101, {"layout": "keras"}),
    "resnet152": (keras.applications.ResNet152, {"layout": "keras"}),
    "inception_v3": (keras.applications.InceptionV3, {"count_include_pad": False}),
}


def theirs(name: str, **options: Any) -> keras.Model:
    """The network of `keras.applications` with noise in all of its weights and statistics of what it sees."""
    keras.utils.set_random_seed(3)
    size = options.pop("size_hw", SIZE_HW)
    options = {"weights": None, "input_shape": (*size, 3), "classifier_activation": None, "classes": 7} | options
    model: keras.Model = APPLICATIONS[name][0](**options)
    rng = np.random.default_rng(4)
    for variable in model.trainable_variables:
        if len(variable.shape) == 1:
            low, high = (0.5, 1.5) if variable.name == "gamma" else (-0.1, 0.1)
            variable.assign(rng.uniform(low, high, variable.shape))
    return calibrate(model, noise(size))


def ours(name: str, **options: Any) -> keras.Model:
    model: keras.Model = getattr(nets, name)(**({"classes": 7, "size_hw": SIZE_HW} | APPLICATIONS[name][1] | options))
    return model


def noise(size_hw: tuple[int, int] = SIZE_HW) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(2, *size_hw, 3)).astype(np.float32)


def save(model: keras.Model, path: Path) -> Path:
    """`.weights.h5` as Keras 3 writes it, or `.h5` as the ImageNet weights were written, by Keras 1 and 2."""
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
        return path
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}_1/{variable.name}:0" for variable in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, variable in zip(names, layer.weights, strict=True):
                group[name] = np.asarray(variable)
    return path


def difference(a: keras.Model, b: keras.Model, size_hw: tuple[int, int] = SIZE_HW) -> float:
    """Largest, relative to the deviation of the outputs."""
    expected, found = (np.asarray(model(noise(size_hw), training=False)) for model in (a, b))
    return float(np.abs(found - expected).max() / expected.std())


@pytest.fixture(scope="module")
def resnet50() -> keras.Model:
    return theirs("resnet50")


@pytest.fixture(scope="module")
def resnet50_file(resnet50: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(resnet50, tmp_path_factory.mktemp("published") / "resnet50.h5")


@pytest.mark.parametrize("file", ["x.h5", "x.weights.h5"])
def test_outputs_of_resnet50_are_those_of_keras_applications(file: str, resnet50: keras.Model, tmp_path: Path) -> None:
    model = ours("resnet50")
    path = save(resnet50, tmp_path / file)
    assert weights_format(path) == "keras"
    assert load_keras_application(model, "resnet50", path) == ()
    assert difference(resnet50, model) < 1e-5


def test_outputs_of_inception_v3_are_those_of_keras_applications(tmp_path: Path) -> None:
    source, model = theirs("inception_v3"), ours("inception_v3")
    path = save(source, tmp_path / "x.h5")
    assert load_keras_application(model, "inception_v3", path) == ()
    assert difference(source, model) < 1e-5
    with pytest.raises(ModelError, match=r"one difference: .*count_include_pad=False"):
        load_keras_application(ours("inception_v3", count_include_pad=True), "inception_v3", path)


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_weights_without_the_top_fill_a_trunk(name: str, tmp_path: Path) -> None:
    source, model = theirs(name, include_top=False), ours(name, classes=None)
    load_keras_application(model, name, save(source, tmp_path / "notop.h5"))
    features = keras.Model(source.input, source.output)
    assert difference(features, model) < 1e-5


@pytest.mark.slow  # hundreds of megabytes each
@pytest.mark.parametrize("name", ["vgg16", "vgg19", "resnet101", "resnet152"])
def test_outputs_of_the_large_are_those_of_keras_applications(name: str, tmp_path: Path) -> None:
    size = (224, 224) if name.startswith("vgg") else SIZE_HW  # with another, theirs has another number of weights
    source, model = theirs(name, size_hw=size), ours(name, size_hw=size)
    load_keras_application(model, name, save(source, tmp_path / "x.weights.h5"))
    assert difference(source, model, size) < 1e-5


def test_a_whole_model_that_keras_wrote_is_read(resnet50: keras.Model, tmp_path: Path) -> None:
    save_model_to_hdf5(resnet50, str(tmp_path / "whole.h5"), include_optimizer=False)
    model = ours("resnet50")
    load_keras_application(model, "resnet50", tmp_path / "whole.h5")
    assert difference(resnet50, model) < 1e-5


def test_another_layout_is_refused_whole(resnet50_file: Path) -> None:
    model = ours("resnet50", layout="paper")
    before = model.get_weights()
    with pytest.raises(ModelError, match=r"conv1_conv has \[\(7, 7, 3, 64\), \(64,\)\] in the file.*layout=\"keras\""):
        load_keras_application(model, "resnet50", resnet50_file)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_head_of_other_classes_is_refused_or_kept(resnet50_file: Path) -> None:
    model = ours("resnet50", classes=3)
    with pytest.raises(ModelError, match=r"predictions has .*skip_head=True"):
        load_keras_application(model, "resnet50", resnet50_file)
    assert load_keras_application(model, "resnet50", resnet50_file, skip_head=True) == ("logits",)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    path = save(theirs("vgg16", include_top=False), tmp_path / "x.h5")
    with pytest.raises(ModelError) as caught:
        load_keras_application(ours("resnet50"), "resnet50", path)
    assert caught.value.slug == "model-unfit"
    assert "the layer layer4.2.bn3 (conv5_block3_3_bn) is not in the file" in caught.value.message
    assert "block5_conv3 of the file has no layer" in caught.value.message


def test_a_file_that_lists_what_it_does_not_hold_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["layer_names"] = [b"conv1_conv"]
    with pytest.raises(ModelError) as caught:
        load_keras_application(ours("resnet50"), "resnet50", tmp_path / "x.h5")
    assert caught.value.slug == "model-corrupt"


def test_weights_of_our_own_are_not_taken_for_theirs(tmp_path: Path) -> None:
    nets.resnet(width=4, size_hw=(32, 40), layout="keras", block="bottleneck").save_weights(tmp_path / "a.weights.h5")
    assert weights_format(tmp_path / "a.weights.h5") == "visionkit"


def test_a_network_that_is_not_theirs_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="network='mobilenet_v2'"):
        load_keras_application(nets.mobilenet_v2(), "mobilenet_v2", tmp_path / "x.h5")
