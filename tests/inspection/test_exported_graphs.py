"""Tables of .tflite files agree with the networks they were made of; a SavedModel is read without being loaded."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from visionkit import nets
from visionkit.errors import ModelError
from visionkit.inspection import summarize
from visionkit.inspection.ops_summary import short_names, summarize_ops
from visionkit.runtime.programs import KerasProgram
from visionkit.runtime.quiet import quiet
from visionkit.runtime.saved_model_graph import read_saved_model
from visionkit.runtime.tflite_graph import can_run_code, read_tflite_graph


def exported(model, precision="float32"):
    with quiet():
        return KerasProgram(model, 1).artifact(".tflite", precision)


def decoder():
    x = image = keras.Input((24, 32, 3), name="image")
    x = layers.Conv2D(8, 3, 2, padding="same", activation="relu")(x)
    x = layers.Conv2D(8, 3, padding="same", dilation_rate=2)(x)
    skip = layers.Conv2D(4, 1)(x)
    x = layers.Conv2DTranspose(4, 4, 2, padding="same")(layers.AveragePooling2D(2)(x))
    x = layers.Add()([x, skip])
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    return keras.Model(image, layers.Softmax()(x))


@pytest.mark.parametrize(
    ("build", "precision"),
    [
        (lambda: nets.resnet18(size_hw=(64, 96), classes=7), "float32"),
        (lambda: nets.mobilenet_v3_small(size_hw=(96, 64), classes=7), "float16"),
        (lambda: nets.googlenet(size_hw=(64, 80), classes=7), "float32"),
        (nets.lenet5, "float32"),
        (nets.lenet5, "float16"),
        (decoder, "float32"),
    ],
)
def test_a_tflite_has_the_network_s_macs_and_fields(build, precision):
    model = build()
    told, network = summarize_ops(read_tflite_graph(exported(model, precision))), summarize(model)
    assert told.macs == network.macs
    (field,), (wanted,) = told.layers[-1].fields.values(), network.layers[-1].fields.values()
    assert field == wanted
    assert told.layers[-1].output_shape == network.layers[-1].output_shape
    assert told.unknown_macs == ()


def test_folding_leaves_the_convolutions_weights():
    """Four numbers a channel of each normalisation become one bias; zero biases are dropped by the converter."""
    model = nets.resnet18(size_hw=(64, 64), classes=7)
    rng = np.random.default_rng(3)
    model.set_weights([rng.uniform(0.5, 1.5, value.shape) for value in model.get_weights()])
    channels = sum(layer.gamma.shape[0] for layer in model.layers if isinstance(layer, layers.BatchNormalization))
    told = summarize_ops(read_tflite_graph(exported(model)))
    assert told.parameters == model.count_params() - 3 * channels


def test_padding_is_seen_in_front_of_a_convolution():
    told = summarize_ops(read_tflite_graph(exported(nets.resnet18(size_hw=(64, 96), classes=7))))
    first = next(row for row in told.layers if row.kind.startswith("CONV_2D"))
    (field,) = first.fields.values()
    assert (field.size_hw, field.stride_hw, field.padding_hw) == ((7, 7), (2, 2), (3, 3))


def test_what_is_no_tflite_is_refused():
    content = exported(nets.lenet5())
    for broken in (content[:200], b"\xff" * 300, b""):
        with pytest.raises(ModelError, match="damaged LiteRT model"):
            read_tflite_graph(broken)
    assert can_run_code(read_tflite_graph(content)) == []


def test_names_lose_what_they_share():
    names = ["net_1/branch/conv1/Relu;net_1/x", "net_1/branch/conv2/BiasAdd", "Call:0"]
    assert list(short_names(names).values()) == ["conv1/Relu", "conv2/BiasAdd", "Call:0"]


def test_a_saved_model_is_read_without_loading_it(tmp_path):
    model = nets.lenet5()
    with quiet():
        model.export(tmp_path / "saved", verbose=False)
    facts = read_saved_model(tmp_path / "saved")
    assert facts.parameters == 61_706  # the file holds every variable twice
    assert facts.signatures["serving_default"]["inputs"] == {"image": ["float32", [None, 32, 32, 1]]}
    assert facts.operations["Conv2D"] == 3  # c1, c3, c5
    assert facts.reaching == ()


def test_operations_that_reach_out_are_told(tmp_path):
    import tensorflow as tf

    class Writer(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([2], tf.float32)])
        def serve(self, x):
            tf.io.write_file(str(tmp_path / "canary"), "x")
            return x

    module = Writer()
    with quiet():
        tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.serve)
    assert read_saved_model(tmp_path / "saved").reaching == ("WriteFile",)
    assert not (tmp_path / "canary").exists()


def test_a_broken_saved_model_is_refused(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"\x0a\xff\xff")
    with pytest.raises(ModelError) as caught:
        read_saved_model(tmp_path)
    assert caught.value.slug == "model-corrupt"
