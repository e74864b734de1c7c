"""DET-2: the box codec by hand, there and back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.geometry.detection_cases import random_boxes
from visionkit.geometry.box_codec import decode_boxes, encode_boxes

ANCHOR = [10, 20, 30, 60]  # centre (20, 40), 20 x 40
BOX = [20, 30, 60, 50]  # centre (40, 40), 40 x 20
DELTAS = [20 / 20, 0, math.log(2), -math.log(2)]


def test_det2_by_hand() -> None:
    np.testing.assert_allclose(encode_boxes([BOX], [ANCHOR]), [DELTAS], atol=1e-6)
    weighed = np.array(DELTAS) * (10, 10, 5, 5)
    np.testing.assert_allclose(encode_boxes([BOX], [ANCHOR], (10, 10, 5, 5)), [weighed], atol=1e-6)
    np.testing.assert_allclose(decode_boxes([weighed], [ANCHOR], (10, 10, 5, 5)), [BOX], atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_det2_there_and_back(dtype: type) -> None:
    rng = np.random.default_rng(0)
    boxes, anchors = (random_boxes(rng, 200, (90, 160), 20).astype(dtype) for _ in range(2))
    again = decode_boxes(encode_boxes(boxes, anchors, (10, 10, 5, 5)), anchors, (10, 10, 5, 5), clip=None)
    assert again.dtype == dtype
    assert np.abs(again - boxes).max() < (1e-4 if dtype is np.float32 else 1e-11)  # pixels, of 160
    assert np.abs(again - boxes).max() / 160 < 1e-5


def test_det2_widths_and_heights_swapped_or_one_pixel_more_are_seen() -> None:
    swapped = np.array(DELTAS)[[0, 1, 3, 2]]
    assert np.abs(decode_boxes([swapped], [ANCHOR]) - BOX).max() > 10
    assert np.abs(encode_boxes([BOX], [ANCHOR], pixel_offset=1) - DELTAS).max() > 0.02
    mixed = decode_boxes(encode_boxes([BOX], [ANCHOR], pixel_offset=1), [ANCHOR])
    assert np.abs(mixed - BOX).max() > 0.4


def test_pixel_offset_is_py_faster_rcnns() -> None:
    # widths 21 and 41: centres 10 + 10.5 and 20 + 20.5
    deltas = encode_boxes([[20, 30, 60, 50]], [ANCHOR], pixel_offset=1)
    expected = [(40.5 - 20.5) / 21, (40.5 - 40.5) / 41, math.log(41 / 21), math.log(21 / 41)]
    np.testing.assert_allclose(deltas, [expected], atol=1e-6)
    # its decoding leaves the edge behind the last pixel: one more right and below
    np.testing.assert_allclose(decode_boxes(deltas, [ANCHOR], pixel_offset=1), [[20, 30, 61, 51]], atol=1e-5)


def test_growth_is_clipped() -> None:
    grown = decode_boxes([[0, 0, 50, 50]], [ANCHOR])
    np.testing.assert_allclose(grown[0, 2:] - grown[0, :2], np.array([20, 40]) * 62.5, rtol=1e-6)
    assert np.isfinite(decode_boxes([[0, 0, 1000, 1000]], [ANCHOR])).all()
    free = decode_boxes([[0, 0, 5, -50]], [ANCHOR], clip=None)[0]
    np.testing.assert_allclose(free[2:] - free[:2], [20 * math.exp(5), 0], rtol=1e-5, atol=1e-6)


def test_one_box_for_each_class() -> None:
    rng = np.random.default_rng(0)
    deltas, anchors = rng.normal(size=(5, 3, 4)), random_boxes(rng, 5, (50, 80))
    boxes = decode_boxes(deltas, anchors[:, None])
    assert boxes.shape == (5, 3, 4)
    np.testing.assert_array_equal(boxes[:, 1], decode_boxes(deltas[:, 1], anchors))
    assert decode_boxes(np.zeros((0, 4)), np.zeros((0, 4))).shape == (0, 4)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"`boxes` must have an area\. Received: 1 without"):
        encode_boxes([BOX, [5, 5, 5, 9]], [ANCHOR])
    with pytest.raises(ValueError, match="`anchors` must have an area"):
        encode_boxes([BOX], [[5, 5, 1, 9]])
    with pytest.raises(ValueError, match=r"`deltas` must be \(\.\.\., 4\)"):
        decode_boxes([[0, 0, 0]], [ANCHOR])
