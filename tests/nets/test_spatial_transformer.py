"""Networks with spatial transformers: they begin at the identity, learn, and leave the classifier what it was."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from visionkit import nets
from visionkit.geometry.transformer import identity_theta
from visionkit.layers import SpatialTransformer
from visionkit.runtime.compiling import compile_model

SMALL = {"classes": 4, "size_hw": (28, 33)}


def thetas(network: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in network.layers if layer.name.startswith("theta") and not layer.name.endswith("rate")]


def pictures(network: keras.Model, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(0).random((batch, *network.inputs[0].shape[1:]), dtype=np.float32)


def at(network: keras.Model, names: list[str], image: np.ndarray) -> list[np.ndarray]:
    inner = keras.Model(network.input, {name: network.get_layer(name).output for name in names})
    found = inner(image)
    return [np.asarray(found[name]) for name in names]


@pytest.mark.parametrize("localisation", ["digits", "dense", "photo"])
@pytest.mark.parametrize("transform", ["affine", "attention", "projective", "tps"])
def test_it_begins_at_the_identity(transform, localisation):
    network = nets.st_fcn(transform=transform, localisation=localisation, control=(2, 3), **SMALL)
    image = pictures(network)
    theta, straight = at(network, ["theta", "straight"], image)
    np.testing.assert_array_equal(theta, np.tile(identity_theta(transform, (2, 3)), (2, 1)))
    assert np.abs(straight - image).max() == 0
    assert network(image).shape == (2, 4)


def test_several_in_parallel_and_one_inside():
    network = nets.st_cnn(transformers=3, inside=True, transform="projective", **SMALL)
    names = sorted(layer.name for layer in thetas(network))
    assert names == ["theta", "theta_2", "theta_3", "theta_inside", "theta_inside_2", "theta_inside_3"]
    assert sum(isinstance(layer, SpatialTransformer) for layer in network.layers) == 6
    # each has convolutions of its own, so the features of one alone are a third
    assert network.get_layer("features").output.shape[-1] == 3 * network.get_layer("flatten").output.shape[-1]
    assert network(pictures(network)).shape == (2, 4)


def test_without_a_transformer_it_is_the_same_network_less_the_transformer():
    for make in (nets.st_fcn, nets.st_cnn):
        plain, straightening = make(transform="none", **SMALL), make(**SMALL)
        assert not thetas(plain)
        own = [layer.name for layer in plain.layers]
        assert set(own) <= {layer.name for layer in straightening.layers}
        for layer in plain.layers:
            shapes = [w.shape for w in layer.weights]
            assert shapes == [w.shape for w in straightening.get_layer(layer.name).weights], layer.name


@pytest.mark.parametrize(
    "make",
    [
        lambda: nets.resnet(width=8, classes=4, size_hw=(40, 48)),
        lambda: nets.mobilenet_v3_small(classes={"a": 2, "b": 3}, size_hw=(40, 48)),
        lambda: keras.Sequential([keras.Input((20, 24, 3)), layers.Flatten(), layers.Dense(4, name="logits")]),
    ],
)
def test_any_classifier_answers_at_first_as_it_did(make):
    classifier = make()
    network = nets.with_transformer(classifier)
    image = pictures(classifier)
    wanted, found = classifier(image), network(image)
    for a, b in zip(keras.tree.flatten(found), keras.tree.flatten(wanted), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-5)
    shared = {id(v) for v in network.variables}
    assert {id(v) for v in classifier.variables} <= shared  # the classifier's own weights, not copies
    assert not any(isinstance(layer, keras.Model) for layer in network.layers)


def test_a_larger_image_is_seen_through_a_small_window():
    classifier = nets.resnet(width=8, classes=4, size_hw=(24, 32))
    network = nets.with_transformer(classifier, size_hw=(70, 90), localise_hw=(35, 45), antialias=True)
    assert network.input_shape == (None, 70, 90, 3)
    assert at(network, ["straight"], pictures(network))[0].shape == (2, 24, 32, 3)


def test_a_transformer_learns_to_undo_a_shift():
    """A dot lies left or right in its half of the picture; one weight a pixel cannot tell which half by itself."""
    rng = np.random.default_rng(2)

    def material(count):
        side, place = rng.integers(0, 2, count), rng.integers(4, 22, (count, 2))
        images = np.zeros((count, 28, 28, 1), np.float32)
        for image, right, (y, x) in zip(images, side, place, strict=True):
            image[y : y + 3, x : x + 3] = 1
            image[y, x + (2 if right else 0)] = 0  # a corner is missing on one side
        return images, side

    keras.utils.set_random_seed(0)
    network = nets.st_fcn(transform="attention", classes=2, size_hw=(28, 28), units=(16,))
    network.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = network.get_layer("theta").kernel.numpy().copy()
    x, y = material(600)
    network.fit(x, y, batch_size=50, epochs=2, verbose=0)
    assert np.abs(network.get_layer("theta").kernel.numpy() - before).max() > 1e-3


def test_the_same_in_litert(tmp_path):
    network = nets.stn_classifier(
        width=8, classes=4, size_hw=(40, 48), view_hw=(24, 28), transform="tps", control=(3, 3)
    )
    rng = np.random.default_rng(4)
    network.get_layer("theta").kernel.assign(rng.normal(0, 0.2, network.get_layer("theta").kernel.shape))
    image = pictures(network, 1)
    with compile_model(network, runtime="litert", threads=1, cache_dir=tmp_path) as runner:
        found = next(iter(runner(image=image).values()))
    np.testing.assert_allclose(found, np.asarray(network(image)), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nets.st_fcn(transform="shear"), "transform='shear'"),
        (lambda: nets.st_cnn(transformers=0), "transformers=0"),
        (lambda: nets.st_cnn(localisation="big"), "localisation='big'"),
        (lambda: nets.st_fcn(size_hw=None), "must be given"),
        (lambda: nets.stn_classifier(classifier="unet_of_mine"), "classifier='unet_of_mine'"),
        (lambda: nets.stn_classifier(classifier="stn_classifier"), "classifier='stn_classifier'"),
        (lambda: nets.stn_classifier(size_hw=None), "size_hw=None"),
        (lambda: nets.with_transformer(nets.resnet(width=8, size_hw=None)), "one input"),
    ],
)
def test_bad_arguments_are_told_by_value(make, words):
    with pytest.raises(ValueError, match=words):
        make()
