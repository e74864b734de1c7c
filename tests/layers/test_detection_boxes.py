"""Anchors, default boxes and the codec as layers: the same as their NumPy twins, under any policy."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.geometry.detection_cases import random_boxes
from visionkit.geometry.anchors import cell_anchors, faster_rcnn_anchors, shifted_anchors, ssd_boxes
from visionkit.geometry.box_codec import decode_boxes
from visionkit.layers import Anchors, BoxDecode, SSDBoxes


def test_anchors_are_those_of_geometry_at_fixed_and_open_sizes() -> None:
    cell = faster_rcnn_anchors()
    feature, image = np.zeros((2, 7, 10, 4), np.float32), np.zeros((2, 224, 330, 3), np.float32)
    expected = shifted_anchors(cell, (7, 10), (32, 33))
    np.testing.assert_array_equal(Anchors(cell)([feature, image]), expected)
    inputs = [keras.Input((None, None, 4)), keras.Input((None, None, 3))]
    model = keras.Model(inputs, Anchors(cell)(inputs))
    assert model.output_shape == (None, 4)
    np.testing.assert_array_equal(model([feature, image]), expected)
    assert Anchors(cell).compute_output_shape([(None, 7, 10, 4), (None, 224, 330, 3)]) == (630, 4)


def test_ssd_boxes_are_those_of_geometry() -> None:
    maps = [np.zeros((2, 5, 7, 4)), np.zeros((2, 3, 4, 4)), np.zeros((2, 40, 56, 3))]
    layer = SSDBoxes(ratios=[(2,), (2, 3)], scales=(0.1, 0.8))
    boxes = np.asarray(layer(maps))
    expected = ssd_boxes([(5, 7), (3, 4)], (40, 56), ratios=[(2,), (2, 3)], scales=(0.1, 0.8))
    np.testing.assert_array_equal(boxes, expected)
    assert layer.compute_output_shape([x.shape for x in maps]) == expected.shape
    with pytest.raises(ValueError, match="The maps' sizes must be fixed"):
        SSDBoxes()([keras.Input((None, 7, 4)), keras.Input((40, 56, 3))])


@pytest.mark.parametrize("pixel_offset", [0, 1])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_decoding_is_that_of_geometry(clip: float | None, pixel_offset: int) -> None:
    rng = np.random.default_rng(0)
    anchors, deltas = random_boxes(rng, 30, (60, 90)), rng.normal(size=(2, 30, 4)).astype(np.float32)
    layer = BoxDecode((10, 10, 5, 5), clip=clip, pixel_offset=pixel_offset)
    expected = decode_boxes(deltas, anchors, (10, 10, 5, 5), clip=clip, pixel_offset=pixel_offset)
    np.testing.assert_allclose(layer([deltas, anchors]), expected, atol=1e-4)
    both = np.stack([anchors, anchors + 3])
    expected = decode_boxes(deltas, both, (10, 10, 5, 5), clip=clip, pixel_offset=pixel_offset)
    np.testing.assert_allclose(layer([deltas, both]), expected, atol=1e-4)


def test_a_box_for_each_class_cut_to_the_image() -> None:
    rng = np.random.default_rng(1)
    anchors, deltas = random_boxes(rng, 30, (60, 90), 20), rng.normal(size=(2, 30, 12)).astype(np.float32)
    sizes = np.array([[60, 90], [50, 40]], np.float32)
    layer = BoxDecode(classes=3)
    boxes = np.asarray(layer([deltas, np.stack([anchors, anchors]), sizes]))
    expected = decode_boxes(deltas.reshape(2, 30, 3, 4), anchors[:, None])
    for image, (height, width) in enumerate(sizes):
        np.testing.assert_allclose(boxes[image], np.clip(expected[image], 0, [width, height] * 2), atol=1e-4)
    assert layer.compute_output_shape([(None, 30, 12), (None, 30, 4), (None, 2)]) == (None, 30, 3, 4)


def test_boxes_stay_float32_under_a_mixed_policy() -> None:
    maps = [np.zeros((1, 7, 130, 4)), np.zeros((1, 224, 4160, 3))]
    cell = cell_anchors([33], [0.5, 1])
    anchors = Anchors(cell, dtype="mixed_float16")(maps)
    assert anchors.dtype == "float32"
    np.testing.assert_array_equal(anchors, shifted_anchors(cell, (7, 130), (32, 32)))  # 4129 is none of float16's
    deltas = np.zeros((1, 7 * 130 * 2, 4), np.float16)
    decoded = BoxDecode(dtype="mixed_float16")([deltas, anchors])
    assert decoded.dtype == "float32"
    np.testing.assert_allclose(decoded[0], anchors, atol=1e-3)
    assert BoxDecode(dtype="mixed_float16")([keras.Input((5, 4)), keras.Input((5, 4))]).dtype == "float32"


@pytest.mark.parametrize(
    "layer",
    [
        Anchors([[0, 0, 4, 5]], name="a"),
        SSDBoxes((2,), (0.1, 0.5), clip=False, name="b"),
        BoxDecode((10, 10, 5, 5), clip=2.0, pixel_offset=1, classes=3, name="c"),
    ],
)
def test_config_round_trip(layer: keras.layers.Layer) -> None:
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Anchors([1, 2, 3, 4]), r"`cell` must be \(A, 4\)"),
        (lambda: Anchors([[1, 2, 3, 4]])([np.zeros((1, 2, 2, 1))]), "a list of maps"),
        (lambda: BoxDecode((1, 1, 1)), "four positive numbers"),
        (lambda: BoxDecode()([np.zeros((1, 3, 8)), np.zeros((3, 4))]), r"Deltas must be \(B, N, 4\)"),
    ],
)
def test_bad_arguments_are_named(call: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()  # type: ignore[operator]
