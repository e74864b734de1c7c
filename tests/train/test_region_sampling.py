"""Regions for the second stage against a slow count, and anchors for the first (DET-6's sampler)."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from visionkit.geometry.box_codec import decode_boxes, encode_boxes
from visionkit.geometry.boxes import iou_pairwise
from visionkit.geometry.detection_rules import RCNNRule
from visionkit.train.detect_augment import DetectView
from visionkit.train.detect_rcnn import ANCHORS, IGNORED, MOST_OBJECTS, RCNNTargets
from visionkit.train.region_sampling import RegionSampling

SIZE = (96, 128)


def case(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Proposals (2, 60, 4), how many there are, and objects (2, 5, 5)."""
    rng = np.random.default_rng(seed)
    objects = np.full((2, 5, 5), -1, np.float32)
    boxes = np.zeros((2, 60, 4), np.float32)
    for k in range(2):
        start = rng.uniform(0, 60, (3, 2))
        objects[k, :3, 0] = [0, 2, IGNORED]
        objects[k, :3, 1:] = np.concatenate([start, start + rng.uniform(15, 35, (3, 2))], axis=1)
        near = objects[k, rng.integers(0, 3, 30), 1:] + rng.normal(0, 3, (30, 4))
        far = rng.uniform(0, 50, (30, 2))
        boxes[k] = np.concatenate([near, np.concatenate([far, far + rng.uniform(5, 40, (30, 2))], axis=1)])
    return boxes, np.array([60, 45], np.int32), objects


def sampled(regions: int, seed: int = 0) -> tuple[dict[str, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    given = case(seed)
    found = RegionSampling(regions)([ops.convert_to_tensor(x) for x in given])
    return {name: ops.convert_to_numpy(value) for name, value in found.items()}, given


@pytest.mark.parametrize("regions", [16, 40, 200])
def test_regions_have_the_class_that_a_slow_count_gives(regions: int) -> None:
    found, (boxes, count, objects) = sampled(regions)
    for k in range(2):
        real = objects[k, objects[k, :, 0] >= 0]
        passed = objects[k, objects[k, :, 0] == IGNORED, 1:]
        labels = found["labels"][k]
        assert (labels > 0).sum() <= regions // 4
        known = np.concatenate([boxes[k, : count[k]], real[:, 1:]])
        for box, label, change in zip(found["boxes"][k], labels, found["targets"][k], strict=True):
            if label < 0:
                continue
            assert (np.abs(known - box).max(axis=1) < 1e-4).any()  # a proposal that is there, or an object
            iou = iou_pairwise(box[None], real[:, 1:])[0]
            assert label == (real[iou.argmax(), 0] + 1 if iou.max() >= 0.5 else 0)
            if label > 0:
                back = decode_boxes(change, box, (10, 10, 5, 5))
                np.testing.assert_allclose(back, real[iou.argmax(), 1:], atol=1e-3)
            else:
                assert not change.any()
                sides = np.minimum(box[2:], passed[0, 2:]) - np.maximum(box[:2], passed[0, :2])
                assert np.maximum(sides, 0).prod() < 0.5 * (box[2:] - box[:2]).prod() + 1e-3
    if regions == 200:
        assert (found["labels"] == -1).any()  # there are not so many
    else:
        assert len(np.unique(found["boxes"][0], axis=0)) == regions  # none is drawn twice


def test_both_edge_pixels_counted() -> None:
    given = case()
    found = RegionSampling(40, pixel_offset=1, weights=(1, 1, 1, 1))([ops.convert_to_tensor(x) for x in given])
    labels, boxes, targets = (ops.convert_to_numpy(found[name]) for name in ("labels", "boxes", "targets"))
    real = given[2][0, :2, 1:]
    for box, change in zip(boxes[0][labels[0] > 0], targets[0][labels[0] > 0], strict=True):
        aim = real[iou_pairwise(box[None], real)[0].argmax()]
        np.testing.assert_allclose(change, encode_boxes(aim, box, pixel_offset=1), atol=1e-4)


def test_the_draw_depends_on_the_seed_and_passes_nothing_back() -> None:
    assert not np.array_equal(sampled(16)[0]["boxes"], RegionSampling(16, seed=3)([*case()])["boxes"])
    np.testing.assert_array_equal(sampled(16)[0]["boxes"], sampled(16)[0]["boxes"])
    with pytest.raises(ValueError, match="regions=0"):
        RegionSampling(0)


def targets_of(view: DetectView, *, pixel_offset: int = 0, seed: int = 0) -> tuple[RCNNTargets, np.ndarray]:
    rule = RCNNRule(anchor_sizes=((12.0,), (24.0,), (48.0,)), roi_levels=(2, 3), pixel_offset=pixel_offset)
    targets = RCNNTargets(rule, SIZE, [(24, 32), (12, 16), (6, 8)])
    return targets, targets(view, np.random.default_rng(seed))


def view_of(boxes: list[list[float]], ignored: list[bool] | None = None) -> DetectView:
    flags = np.array(ignored or [False] * len(boxes))
    image = np.zeros((*SIZE, 3), np.uint8)
    return DetectView(image, np.array(boxes, float).reshape(-1, 4), np.arange(len(boxes)), flags)


def test_targets_of_anchors() -> None:
    boxes = [[20.0, 20.0, 44.0, 44.0], [70.0, 30.0, 118.0, 78.0], [2.0, 2.0, 9.0, 8.0]]
    targets, out = targets_of(view_of(boxes))
    labels, anchors = out[: len(targets.anchors), 0], targets.anchors
    assert (labels >= 0).sum() == ANCHORS
    assert 0 < (labels == 1).sum() <= ANCHORS // 2
    iou = iou_pairwise(anchors, np.array(boxes))
    positive = np.flatnonzero(labels == 1)
    best = iou[positive].argmax(axis=1)
    assert set(best) == {0, 1, 2}  # the smallest, which no anchor overlaps by 0.7, has its best one
    assert iou[:, 2].max() < 0.7
    assert (iou[labels == 0].max(axis=1) < 0.3).all()
    back = decode_boxes(out[positive, 1:], anchors[positive])
    np.testing.assert_allclose(back, np.array(boxes)[best], atol=1e-3)
    rows = out[len(anchors) :]
    assert len(rows) == MOST_OBJECTS
    np.testing.assert_allclose(rows[:3, 1:], boxes)
    assert rows[:4, 0].tolist() == [0, 1, 2, -1]


def test_published_networks_drop_anchors_across_the_edge_and_ignored_objects_are_no_background() -> None:
    targets, out = targets_of(view_of([[20.0, 20.0, 44.0, 44.0]]), pixel_offset=1)
    labels = out[: len(targets.anchors), 0]
    outside = (targets.anchors[:, :2] < 0).any(axis=1) | (targets.anchors[:, 2:] > [SIZE[1], SIZE[0]]).any(axis=1)
    assert outside.any()
    assert (labels[outside] == -1).all()
    big = view_of([[20.0, 20.0, 44.0, 44.0], [50.0, 0.0, 128.0, 96.0]], [False, True])
    for seed in range(3):
        targets, out = targets_of(big, seed=seed)
        inside = (targets.anchors[:, 0] > 51) & (targets.anchors[:, 1] >= 0) & (targets.anchors[:, 2] <= 128)
        assert (out[: len(targets.anchors), 0][inside] != 0).all()
    assert out[len(targets.anchors) :, 0][:2].tolist() == [0, IGNORED]
