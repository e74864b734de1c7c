"""Dead and saturated units, first filters, and evidence that lies where it was put."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from visionkit import nets
from visionkit.errors import ModelError, UsageError
from visionkit.inspection.activations import activation_facts
from visionkit.inspection.explain import best_class, explain
from visionkit.inspection.filters import filter_grid, first_filters
from visionkit.inspection.running import run
from visionkit.runtime.gradients import gradient


def test_running_by_hand_is_the_model():
    rng = np.random.default_rng(0)
    model = nets.siambox()
    inputs = [rng.uniform(0, 255, (1, *tensor.shape[1:])).astype(np.float32) for tensor in model.inputs]
    ours = run(model, inputs)
    theirs = model({tensor.name: value for tensor, value in zip(model.inputs, inputs, strict=True)}, training=False)
    assert set(ours) == set(theirs)
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-5)


def test_the_gradient_is_the_gradient():
    at = np.array([[1.0, 2.0, 3.0]], np.float32)
    value, slope = gradient(lambda x: x * x * x, at)
    np.testing.assert_allclose(value, at**3)
    np.testing.assert_allclose(slope, 3 * at**2)
    assert not gradient(lambda x: keras.ops.ones((2,)), at)[1].any()  # what does not depend on it


# activations


def known_units():
    """A rectified 1x1 convolution with units that are x, -x, x - 9 and -1; a sigmoid of 20 x; a tanh of x / 10."""
    image = keras.Input((4, 5, 1), name="image")
    conv = layers.Conv2D(4, 1, activation="relu", name="rectified")
    sigmoid, tanh = layers.Conv2D(1, 1, activation="sigmoid", name="steep"), layers.Conv2D(1, 1, name="flat")
    model = keras.Model(image, [conv(image), sigmoid(image), layers.Activation("tanh", name="tanh")(tanh(image))])
    conv.set_weights([np.array([1, -1, 1, 0], np.float32).reshape(1, 1, 1, 4), np.array([0, 0, -9, -1], np.float32)])
    sigmoid.set_weights([np.full((1, 1, 1, 1), 20, np.float32), np.zeros(1, np.float32)])
    tanh.set_weights([np.full((1, 1, 1, 1), 0.1, np.float32), np.zeros(1, np.float32)])
    return model


def test_dead_and_saturated_units_are_counted():
    images = [np.full((1, 4, 5, 1), 2.0, np.float32), np.full((1, 4, 5, 1), 5.0, np.float32)]
    images[0][0, 0, 0] = 0.0  # the one pixel where the sigmoid is not saturated
    facts = {row.name: row for row in activation_facts(known_units(), images)}
    rectified = facts["rectified"]
    assert (rectified.function, rectified.units, rectified.dead) == ("relu", 4, 3)  # only x is ever above 0
    assert rectified.zeros == pytest.approx((3 * 40 + 1) / 160)
    assert facts["steep"].saturated == pytest.approx(39 / 40)
    assert (facts["tanh"].function, facts["tanh"].saturated, facts["tanh"].dead) == ("tanh", 0.0, None)


def test_a_unit_that_lives_on_one_image_is_not_dead():
    images = [np.full((1, 4, 5, 1), value, np.float32) for value in (2.0, -2.0, 10.0)]
    (rectified,) = [row for row in activation_facts(known_units(), images) if row.name == "rectified"]
    assert rectified.dead == 1


def test_leaky_units_do_not_die():
    image = keras.Input((4, 5, 1), name="image")
    x = layers.LeakyReLU(name="leaky")(layers.Conv2D(2, 1)(image))
    model = keras.Model(image, layers.ReLU(negative_slope=0.1, name="sloped")(x))
    assert activation_facts(model, [np.ones((1, 4, 5, 1), np.float32)]) == []


def test_activations_inside_nested_models_are_seen():
    inner = nets.siamfc_branch()
    image = keras.Input((95, 101, 3), name="image")
    facts = activation_facts(keras.Model(image, inner(image)), [np.ones((1, 95, 101, 3), np.float32)])
    assert [row.name for row in facts] == [f"branch/relu{i}" for i in range(1, 5)]


# filters


def test_filters_are_shown_in_colour():
    kernel = np.zeros((2, 3, 3, 2), np.float32)
    kernel[0, 0, 0, 0] = 1.0  # red in the corner of the first
    grid = filter_grid(kernel, tile=3)
    tile = grid[2:4, 2:5]
    assert tile[0, 0].tolist() == [0, 0, 255]  # BGR
    assert not tile.reshape(-1, 3)[1:].any()
    assert filter_grid(kernel, tile=3, order="bgr")[2, 2].tolist() == [255, 0, 0]
    # the second is the same everywhere: mid grey
    assert (grid[grid.shape[0] // 2 :] == 128).any() or (grid[:, grid.shape[1] // 2 :] == 128).any()


def test_filters_of_many_channels_and_of_one_are_grey():
    for channels in (1, 7):
        grid = filter_grid(np.random.default_rng(0).normal(size=(5, 5, channels, 6)).astype(np.float32))
        assert (grid[..., 0] == grid[..., 2]).all()
        assert len(np.unique(grid)) > 20


def test_the_first_convolution_is_found_in_a_nested_model():
    name, kernel = first_filters(nets.siamfc())
    assert (name, kernel.shape) == ("branch/conv1", (11, 11, 3, 96))
    image = keras.Input((8, 9, 3))
    with pytest.raises(ModelError, match="no convolution"):
        first_filters(keras.Model(image, layers.Flatten()(image)))


# explanations


def corner_network():
    """Class 0 counts red, class 1 green, class 2 is against blue: the evidence lies where the colour lies."""
    x = image = keras.Input((32, 48, 3), name="image")
    conv = layers.Conv2D(3, 3, padding="same", activation="relu", use_bias=False, name="conv")
    x = layers.MaxPooling2D(4, name="pool")(conv(image))
    x = layers.GlobalAveragePooling2D()(x)
    dense = layers.Dense(3, name="logits")
    model = keras.Model(image, dense(x))
    kernel = np.zeros((3, 3, 3, 3), np.float32)
    for channel in range(3):
        kernel[1, 1, channel, channel] = 1.0
    conv.set_weights([kernel])
    dense.set_weights([np.diag([1.0, 1.0, -1.0]).astype(np.float32), np.zeros(3, np.float32)])
    return model


def spots():
    """Red top left, green bottom right."""
    image = np.zeros((32, 48, 3), np.float32)
    image[4:12, 4:12, 0] = 1.0
    image[20:28, 32:44, 1] = 1.0
    return image


@pytest.mark.parametrize("method", ["gradcam", "guided"])
@pytest.mark.parametrize(("class_id", "rows", "columns"), [(0, (4, 12), (4, 12)), (1, (20, 28), (32, 44))])
def test_the_evidence_is_where_the_colour_is(method, class_id, rows, columns):
    made = explain(corner_network(), spots(), class_id, gradient=gradient, method=method)
    height, width = made.heat.shape
    assert (made.heat.min(), made.heat.max()) == (0, 1)
    inside = np.zeros((32, 48), bool)
    inside[slice(*rows), slice(*columns)] = True
    heat = made.heat.repeat(32 // height, axis=0).repeat(48 // width, axis=1)
    assert heat[inside].sum() / heat.sum() > 0.99
    assert made.layer == ("pool" if method == "gradcam" else "input")


def test_what_speaks_against_a_class_is_no_evidence():
    image = spots()
    image[:8, 40:, 2] = 1.0
    assert not explain(corner_network(), image, 2, gradient=gradient).heat.any()


def test_the_score_is_the_logit():
    model, image = corner_network(), spots()
    logits = np.asarray(model(image[None]))[0]
    assert explain(model, image, 1, gradient=gradient).score == pytest.approx(logits[1])
    assert best_class(model, image) == int(logits.argmax()) == 1


def test_guided_drops_what_came_back_negative():
    """y = relu(x); logit = y0 - y1: the plain gradient is -1 at x1, which guided backpropagation does not let pass."""
    image = keras.Input((1, 2, 1), name="image")
    x = layers.Flatten()(layers.ReLU()(image))
    dense = layers.Dense(2, use_bias=False, name="logits")
    model = keras.Model(image, dense(x))
    dense.set_weights([np.array([[1, 0], [-1, 0]], np.float32)])
    made = explain(model, np.array([[[2.0], [3.0]]], np.float32), 0, gradient=gradient, method="guided")
    assert made.heat.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("method", ["gradcam", "guided"])
def test_other_weights_give_another_map(method):
    """The randomisation check of Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018."""
    image = np.random.default_rng(1).normal(size=(64, 96, 3)).astype(np.float32)
    maps = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        model = nets.resnet18(size_hw=(64, 96), classes=4)
        maps.append(explain(model, image, 2, gradient=gradient, method=method, layer="layer3.1.relu"
                            if method == "gradcam" else None).heat)  # fmt: skip
    assert np.abs(maps[0] - maps[1]).mean() > 0.02
    again = explain(model, image, 2, gradient=gradient, method=method, layer="layer3.1.relu"
                    if method == "gradcam" else None).heat  # fmt: skip
    np.testing.assert_allclose(again, maps[1], atol=1e-5)


def test_heads_and_layers_are_named():
    model = nets.lenet5(classes={"digit": 10, "ink": 2})
    image = np.random.default_rng(0).normal(size=(32, 32, 1)).astype(np.float32)
    assert explain(model, image, 1, gradient=gradient, head="ink", layer="s4").layer == "s4"
    for arguments, slug in (
        ({"head": "colour"}, "head-unknown"),
        ({"head": "ink", "class_id": 2}, "class-unknown"),
        ({"layer": "s9"}, "layer-unknown"),
    ):
        with pytest.raises(UsageError) as caught:
            explain(model, image, arguments.pop("class_id", 1), gradient=gradient, **arguments)
        assert caught.value.slug == slug
    with pytest.raises(ValueError, match="gradcam, guided"):
        explain(model, image, 1, gradient=gradient, method="magic")
