"""Selection of proposals against one level after another by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.geometry.detection_cases import slow_nms
from visionkit.geometry.anchors import cell_anchors, shifted_anchors
from visionkit.geometry.box_codec import decode_boxes
from visionkit.geometry.proposals import select_proposals

GRIDS = [(8, 12), (4, 6)]


def case() -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    anchors = [
        shifted_anchors(cell_anchors([size], [0.5, 1, 2]), grid, (64 // grid[0], 96 // grid[1]))
        for size, grid in zip((16, 32), GRIDS, strict=True)
    ]
    objectness = [rng.normal(size=(*grid, 3)).astype(np.float32) * 2 for grid in GRIDS]
    deltas = [rng.normal(size=(*grid, 12)).astype(np.float32) * 0.4 for grid in GRIDS]
    return objectness, deltas, anchors


def test_as_level_by_level_by_hand() -> None:
    objectness, deltas, anchors = case()
    found = []
    for logits, change, base in zip(objectness, deltas, anchors, strict=True):
        order = np.argsort(-logits.ravel())[:50]
        boxes = decode_boxes(change.reshape(-1, 4)[order], base[order])
        boxes = np.clip(boxes, 0, [90, 60, 90, 60])
        probs = 1 / (1 + np.exp(-logits.ravel()[order]))
        good = ((boxes[:, 2:] - boxes[:, :2]) >= 3).all(1) & (probs >= 0.4)
        boxes, probs = boxes[good], probs[good]
        kept = slow_nms(boxes, probs, 0.6)
        found += list(zip(probs[kept], boxes[kept], strict=True))
    found.sort(key=lambda pair: -pair[0])
    boxes, scores = select_proposals(
        objectness, deltas, anchors, (60, 90), pre_nms=50, post_nms=30, nms=0.6, min_size=3, score=0.4
    )
    assert len(boxes) == 30 < len(found)
    np.testing.assert_allclose(scores, [pair[0] for pair in found[:30]], rtol=1e-6)
    np.testing.assert_allclose(boxes, [pair[1] for pair in found[:30]], atol=1e-4)
    assert boxes[:, [0, 2]].max() <= 90 < 96


def test_one_level_with_pixel_offset_is_the_published_form() -> None:
    anchors = [np.array([[-10, -10, 200, 200], [20, 30, 34, 44]], np.float32)]
    logits, deltas = [np.array([2.0, 1.0])], [np.zeros((2, 4))]
    boxes, scores = select_proposals(logits, deltas, anchors, (64, 96), pre_nms=6000, post_nms=300, min_size=15)
    np.testing.assert_allclose(boxes, [[0, 0, 96, 64]])
    np.testing.assert_allclose(scores, [1 / (1 + np.exp(-2))])
    boxes, _ = select_proposals(
        logits, deltas, anchors, (64, 96), pre_nms=6000, post_nms=300, min_size=15, delta_clip=None, pixel_offset=1
    )
    # the last pixel, not the edge behind it; 14 + 1 is large enough; decoded one pixel longer
    np.testing.assert_allclose(boxes, [[0, 0, 95, 63], [20, 30, 35, 45]])


def test_bad_levels_are_named() -> None:
    objectness, deltas, anchors = case()
    with pytest.raises(ValueError, match=r"one for each level\. Received: 2, 1 and 2"):
        select_proposals(objectness, deltas[:1], anchors, (64, 96), pre_nms=5, post_nms=5)
    with pytest.raises(ValueError, match="A level's `deltas` must be four"):
        select_proposals(objectness, deltas[::-1], anchors, (64, 96), pre_nms=5, post_nms=5)
    with pytest.raises(ValueError, match=r"must be positive\. Received: 0 and 5"):
        select_proposals(objectness, deltas, anchors, (64, 96), pre_nms=0, post_nms=5)
