"""A network made to round: where it rounds, what it folds, what it leaves alone, and that it trains."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from tests.compress.qat_nets import SIZE, everything, images, settled
from visionkit import nets
from visionkit.compress.fake_quant import FakeQuant
from visionkit.compress.fold import fold_batch_norm
from visionkit.compress.qat import (
    freeze_ranges,
    plan_quantization,
    quantize_aware,
    rounded_to,
    unseen_ranges,
)
from visionkit.errors import ModelError
from visionkit.layers import LocalResponseNormalization


def worst(first: keras.Model, second: keras.Model, given: np.ndarray) -> float:
    ours, theirs = (keras.tree.flatten(model(given, training=False)) for model in (first, second))
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(ours, theirs, strict=True))


def takers(network: keras.Model, name: str) -> list[str]:
    """Layers that take what a layer gives, in the network."""
    inside = {id(layer) for layer in network.layers}
    nodes = network.get_layer(name)._outbound_nodes
    return sorted(node.operation.name for node in nodes if id(node.operation) in inside)


# Folding


@pytest.mark.parametrize("kind", ["conv", "depthwise", "transposed", "dense"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_normalisation_goes_into_the_weights_exactly(kind: str, bias: bool) -> None:
    image = keras.Input((7, 6, 4))
    layer = {
        "conv": layers.Conv2D(5, 3, use_bias=bias, bias_initializer="normal"),
        "depthwise": layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=bias, bias_initializer="normal"),
        "transposed": layers.Conv2DTranspose(5, 3, strides=2, use_bias=bias, bias_initializer="normal"),
        "dense": layers.Dense(5, use_bias=bias, bias_initializer="normal"),
    }[kind]
    model = settled(keras.Model(image, layers.BatchNormalization()(layer(image))), images(6, (7, 6), 4))
    folded = fold_batch_norm(model)
    assert [type(one) for one in folded.layers[1:]] == [type(layer)]
    given = images(3, (7, 6), 4)
    assert worst(model, folded, given) < 1e-5
    # known wrong: without the running mean
    kernel, shift = folded.layers[1].get_weights()
    folded.layers[1].set_weights([kernel, shift + 0.01])
    assert worst(model, folded, given) > 1e-3


def test_a_normalisation_stays_where_its_input_is_used_elsewhere() -> None:
    image = keras.Input((7, 6, 4))
    x = layers.Conv2D(4, 1, name="conv")(image)
    model = settled(
        keras.Model(image, layers.Add()([x, layers.BatchNormalization(name="norm")(x)])), images(6, (7, 6), 4)
    )
    folded = fold_batch_norm(model)
    assert "norm" in [layer.name for layer in folded.layers]
    assert worst(model, folded, images(3, (7, 6), 4)) < 1e-5


def test_a_layer_that_is_called_twice_is_folded_once() -> None:
    first, second = keras.Input((7, 6, 4), name="a"), keras.Input((7, 6, 4), name="b")
    conv, norm = layers.Conv2D(5, 3, name="conv"), layers.BatchNormalization(name="norm")
    model = keras.Model({"a": first, "b": second}, layers.Subtract()([norm(conv(first)), norm(conv(second))]))
    given = {"a": images(6, (7, 6), 4), "b": images(6, (7, 6), 4)[::-1]}
    settled(model, given)
    folded = fold_batch_norm(model)
    assert [layer.name for layer in folded.layers].count("conv") == 1
    assert worst(model, folded, given) < 1e-5
    network = quantize_aware(model, samples=[given])
    assert sum(type(layer).__name__ == "QuantConv2D" for layer in network.layers) == 1
    assert {"conv.quant", "conv.quant.2"} < {layer.name for layer in network.layers}  # each call has its own range


# Where it rounds


def test_rounding_stands_where_litert_writes_to_memory() -> None:
    network = quantize_aware(everything(), samples=[images()])
    kinds = {layer.name: type(layer).__name__ for layer in network.layers}
    assert not any(kind == "BatchNormalization" for kind in kinds.values())
    # one rounding, behind the rectifier, which belongs to the convolution or the sum
    assert takers(network, "stem") == ["stem.relu"]
    assert takers(network, "sum") == ["sum.relu"]
    # LiteRT's hard swish reads integers: before and behind
    assert takers(network, "deep") == ["deep.quant"]
    assert takers(network, "deep.swish") == ["deep.swish.quant"]
    # a sum, a transposed convolution and a resized map that are joined have one scale
    assert takers(network, "sum.relu") == takers(network, "up.relu6") == ["sum.relu.quant"]
    shared = network.get_layer("sum.relu.quant")
    assert shared.sites == 3  # with the dilated convolution's, which the resizing only moves
    assert takers(network, "dilated.activation") == ["sum.relu.quant"]
    # what only moves numbers is not rounded, what averages them is, to the levels they have
    assert takers(network, "down") == ["dilated"]
    assert takers(network, "join") == ["mean"]
    assert takers(network, "wide") == takers(network, "mean") == ["sum.relu.quant"]
    assert network.get_layer("gate.sigmoid.quant").fixed == (0.0, 1.0)
    assert network.get_layer("fc2.activation.quant").fixed == (-1.0, 127 / 128)
    assert kinds["lone"] == "QuantDepthwiseConv2D"


def test_it_is_the_model_but_for_rounding() -> None:
    model = everything()
    before = [np.array(weight) for weight in model.get_weights()]
    fresh = quantize_aware(model)  # no range seen: weights only
    network = quantize_aware(model, samples=[images()])
    assert unseen_ranges(fresh)
    assert not unseen_ranges(network)
    size = float(np.abs(np.asarray(model(images()))).max())
    assert 0 < worst(model, fresh, images()) < 0.1 * size
    assert 0 < worst(model, network, images()) < 0.2 * size
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert network.output_shape == model.output_shape
    assert [tensor.name for tensor in network.inputs] == ["image"]


def test_the_range_of_the_input_may_be_given() -> None:
    network = quantize_aware(everything(), input_range=(-2.0, 2.5), samples=[images()])
    assert rounded_to(network)["image.quant"] == (-2.0, 2.5)
    assert len(rounded_to(network)) == sum(isinstance(layer, FakeQuant) for layer in network.layers)


# What it cannot


def test_layers_without_an_integer_form_are_named_with_the_reason() -> None:
    image = keras.Input((*SIZE, 3), name="image")
    x = layers.Conv2D(8, 3, name="conv")(image)
    x = LocalResponseNormalization(name="lrn")(x)
    x = layers.Activation("gelu", name="gelu")(layers.Conv2D(8, 3, name="conv2")(x))
    x = keras.ops.exp(layers.Conv2D(4, 3, name="conv3")(x))
    x = layers.PReLU(name="prelu")(layers.Conv2D(4, 1, name="conv4")(x))
    model = keras.Model(image, layers.Average(name="average")([x, x]))
    rows = {row.name: row for row in plan_quantization(model) if row.how == "float"}
    told = {name: row.reason for name, row in rows.items() if name != next(n for n in rows if n.startswith("exp"))}
    assert told == {
        "lrn": "no eight-bit form of LocalResponseNormalization",
        "gelu": "no eight-bit form of gelu",
        "prelu": "no eight-bit form of PReLU",
        "average": "no eight-bit form of Average",
    }
    assert any(row.reason == "Exp is a raw operation, no layer" for row in rows.values())
    network = quantize_aware(model, samples=[images()])
    size = float(np.abs(np.asarray(model(images()))).max())
    assert worst(model, network, images()) < 0.2 * size
    assert "prelu.quant" not in [layer.name for layer in network.layers]  # floats on both sides


def test_a_subclassed_model_is_refused() -> None:
    class Own(keras.Model):
        def call(self, inputs: object) -> object:
            return inputs

    with pytest.raises(ModelError, match="no graph to walk"):
        quantize_aware(Own())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_norm": "no"}, "`batch_norm` must be one of fold, train"),
        ({"ranges": "wide"}, "`ranges` of moving, learned"),
        ({"ranges": "learned"}, "needs `samples` to start from"),
        ({"keep_float": ["nobody.*"]}, "`keep_float` must match names of layers. Received: 'nobody"),
    ],
)
def test_wrong_arguments(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantize_aware(everything(), **wrong)


def test_layers_stay_in_float_as_asked() -> None:
    network = quantize_aware(everything(), keep_float=["fc*", "logits"], samples=[images()])
    kinds = {layer.name: type(layer).__name__ for layer in network.layers}
    assert (kinds["fc"], kinds["logits"], kinds["last"]) == ("Dense", "Dense", "QuantConv2D")
    assert takers(network, "pool") == ["pool.quant"]
    assert "logits.quant" not in kinds


# Training


@pytest.mark.parametrize("options", [{}, {"batch_norm": "train"}, {"ranges": "learned"}])
def test_it_learns_by_fit_and_its_weights_come_back(options: dict[str, str], tmp_path: Path) -> None:
    model = everything()
    network = quantize_aware(model, samples=[images()], **options)
    given = images(64)
    labels = np.arange(64) % 3
    given[np.arange(64), :, :, labels] += 1  # one channel is brighter
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(1e-2), loss)
    network.optimizer.build(network.trainable_variables)  # a step that does it is traced twice
    before = rounded_to(network)
    losses = network.fit(given, labels, epochs=6, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    after = rounded_to(network)
    assert after["sum.relu.quant"] != before["sum.relu.quant"]
    freeze_ranges(network)
    network.fit(given, labels, epochs=1, batch_size=16, verbose=0)
    assert options.get("ranges") == "learned" or rounded_to(network) == after
    network.save_weights(tmp_path / "rounding.weights.h5")
    again = quantize_aware(model, samples=[images()], **options)
    assert worst(network, again, images()) > 0
    again.load_weights(tmp_path / "rounding.weights.h5")
    assert worst(network, again, images()) == 0
    assert rounded_to(again) == rounded_to(network)


# The house's networks


NETWORKS = {
    "lenet5": lambda: nets.lenet5(classes=10),
    "mobilenet_v2": lambda: nets.mobilenet_v2(classes=7, size_hw=(64, 96)),
    "mobilenet_v3_small": lambda: nets.mobilenet_v3_small(classes=7, size_hw=(64, 96)),
    "resnet": lambda: nets.resnet(width=8, classes=5, size_hw=(48, 64)),
    "googlenet": lambda: nets.googlenet(classes=7, size_hw=(96, 128)),
    "unet": lambda: nets.unet(classes=3, size_hw=(64, 96)),
    "lraspp": lambda: nets.lraspp_mobilenet_v3_large(classes=3, size_hw=(64, 96)),
    "ssdlite": lambda: nets.ssdlite(classes=3, backbone="small", width_multiplier=0.25, pyramid=16, size_hw=(96, 128)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_house_s_networks_are_quantized_whole(name: str) -> None:
    rows = plan_quantization(NETWORKS[name]())
    assert [row for row in rows if row.how == "float"] == []


def test_a_spatial_transformer_samples_in_float() -> None:
    model = nets.stn_classifier(classes=4, size_hw=(64, 64), transform="affine")
    kept = {row.kind for row in plan_quantization(model) if row.how == "float"}
    assert kept == {"Rescaling", "SpatialTransformer"}
