"""Receptive fields proved by gradients (INS-3): positive weights, averages in the place of maxima, so that every pixel
which a feature can see moves it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from visionkit.inspection import summarize
from visionkit.layers.pooling import AdaptiveAveragePooling2D, CeilAveragePooling2D
from visionkit.runtime.gradients import gradient

POSITIVE = keras.initializers.Constant(0.1)


def conv(filters, kernel, stride=1, **options):
    return layers.Conv2D(filters, kernel, stride, kernel_initializer=POSITIVE, **{"padding": "same", **options})


def vgg_trunk(size_hw):
    """VGG-16's convolutions and pools, two channels wide."""
    x = image = keras.Input((*size_hw, 1), name="image")
    for block, count in enumerate((2, 2, 3, 3), 1):
        for _ in range(count):
            x = conv(2, 3)(x)
        x = layers.AveragePooling2D(2, name=f"pool{block}")(x)
    return keras.Model(image, x)


def seen(model, name, y, x):
    """First and last row and column with a gradient of the feature (y, x) of layer `name`, not 0."""
    part = keras.Model(model.inputs, model.get_layer(name).output)
    at = np.ones((1, *model.inputs[0].shape[1:]), np.float32)
    _, slope = gradient(lambda image: part(image)[:, y, x, :], at)
    rows, columns = np.nonzero(np.abs(slope[0]).sum(axis=-1))
    return (rows.min(), rows.max()), (columns.min(), columns.max())


def told(model, name, y, x, *, cut=True):
    """The same by the formula, cut to the image."""
    field = next(iter(summarize(model).layer(name).fields.values()))
    found = []
    for axis, position, size in zip((field.h, field.w), (y, x), model.inputs[0].shape[1:3], strict=True):
        first, last = axis.first + position * axis.stride, axis.last + position * axis.stride
        found.append((max(first, 0), min(last, size - 1)) if cut else (first, last))
    return tuple(found)


@pytest.mark.parametrize(("name", "size"), [("pool1", 6), ("pool2", 16), ("pool3", 44), ("pool4", 100)])
def test_vgg_sees_what_the_formula_says(name, size):
    model = vgg_trunk((160, 144))
    _, height, width, _ = model.get_layer(name).output.shape
    y, x = height // 2, width // 2
    found = seen(model, name, y, x)
    assert found == told(model, name, y, x, cut=False)
    assert [last - first + 1 for first, last in found] == [size, size]
    # where it lies, not only how large it is
    field = next(iter(summarize(model).layer(name).fields.values()))
    assert field.center_hw(y, x) == tuple((first + last) / 2 for first, last in found)


def build(size_hw, body):
    image = keras.Input((*size_hw, 1), name="image")
    return keras.Model(image, layers.Activation("linear", name="end")(body(image)))


def residual(x):
    for stride in (2, 1, 2):
        y = layers.ZeroPadding2D(1)(x)
        y = conv(2, 3, stride, padding="valid")(y)
        y = conv(2, 3)(y)
        x = layers.Add()([y, conv(2, 1, stride)(x)])
    return x


def inception(x):
    x = conv(2, 7, 2, padding="valid")(x)
    x = CeilAveragePooling2D(3, 2)(x)
    branches = [conv(2, 1)(x), conv(2, 3)(x), conv(2, 5)(x), layers.AveragePooling2D(3, 1, padding="same")(x)]
    return layers.Concatenate()(branches)


def lopsided(x):
    """ "same" with stride 2 pads below and right only where the size is even; branches of different extents."""
    y = conv(2, (3, 5), 2)(x)
    y = layers.ZeroPadding2D(((0, 1), (2, 0)))(y)
    y = conv(2, 3, 2, padding="valid")(y)
    return layers.Add()([y, conv(2, 1, 4)(layers.Cropping2D(((0, 1), (0, 0)))(x))])


def dilated(x):
    x = conv(2, 3, dilation_rate=2)(x)
    return conv(2, (1, 3), dilation_rate=4, padding="valid")(layers.AveragePooling2D((3, 2))(x))


@pytest.mark.parametrize(
    ("body", "size_hw"),
    [
        (residual, (60, 52)),
        (residual, (61, 51)),
        (inception, (51, 61)),  # where floor drops a row, a window of ceil does not see it either
        (lopsided, (41, 40)),
        (lopsided, (40, 36)),
        (dilated, (40, 44)),
        (lambda x: AdaptiveAveragePooling2D((6, 4))(conv(2, 3)(x)), (24, 32)),
    ],
)
def test_every_position_of_a_branching_network(body, size_hw):
    model = build(size_hw, body)
    _, height, width, _ = model.outputs[0].shape
    for y in (0, height // 2, height - 1):
        for x in (0, width // 2, width - 1):
            assert seen(model, "end", y, x) == told(model, "end", y, x), (y, x)


@pytest.mark.parametrize(
    "body",
    [
        lambda x: conv(2, 3)(layers.UpSampling2D(2)(conv(2, 3, 2)(x))),
        lambda x: layers.UpSampling2D(2, interpolation="bilinear")(conv(2, 3, 2, padding="valid")(x)),
        lambda x: layers.Conv2DTranspose(2, 4, 2, padding="same", kernel_initializer=POSITIVE)(conv(2, 3, 2)(x)),
        lambda x: layers.Conv2DTranspose(2, (5, 3), (3, 2), padding="same", kernel_initializer=POSITIVE)(x),
        lambda x: layers.Conv2DTranspose(2, 3, 2, kernel_initializer=POSITIVE)(conv(2, 3, 2)(x)),
        lambda x: AdaptiveAveragePooling2D((19, 20))(x),
        lambda x: layers.Resizing(17, 31)(x),
    ],
)
def test_behind_an_upsampling_the_extent_holds_every_phase(body):
    model = build((24, 26), body)
    assert next(iter(summarize(model).layer("end").fields.values())).bound
    _, height, width, _ = model.outputs[0].shape
    slack = []
    for i in range(9):  # along the diagonal of the middle, through every phase
        y, x = height // 3 + i, width // 3 + i
        for found, extent in zip(seen(model, "end", y, x), told(model, "end", y, x), strict=True):
            slack += [found[0] - extent[0], extent[1] - found[1]]
    assert min(slack) >= 0
    assert max(slack) <= 4  # no looser than a cell of two pixels on each side of the two cells that mix


def test_squeeze_and_excitation_sees_everything():
    def body(x):
        x = conv(2, 3)(x)
        gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
        return layers.Multiply()([x, conv(2, 1, activation="sigmoid")(gate)])

    model = build((20, 24), body)
    field = next(iter(summarize(model).layer("end").fields.values()))
    assert (field.size_hw, field.stride_hw, field.whole) == ((3, 3), (1, 1), True)
    assert seen(model, "end", 0, 0) == ((0, 19), (0, 23))


def test_branches_that_do_not_lie_over_each_other_are_told():
    """Over an even map "same" of 3 with stride 2 is centred half a cell beyond the strided 1x1 of the shortcut."""

    def body(x):
        return layers.Add(name="sum")([conv(2, 3, 2)(x), conv(2, 1, 2)(x)])

    assert summarize(build((20, 24), body)).layer("sum").notes == (
        "misaligned: the branches' centres are 1 pixels apart",
    )
    assert summarize(build((21, 25), body)).layer("sum").notes == ()


def test_a_dense_layer_sees_the_whole_map():
    image = keras.Input((12, 10, 1), name="image")
    x = layers.Flatten()(conv(2, 3, 2, padding="valid")(image))
    model = keras.Model(image, layers.Dense(3, name="end")(layers.Dropout(0.5)(x)))
    row = summarize(model).layer("end")
    assert row.fields["image"].size_hw == (3 + 4 * 2, 3 + 3 * 2)
    assert row.macs == 5 * 4 * 2 * 3
