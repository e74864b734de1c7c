"""A network that learnt to round, as integers in LiteRT: the same answers but for the last steps of its scales."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from tests.compress.qat_nets import SIZE, everything, images, settled
from visionkit.compress import qat
from visionkit.compress.fake_quant import FakeQuant
from visionkit.compress.operations import float_islands, list_operations
from visionkit.compress.qat import quantize_aware
from visionkit.compress.qat_export import convert_quantized, export_twin, levels_apart
from visionkit.compress.quant_layers import QuantConv2D
from visionkit.errors import ModelError
from visionkit.runtime.litert import open_litert

LAYERS = {
    "strided": lambda: [layers.Conv2D(6, 3, strides=2, padding="same"), layers.ReLU()],
    "dilated": lambda: [layers.Conv2D(6, 3, dilation_rate=2, padding="same"), layers.ReLU(6.0)],
    "depthwise": lambda: [layers.DepthwiseConv2D(3, depth_multiplier=2), layers.Activation("hard_swish")],
    "transposed": lambda: [layers.Conv2DTranspose(6, 3, strides=2, padding="same"), layers.ReLU()],
    "transposed_bare": lambda: [layers.Conv2DTranspose(6, 2, strides=2, use_bias=False), layers.ReLU(6.0)],
    "transposed_norm": lambda: [layers.Conv2DTranspose(6, 4, strides=2, use_bias=False), layers.BatchNormalization()],
    "dense": lambda: [layers.Flatten(), layers.Dense(9), layers.LeakyReLU()],
    "gate": lambda: [
        layers.GlobalAveragePooling2D(keepdims=True),
        layers.Conv2D(6, 1),
        layers.Activation("hard_sigmoid"),
    ],
    "sigmoid": lambda: [layers.Conv2D(6, 1), layers.Activation("sigmoid")],
    "tanh": lambda: [layers.Conv2D(6, 1), layers.Activation("tanh")],
    "softmax": lambda: [layers.Conv2D(6, 1), layers.Softmax()],
    "mean": lambda: [layers.Conv2D(6, 1), layers.AveragePooling2D(2)],
    "resized": lambda: [layers.Conv2D(6, 1), layers.UpSampling2D(2, interpolation="bilinear")],
    "lone_norm": lambda: [layers.MaxPooling2D(2), layers.BatchNormalization(), layers.ReLU()],
}


def chain(kind: str) -> keras.Model:
    keras.utils.set_random_seed(4)
    image = keras.Input((*SIZE, 3), name="image")
    x = image
    for layer in LAYERS[kind]():
        x = layer(x)
    return settled(keras.Model(image, x), images())


def ones(given: np.ndarray) -> list[np.ndarray]:
    return [given[i : i + 1] for i in range(len(given))]


@pytest.mark.parametrize("kind", LAYERS)
def test_each_layer_is_integer_and_exact_to_the_last_step(kind: str) -> None:
    network = quantize_aware(chain(kind), samples=[images()])
    content = convert_quantized(network)
    rows = list_operations(content)
    assert [row.kind for row in rows if row.is_float] == []
    (found,) = levels_apart(network, content, ones(images())).values()
    assert found.worst < 1.1  # one step: the rescaling of sums is fixed-point, or a table
    assert found.mean < 0.05


@pytest.mark.parametrize("batch_norm", ["fold", "train"])
def test_a_whole_network_is_integer_and_off_by_a_few_steps(batch_norm: str) -> None:
    network = quantize_aware(everything(), batch_norm=batch_norm, samples=[images()])
    content = convert_quantized(network)
    assert float_islands(list_operations(content)) == []
    assert {row.types for row in list_operations(content)} == {"float32+int8", "int8", "int8+float32"}
    found = levels_apart(network, content, ones(images()))["logits"]
    # 24 tensors are rounded, each within a step; what random weights make of that is not held together by training
    assert found.mean < 3
    assert found.agreement == 1


def test_folding_after_the_training_is_folding_before_it() -> None:
    model = everything()
    first, second = (quantize_aware(model, batch_norm=how, samples=[images()]) for how in ("fold", "train"))
    kernels = [export_twin(network).get_layer("up").get_weights()[0] for network in (first, second)]
    np.testing.assert_allclose(kernels[0], kernels[1], rtol=1e-4, atol=1e-6)


def test_integer_ends_answer_the_same() -> None:
    network = quantize_aware(everything(), samples=[images()])
    with (
        open_litert(convert_quantized(network), threads=1) as floats,
        open_litert(convert_quantized(network, integer_io=True), threads=1) as integers,
    ):
        given, answer = integers.inputs["image"], integers.outputs["logits"]
        assert (given.dtype, answer.dtype) == (np.int8, np.int8)
        scale, zero = given.quantization or (0.0, 0)
        steps = np.clip(np.round(images(1) / scale) + zero, -128, 127).astype(np.int8)
        found = integers(image=steps)["logits"].astype(np.float32)
        scale, zero = answer.quantization or (0.0, 0)
        assert np.array_equal((found - zero) * np.float32(scale), floats(image=images(1))["logits"])


def test_a_range_that_was_never_seen_is_told() -> None:
    with pytest.raises(ModelError, match="ranges of everything saw no batch") as caught:
        convert_quantized(quantize_aware(everything()))
    assert caught.value.slug == "quantization-unready"


def test_a_bias_that_is_the_same_in_every_channel_survives() -> None:
    """The converter would write the first channel's level into all, whose scales differ (0.5 of a hard sigmoid)."""
    model = chain("gate")
    model.layers[2].bias.assign(np.full(6, 1.5))
    network = quantize_aware(model, samples=[images()])
    (found,) = levels_apart(network, convert_quantized(network), ones(images())).values()
    assert found.worst < 1.1


@pytest.mark.parametrize("size", [0.0, 1e-9])
def test_channels_of_nothing_survive(size: float) -> None:
    model = chain("strided")
    kernel, bias = model.layers[1].get_weights()
    kernel[..., :2] *= size
    model.layers[1].set_weights([kernel, bias + 0.7])
    network = quantize_aware(model, samples=[images()])
    (found,) = levels_apart(network, convert_quantized(network), ones(images())).values()
    assert found.worst < 1.1


def test_rounding_behind_what_keeps_its_scale_is_known_wrong() -> None:
    """The converter takes the narrower range back to the convolution, whose larger numbers are cut off."""
    image = keras.Input((*SIZE, 3), name="image")
    x = QuantConv2D(6, 3, name="conv")(FakeQuant(name="a")(image))
    pool = layers.AveragePooling2D(4, name="mean")
    right, wrong = keras.Model(image, pool(FakeQuant(name="b")(x))), keras.Model(image, FakeQuant(name="c")(pool(x)))
    found = []
    for network in (right, wrong):
        qat.calibrate_ranges(network, [images()])
        asked = np.asarray(network(images()))
        with open_litert(convert_quantized(network), threads=1) as runner:
            answers = [next(iter(runner(image=one).values())) for one in ones(images())]
        found.append(float(np.abs(np.concatenate(answers) - asked).max()))
    assert found[1] > 5 * found[0]


def test_layers_kept_in_float_stay_so() -> None:
    network = quantize_aware(everything(), keep_float=["dilated", "fc1", "logits"], samples=[images()])
    rows = list_operations(convert_quantized(network))
    kept = [row.kind for row in rows if row.is_float]
    assert kept.count("CONV_2D") == 1
    assert kept.count("FULLY_CONNECTED") == 2
    (found,) = levels_apart(network, convert_quantized(network), ones(images(16))).values()
    assert found.agreement >= 0.9
