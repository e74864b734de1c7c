"""The table of networks made by hand: nested and shared layers, sizes asked for, what cannot be told."""

from __future__ import annotations

import keras
import pytest
from keras import layers, ops

from visionkit import nets
from visionkit.errors import ModelError, UsageError
from visionkit.inspection import summarize
from visionkit.layers.maxout import Maxout
from visionkit.layers.normalization import LocalResponseNormalization
from visionkit.layers.pooling import CeilMaxPooling2D, LpPooling2D


def field_of(row, name="image"):
    return row.fields[name]


def test_siamfc_shares_its_branch():
    """The exemplar's and the search's features are 6 and 22 cells of stride 8; the branch's weights count once."""
    model = nets.siamfc()
    summary = summarize(model)
    uses = [row for row in summary.layers if row.name == "branch/conv5"]
    assert [(row.output_shape, row.shared) for row in uses] == [((6, 6, 256), False), ((22, 22, 256), True)]
    assert [row.parameters for row in uses] == [3 * 3 * 192 * 256 + 256, 0]
    assert summary.parameters == model.count_params() == sum(row.parameters for row in summary.layers)
    response = summary.layer("correlation")
    assert response.macs == 17 * 17 * 6 * 6 * 256
    # a response cell sees the whole exemplar, and a window of the same size of the search region
    assert (field_of(response, "exemplar").size_hw, field_of(response, "exemplar").stride_hw) == ((127, 127), (0, 0))
    assert (field_of(response, "search").size_hw, field_of(response, "search").stride_hw) == ((127, 127), (8, 8))


def test_siambox_is_told_to_the_end():
    summary = summarize(nets.siambox())
    assert all(row.fields for row in summary.layers)
    assert summary.unknown_macs == ()
    assert dict(summary.outputs) == {"logits": (24, 24, 1), "ltrb": (24, 24, 4)}
    assert field_of(summary.layer("head/logits"), "search").stride_hw == (8, 8)


def test_other_sizes_need_no_rebuilding():
    model = nets.resnet18(size_hw=(64, 64), classes=4)
    summary = summarize(model, (200, 331))
    assert (
        summary.layer("layer4.1.relu").output_shape
        == (7, 11, 512)
        == nets.resnet18(size_hw=(200, 331), classes=None).output.shape[1:]
    )
    assert summary.macs == summarize(nets.resnet18(size_hw=(200, 331), classes=4)).macs
    assert summary.parameters == summarize(model).parameters


def test_each_input_has_its_size():
    summary = summarize(nets.siamfc(), {"search": (303, 271)})
    assert dict(summary.outputs) == {"response": (23, 19, 1)}
    assert summary.inputs["exemplar"] == (127, 127, 3)


@pytest.mark.parametrize(
    ("build", "size", "error", "slug"),
    [
        (lambda: nets.resnet18(size_hw=None), None, UsageError, "size-needed"),
        (lambda: nets.siamfc(), (255, 255), UsageError, "size-unclear"),
        (lambda: nets.siamfc(), {"serach": (255, 255)}, UsageError, "size-unclear"),
        (lambda: nets.lenet5(), (40, 40), ModelError, "size-unfit"),
        (lambda: nets.siamfc_branch(), (40, 300), ModelError, "size-unfit"),
        (lambda: nets.siamfc(), {"search": (95, 255)}, ModelError, "size-unfit"),
    ],
)
def test_sizes_that_cannot_be(build, size, error, slug):
    with pytest.raises(error) as caught:
        summarize(build(), size)
    assert caught.value.slug == slug


def test_a_network_that_flattens_names_the_layer():
    with pytest.raises(ModelError, match="at 'f6'"):
        summarize(nets.lenet5(), (48, 32))


def test_a_model_without_a_graph_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ModelError, match="no graph to walk") as caught:
        summarize(Own())
    assert caught.value.slug == "model-graph"


def test_a_sequential_over_a_network():
    trunk = nets.mobilenet_v2(classes=None, size_hw=(96, 64))
    model = keras.Sequential(
        [keras.Input((96, 64, 3), name="photo"), trunk, layers.GlobalAveragePooling2D(), layers.Dense(5, name="out")]
    )
    summary = summarize(model)
    assert summary.parameters == model.count_params() == sum(row.parameters for row in summary.layers)
    assert next(iter(summary.layer("mobilenet_v2/features.18.1.relu6").fields.values())).size_hw == (491, 491)
    assert summary.layer("out").macs == 1280 * 5


def test_macs_by_kind_of_layer():
    x = image = keras.Input((20, 15, 6), name="image")
    x = layers.Conv2D(12, (3, 5), groups=3, padding="same", name="grouped")(x)
    x = layers.DepthwiseConv2D(3, 2, depth_multiplier=2, name="depthwise")(x)
    x = layers.SeparableConv2D(8, 3, padding="same", name="separable")(x)
    x = layers.Conv2DTranspose(4, 4, 2, padding="same", name="transposed")(x)
    x = Maxout(5, 3, name="maxout")(x)
    x = layers.Dense(7, name="dense")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = LocalResponseNormalization(name="lrn")(x)
    x = layers.Flatten()(CeilMaxPooling2D(3, 2, name="ceil")(LpPooling2D(2.0, 2, 1, name="lp")(x)))
    summary = summarize(keras.Model(image, layers.Dense(2, name="end")(x)))
    macs = {row.name: row.macs for row in summary.layers if row.macs}
    assert macs == {
        "grouped": 20 * 15 * 3 * 5 * 2 * 12,
        "depthwise": 9 * 7 * 3 * 3 * 12 * 2,
        "separable": 9 * 7 * (3 * 3 * 24 + 24 * 8),
        "transposed": 9 * 7 * 4 * 4 * 8 * 4,
        "maxout": 18 * 14 * 4 * 5 * 3,
        "dense": 18 * 14 * 5 * 7,
        "end": 8 * 6 * 7 * 2,
    }
    assert (summary.layer("lp").output_shape, summary.layer("ceil").output_shape) == ((17, 13, 7), (8, 6, 7))
    assert field_of(summary.layer("end")).covers((20, 15))


def test_what_is_not_known_is_said_and_stays_unknown():
    @keras.saving.register_keras_serializable(package="tests")
    class Swirl(layers.Layer):
        def build(self, _):
            self.turn = self.add_weight(shape=(3,))

        def call(self, x):
            return x * ops.sum(self.turn)

        def compute_output_shape(self, shape):
            return shape

    image = keras.Input((8, 9, 3), name="image")
    x = layers.Conv2D(4, 3, name="behind")(Swirl(name="swirl")(image))
    summary = summarize(keras.Model(image, x))
    assert summary.layer("swirl").notes == ("how this layer looks at its input is not known",)
    assert (summary.layer("swirl").fields, summary.layer("behind").fields) == (None, None)
    assert summary.unknown_macs == ("swirl",)
    assert summary.layer("behind").macs == 6 * 7 * 27 * 4


def test_raw_operations_are_walked_through():
    image = keras.Input((8, 9, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same")(image)
    x = ops.relu(x + 1.0) * 2.0
    x = ops.mean(x, axis=(1, 2))
    summary = summarize(keras.Model(image, x))
    assert field_of(summary.layers[-1]).size_hw == (8 + 2, 9 + 2)


def test_rules_of_size_are_shown():
    x = image = keras.Input((55, 57, 3), name="image")
    rows = [layers.MaxPooling2D(3, 2, name="valid"), CeilMaxPooling2D(3, 2, name="ceil")]
    rows.append(layers.MaxPooling2D(3, 2, padding="same", name="same"))
    summary = summarize(keras.Model(image, [row(x) for row in rows]))
    found = {
        n: (summary.layer(n).output_shape[:2], summary.layer(n).window.rounding) for n in ("valid", "ceil", "same")
    }
    assert found == {"valid": ((27, 28), "floor"), "ceil": ((27, 28), "ceil"), "same": ((28, 29), "same")}
    assert summary.layer("valid").window.divides
    assert not summarize(keras.Model(image, rows[0](x)), (56, 57)).layer("valid").window.divides
