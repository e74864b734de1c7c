"""The input rule as a graph: to the grey level what Python makes of the same image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from tests.export.unsaturated import pictures
from visionkit.export.rule_graph import RuleGraph
from visionkit.tasks.input_rule import InputRule

# Kept, enlarged, shrunk, shrunk by more than four (where whole pixels are averaged first), by two by two, thin.
SIZES = ((96, 80), (33, 50), (150, 117), (192, 160), (400, 333), (768, 640), (1000, 420), (7, 200))
RULES = {
    "stretch": {"resize": "stretch"},
    "letterbox": {"resize": "letterbox"},
    "the smallest that covers": {"resize": "shortest_side"},
    "a crop": {"resize": "shortest_side", "resize_size": 120},
    "a crop beyond the image": {"resize": "shortest_side", "resize_size": 60},
}


def traced(rule: InputRule) -> Callable[[np.ndarray], np.ndarray]:
    """The graph, traced once for every size: an image BGR (H, W, 3) to levels BGR (h, w, 3)."""
    spec = tf.TensorSpec((None, None, None, 3), tf.uint8)
    pixels = tf.function(RuleGraph(rule).pixels, input_signature=[spec])
    return lambda image: pixels(tf.constant(image[None, ..., ::-1])).numpy()[0, ..., ::-1]


@pytest.mark.parametrize("order", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("resize", RULES)
def test_levels_are_those_of_python(resize, order):
    rule = InputRule((96, 80), channel_order=order, mean=(120.2, 30.0, 40.0), std=(50.0, 60.0, 70.0), **RULES[resize])
    levels = traced(rule)
    for image in pictures(SIZES):
        apart = np.abs(levels(image) - rule.pixels(image))
        assert apart.max() <= 1  # where a value lies between two levels, rounding errors decide
        assert (apart > 0).mean() < 0.01


def test_the_plain_resize_of_tensorflow_would_not_do():
    """The known wrong variant: `tf.image.resize` of an image 12 times as large is off by more than a level."""
    rule = InputRule((40, 56))
    image = np.random.default_rng(0).integers(0, 256, (480, 700, 3), np.uint8)
    plain = np.rint(tf.image.resize(image[None], (40, 56), antialias=True).numpy())[0]
    assert np.abs(plain - rule.pixels(image)).max() > 1
    assert np.abs(traced(rule)(image) - rule.pixels(image)).max() <= 1


@pytest.mark.parametrize("order", ["rgb", "bgr", "gray"])
def test_inputs_of_the_right_size_are_equal(order):
    rule = InputRule((48, 64), channel_order=order, mean=(120.2, 30.0, 40.0), std=(50.0, 60.0, 70.0))
    image = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    found = RuleGraph(rule).inputs(tf.constant(image[None, ..., ::-1]), fixed=True).numpy()[0]
    np.testing.assert_allclose(found, rule(image), atol=1e-5)


def test_a_batch_is_resized_at_once():
    rule = InputRule((30, 50), "letterbox")
    images = pictures([(60, 40)] * 3)
    found = RuleGraph(rule).inputs(tf.constant(np.stack(images)[..., ::-1]), fixed=False).numpy()
    np.testing.assert_allclose(found, rule.batch(images), atol=0.02)
