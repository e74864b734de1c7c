"""FC -> CONV: windows of the map against crops (REFERENCE CNV-1, CNV-2), the known wrong variants, what is refused."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from visionkit import nets
from visionkit.errors import ModelError
from visionkit.nets.convolutionize import equals_crops, fully_convolutional, window_grid
from visionkit.runtime import compile_model

WINDOW = 188  # five valid 3x3 convolutions and 2x2 pools leave 3x3


def net(padding="valid", *, size_hw=(WINDOW, WINDOW), width=8, classes=7):
    """Five 3x3 convolutions with 2x2 pools and a flatten-dense head: (B, H, W, 3) -> logits (B, classes)."""
    image = keras.Input((*size_hw, 3), name="image")
    x = image
    for number in range(5):
        x = layers.Conv2D(width, 3, padding=padding, activation="relu", name=f"conv{number}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(16, activation="relu", name="fc")(x)
    x = layers.Dropout(0.5, name="drop")(x)
    return keras.Model(image, layers.Dense(classes, name="logits")(x), name="net")


def randomized(model, seed=0):
    """Weights with signs and sizes such that logits differ from window to window; also those that start at 0 or 1."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        name, shape = variable.path.rsplit("/", 1)[-1], tuple(variable.shape)
        if variable.dtype != "float32":
            continue
        if name in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) < 2:
            value = rng.normal(0, 0.1, shape)
        else:
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        variable.assign(value.astype(np.float32))
    return model


def frame(size_hw, seed=1, batch=1):
    return np.random.default_rng(seed).normal(size=(batch, *size_hw, 3)).astype(np.float32)


def windows_of(model, image, counts, stride):
    """(rows, columns, L): the classifier on each crop, one after the other in the image's order."""
    height, width = model.input_shape[1:3]
    crops = [
        image[0, r * stride : r * stride + height, c * stride : c * stride + width]
        for r in range(counts[0])
        for c in range(counts[1])
    ]
    answers = np.concatenate([model.predict_on_batch(np.stack(crops[i : i + 12])) for i in range(0, len(crops), 12)])
    return answers.reshape(*counts, -1)


def larger(model, rows, columns):
    """The size of an image with so many windows."""
    grid = window_grid(model)
    return grid.window_hw[0] + (rows - 1) * grid.stride_hw[0], grid.window_hw[1] + (columns - 1) * grid.stride_hw[1]


@pytest.fixture(scope="module")
def pad_free():
    return randomized(net())


@pytest.fixture(scope="module")
def crops(pad_free):
    """An image with 36 windows and the classifier's answers for their crops."""
    image = frame(larger(pad_free, 6, 6))
    return image, windows_of(pad_free, image, (6, 6), 32)


def test_36_windows_of_a_pad_free_net_are_their_crops(pad_free, crops):
    image, expected = crops
    found = fully_convolutional(pad_free, image.shape[1:3]).predict_on_batch(image)
    assert found.shape == (1, 6, 6, 7)
    assert np.abs(expected).mean() > 0.1
    assert np.abs(found[0] - expected).max() < 1e-5
    assert equals_crops(pad_free)[0]


def test_channel_first_flattening_is_far_off(pad_free, crops):
    image, expected = crops
    wrong = fully_convolutional(pad_free)
    kernel, bias = wrong.get_layer("fc").get_weights()
    flat = kernel.reshape(-1, kernel.shape[-1])
    wrong.get_layer("fc").set_weights([flat.reshape(8, 3, 3, -1).transpose(1, 2, 0, 3), bias])
    found = wrong.predict_on_batch(image)[0]
    assert np.abs(found - expected).max() > 0.3  # 0.79 in the reference's net


@pytest.mark.parametrize("offset", [(0, 1), (1, 0), (16, 16)])
def test_an_offset_of_the_windows_is_seen(pad_free, crops, offset):
    image, expected = crops
    moved = np.roll(image, offset, axis=(1, 2))
    found = fully_convolutional(pad_free).predict_on_batch(moved)[0]
    assert np.abs(found - expected).max() > 1e-2


def test_an_open_network_takes_any_size_and_keeps_the_model_as_it_was(pad_free):
    before = [weight.copy() for weight in pad_free.get_weights()]
    dense = fully_convolutional(pad_free)
    assert dense.input_shape == (None, None, None, 3)
    assert dense.input.name == "image"
    assert [layer.name for layer in dense.layers if "drop" in layer.name] == []
    image = frame((WINDOW + 64, WINDOW + 32 * 3), batch=2)
    found = dense.predict_on_batch(image)
    assert found.shape == (2, 3, 4, 7)
    assert np.abs(found[1, 2, 1] - pad_free.predict_on_batch(image[1:, 64:252, 32:220])[0]).max() < 1e-5
    dense.get_layer("conv0").set_weights([np.zeros_like(w) for w in dense.get_layer("conv0").get_weights()])
    assert all(np.array_equal(a, b) for a, b in zip(before, pad_free.get_weights(), strict=True))


def test_a_padded_net_is_told_with_the_name_of_its_layer():
    model = randomized(net("same", size_hw=(96, 96)))
    exact, reason = equals_crops(model)
    assert not exact
    assert "'conv0' (Conv2D)" in reason
    assert "by 1 on each side" in reason
    image = frame(larger(model, 3, 4))
    found = fully_convolutional(model, image.shape[1:3]).predict_on_batch(image)[0]
    expected = windows_of(model, image, (3, 4), 32)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() > 0.05  # the reference's net: 0.226 where the mean is 0.274


def test_same_windows_that_need_no_padding_are_none():
    image = keras.Input((64, 32, 3))
    x = layers.Conv2D(4, 1, padding="same")(image)
    x = layers.MaxPooling2D(2, padding="same")(x)  # 64 and 32 are even
    model = randomized(keras.Model(image, layers.Dense(3)(layers.Flatten()(x))))
    assert equals_crops(model)[0]
    picture = frame((64 + 6, 32 + 10))
    found = fully_convolutional(model, (70, 42)).predict_on_batch(picture)[0]
    assert np.abs(found - windows_of(model, picture, (4, 6), 2)).max() < 1e-5


def test_the_litert_runtime_gives_the_same_map(pad_free, crops, tmp_path):
    image, expected = crops
    model = fully_convolutional(pad_free, image.shape[1:3])
    with compile_model(model, runtime="litert", threads=1, cache_dir=tmp_path) as runner:
        assert list(runner.outputs) == ["logits"]
        assert np.abs(runner(image=image)["logits"][0] - expected).max() < 1e-5


def headed(head, *, size_hw=(40, 56), channels=6):
    """Two valid strided convolutions, then `head`: a network with stride 4 and H != W."""
    image = keras.Input((*size_hw, 3), name="image")
    x = layers.Conv2D(channels, 4, strides=2, activation="relu", name="a")(image)
    x = layers.Conv2D(channels, 3, strides=2, name="b")(x)
    return randomized(keras.Model(image, head(x)))


def global_average(x):
    x = layers.BatchNormalization(name="bn")(layers.GlobalAveragePooling2D(name="gap")(x))
    return layers.Dense(5, name="logits")(x)


def global_max(x):
    return layers.Dense(5, activation="softmax", name="logits")(layers.GlobalMaxPooling2D(keepdims=True)(x))


def keepdims_average_then_flatten(x):
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Flatten()(layers.Conv2D(9, 1, activation="relu")(x))
    return layers.Softmax(axis=1)(layers.Dense(5, name="logits")(x))


def reshape_as_flatten(x):
    x = layers.Reshape((-1,))(x)
    return layers.Dense(5, name="logits")(layers.ReLU()(layers.Dropout(0.3)(x)))


def two_paths(x):
    a = layers.Dense(4, activation="tanh")(layers.Flatten()(x))
    b = layers.BatchNormalization(axis=1)(layers.GlobalAveragePooling2D()(x))
    return layers.Dense(5, name="logits")(layers.Concatenate(axis=1)([a, b]))


def two_depths(x):
    """Means of a map of stride 4 and of one of stride 8: their windows are the same."""
    deeper = layers.Conv2D(5, 2, strides=2)(x)
    both = [layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(deeper)]
    return layers.Dense(5, name="logits")(layers.Concatenate()(both))


def convolution_to_one_cell(x):
    x = layers.Conv2D(7, tuple(x.shape[1:3]), activation="relu")(x)
    return layers.Dense(5, name="logits")(layers.Flatten()(x))


HEADS = [global_average, keepdims_average_then_flatten, reshape_as_flatten, two_paths, two_depths]
HEADS += [convolution_to_one_cell]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__)
def test_heads_of_many_kinds_keep_their_answers(head):
    model = headed(head)
    assert equals_crops(model)[0]
    stride = window_grid(model).stride_hw[0]
    assert stride == (8 if head is two_depths else 4)
    image = frame(larger(model, 3, 5))
    found = fully_convolutional(model).predict_on_batch(image)[0]
    assert np.abs(found - windows_of(model, image, (3, 5), stride)).max() < 1e-5


def test_global_max_pooling_of_a_map_ends_with_its_own_dense():
    model = headed(lambda x: layers.Flatten()(global_max(x)))
    image = frame(larger(model, 2, 3))
    found = fully_convolutional(model).predict_on_batch(image)[0]
    assert np.abs(found - windows_of(model, image, (2, 3), 4)).max() < 1e-5


@pytest.mark.parametrize("cells", [(2, 3), (9, 13), (11, 5)])
def test_adaptive_pooling_goes_into_the_kernel(cells):
    from visionkit.layers.pooling import AdaptiveAveragePooling2D

    def head(x):  # from a map of 9 x 13
        x = layers.Dropout(0.1)(AdaptiveAveragePooling2D(cells)(x))
        return layers.Dense(5, name="logits")(layers.Flatten()(x))

    model = headed(head)
    image = frame(larger(model, 3, 4))
    found = fully_convolutional(model).predict_on_batch(image)[0]
    assert np.abs(found - windows_of(model, image, (3, 4), 4)).max() < 1e-5


def test_several_heads_stay_several():
    def heads(x):
        x = layers.Flatten()(x)
        return {"kind": layers.Dense(4, name="logits_kind")(x), "colour": layers.Dense(3, name="logits_colour")(x)}

    model = headed(heads)
    image = frame(larger(model, 2, 3))
    found = fully_convolutional(model).predict_on_batch(image)
    assert {name: answer.shape for name, answer in found.items()} == {"kind": (1, 2, 3, 4), "colour": (1, 2, 3, 3)}
    crop = model.predict_on_batch(image[:, 4:44, 8:64])
    assert all(np.abs(found[name][0, 1, 2] - crop[name][0]).max() < 1e-5 for name in found)


def test_a_model_inside_a_model_is_walked_through():
    trunk = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(5, 3, strides=2), layers.MaxPooling2D(2)])
    model = keras.Sequential([keras.Input((31, 47, 3)), trunk, layers.Flatten(), layers.Dense(3, name="logits")])
    randomized(model)
    assert window_grid(model).stride_hw == (4, 4)
    image = frame((31 + 8, 47 + 4))
    found = fully_convolutional(model).predict_on_batch(image)[0]
    assert np.abs(found - windows_of(model, image, (3, 2), 4)).max() < 1e-5


def excited(x):
    """Squeeze and excitation: the map weighed by what its mean says."""
    weights = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    weights = layers.Conv2D(6, 1, activation="hard_sigmoid", name="excite")(weights)
    x = layers.Multiply(name="weigh")([x, weights])
    return layers.Dense(5, name="logits")(layers.GlobalAveragePooling2D(name="gap")(x))


def test_squeeze_and_excitation_looks_around_each_cell_and_is_told():
    model = headed(excited)
    exact, reason = equals_crops(model)
    assert not exact
    assert "'weigh' (Multiply)" in reason
    image = frame(larger(model, 12, 20)) + np.linspace(0, 3, 132, dtype=np.float32)[:, None]
    expected = windows_of(model, image, (12, 20), 4)
    near = np.abs(fully_convolutional(model).predict_on_batch(image)[0] - expected).mean()
    whole = np.abs(_whole_image_excitation(model, image) - expected).mean()
    assert near < 0.7 * whole  # the mean over the whole image would let every window weigh what others see


def test_squeeze_and_excitation_of_one_window_is_the_classifiers():
    model = headed(excited)
    image = frame((40, 56))
    expected = model.predict_on_batch(image)
    assert np.abs(fully_convolutional(model).predict_on_batch(image)[:, 0, 0] - expected).max() < 1e-5


def _whole_image_excitation(model, image):
    x = model.get_layer("b")(model.get_layer("a")(image))
    x = x * model.get_layer("excite")(keras.ops.mean(x, axis=(1, 2), keepdims=True))
    x = keras.ops.average_pool(x, (9, 13), 1)
    return np.asarray(keras.ops.matmul(x, model.get_layer("logits").kernel) + model.get_layer("logits").bias)[0]


def attention(x):
    tokens = layers.Reshape((-1, x.shape[-1]))(x)
    mixed = layers.Attention(name="look")([tokens, tokens])
    return layers.Dense(5)(layers.Flatten()(mixed))


def two_flattened(x):
    both = layers.Concatenate(name="join")([layers.Flatten()(x), layers.Flatten()(layers.ReLU()(x))])
    return layers.Dense(5)(both)


def scaled_flattened(x):
    return layers.Dense(5)(layers.BatchNormalization(name="scale")(layers.Flatten()(x)))


def no_head(x):
    return layers.ReLU(name="last")(x)


def ends_flat(x):
    return layers.Flatten(name="end")(x)


def upsampled(x):
    return layers.Dense(5)(layers.Flatten()(layers.UpSampling2D(2, name="up")(x)))


def tied_to_its_size(x):
    return layers.Dense(5)(layers.GlobalAveragePooling2D()(layers.PReLU(name="bent")(x)))


REFUSED = [
    (attention, "'reshape"),
    (two_flattened, "'join' (Concatenate) joins several"),
    (scaled_flattened, "'scale' (BatchNormalization) stands between"),
    (no_head, "'last' (ReLU) ends the network"),
    (ends_flat, "'end' (Flatten) ends the network"),
    (upsampled, "'up' (UpSampling2D) turns a map of (9, 13)"),
    (tied_to_its_size, "'bent' (PReLU) does not take a map of another size"),
]


@pytest.mark.parametrize(("head", "words"), REFUSED, ids=lambda value: getattr(value, "__name__", ""))
def test_what_cannot_be_turned_is_refused_by_its_layers_name(head, words):
    with pytest.raises(ModelError) as caught:
        fully_convolutional(headed(head))
    assert caught.value.slug == "model-not-dense"
    assert words in caught.value.message


def test_open_sizes_have_no_window():
    image = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    with pytest.raises(ModelError, match="fixed size"):
        fully_convolutional(keras.Model(image, layers.Dense(2)(x)))


def test_an_image_smaller_than_the_window_is_refused(pad_free):
    with pytest.raises(ValueError, match=r"`size_hw` must be at least the window \(188, 188\)"):
        fully_convolutional(pad_free, (187, 300))


def test_lenet5_pads_nothing_and_its_map_is_its_crops():
    model = randomized(nets.lenet5(classes=5))
    assert equals_crops(model)[0]
    assert window_grid(model).stride_hw == (4, 4)
    image = np.random.default_rng(0).normal(size=(1, 48, 60, 1)).astype(np.float32)
    found = fully_convolutional(model, (48, 60)).predict_on_batch(image)[0]
    assert np.abs(found - windows_of(model, image, (5, 8), 4)).max() < 1e-5


NETWORKS = [
    ("alexnet", (72, 104), "'features.0.pad' (ZeroPadding2D) pads its map by 2 on each side"),
    ("resnet18", (64, 96), "'conv1.pad' (ZeroPadding2D) pads its map by 3 on each side"),
    ("mobilenet_v3_small", (64, 96), "'features.0.0.pad' (ZeroPadding2D) pads its map by 1 on each side"),
]
LARGE_NETWORKS = [  # up to 100 million weights: half a minute each
    ("alexnet_2012", (99, 131), "'conv2' (Conv2D) pads its map by 2 on each side"),
    ("googlenet", (64, 96), "'conv1.conv.pad' (ZeroPadding2D) pads its map by 3 on each side"),
    ("vgg16", (64, 96), "'features.0' (Conv2D) pads its map by 1 on each side"),
]
NETWORKS += [pytest.param(*row, marks=pytest.mark.slow) for row in LARGE_NETWORKS]


@pytest.mark.parametrize(("name", "size_hw", "words"), NETWORKS)
def test_networks_of_the_house_answer_one_window_as_before(name, size_hw, words):
    model = randomized(getattr(nets, name)(classes=5, size_hw=size_hw))
    grid = window_grid(model)
    assert grid.stride_hw == (32, 32)
    assert words in (grid.edge or "")
    image = frame(size_hw)
    expected = model.predict_on_batch(image)
    dense = fully_convolutional(model)
    assert np.abs(dense.predict_on_batch(image)[:, 0, 0] - expected).max() < 1e-5 * np.abs(expected).max()
    larger_hw = (size_hw[0] + 32, size_hw[1] + 64)
    assert dense.compute_output_shape((1, *larger_hw, 3)) == (1, 2, 3, 5)
