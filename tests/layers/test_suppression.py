"""Suppression and selection of proposals over a batch: the same as their NumPy twins, padded to fixed sizes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from tests.geometry.detection_cases import random_boxes
from visionkit.geometry.anchors import cell_anchors, shifted_anchors
from visionkit.geometry.nms import class_nms
from visionkit.geometry.proposals import select_proposals
from visionkit.layers import NonMaximumSuppression, ProposalSelection
from visionkit.layers.rows import kept_greedily

BATCH, COUNT, CLASSES = 3, 90, 4


def arrays(results: dict[str, Any]) -> dict[str, np.ndarray]:
    return {key: np.asarray(value) for key, value in results.items()}


def case(per_class: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    boxes = np.stack([random_boxes(rng, COUNT * CLASSES, (60, 90)) for _ in range(BATCH)])
    boxes = boxes.reshape(BATCH, COUNT, CLASSES, 4)
    scores = rng.uniform(size=(BATCH, COUNT, CLASSES)).astype(np.float32) ** 2
    scores[1] *= 0.11  # few
    scores[2] = 0  # none
    return (boxes if per_class else np.ascontiguousarray(boxes[:, :, 0])), scores


def check(found: dict[str, np.ndarray], boxes: np.ndarray, scores: np.ndarray, max_det: int) -> None:
    """The layer's results against the twin's, image by image, at IoU .4 and scores above .1."""
    for image in range(BATCH):
        flat = scores[image].ravel()
        good = np.flatnonzero(flat > 0.1)
        every = np.broadcast_to(boxes[image] if boxes.ndim == 4 else boxes[image][:, None], (COUNT, CLASSES, 4))
        every = every.reshape(-1, 4)
        kept = good[class_nms(every[good], flat[good], good % CLASSES, 0.4, limit=max_det)]
        count = int(found["count"][image])
        assert count == len(kept)
        np.testing.assert_array_equal(found["index"][image, :count], kept // CLASSES)
        np.testing.assert_array_equal(found["class_id"][image, :count], kept % CLASSES)
        np.testing.assert_array_equal(found["scores"][image, :count], flat[kept])
        np.testing.assert_array_equal(found["boxes"][image, :count], every[kept])
        for key in ("boxes", "scores", "class_id", "index"):
            assert not found[key][image, count:].any()
            assert found[key].shape[:2] == (BATCH, max_det)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("options", [{}, {"per_class": COUNT}, {"candidates": 10**6}])
@pytest.mark.parametrize("max_det", [20, 400])
def test_as_image_by_image(own: bool, options: dict[str, int], max_det: int) -> None:
    boxes, scores = case(own)
    found = arrays(NonMaximumSuppression(max_det, 0.4, score_threshold=0.1, **options)([boxes, scores]))
    check(found, boxes, scores, max_det)
    assert 0 < found["count"][1] < found["count"][0]
    assert found["count"][2] == 0


def test_a_layer_that_mixes_classes_would_be_seen() -> None:
    boxes, scores = case(False)
    found = arrays(NonMaximumSuppression(400, 0.4, score_threshold=0.1)([boxes, scores]))
    mixed = np.asarray(kept_greedily(boxes, scores.max(-1) > 0.1, 0.4)).sum(axis=1)
    assert found["count"][0] > mixed[0]


def test_long_chains_settle() -> None:
    """Each box overlaps its two neighbours alone: every other one stays, after as many rounds as there are boxes."""
    start = np.arange(60, dtype=np.float32) * 4
    boxes = np.stack([start, 0 * start, start + 10, 0 * start + 10], axis=1)  # 6 of 14 shared
    scores = np.linspace(1, 0.5, 60, dtype=np.float32)[None, :, None]
    found = arrays(NonMaximumSuppression(60, 0.4)([boxes[None], scores]))
    assert found["index"][0, : found["count"][0]].tolist() == list(range(0, 60, 2))


def test_candidates_bound_what_is_looked_at() -> None:
    boxes, scores = case(False)
    found = arrays(NonMaximumSuppression(400, 1.0, score_threshold=0.1, candidates=25)([boxes, scores]))
    assert found["count"][0] == 25
    np.testing.assert_array_equal(found["scores"][0, :25], np.sort(scores[0].ravel())[::-1][:25])
    few = arrays(NonMaximumSuppression(400, 1.0, score_threshold=0.1, per_class=5)([boxes, scores]))
    assert np.bincount(few["class_id"][0, : few["count"][0]]).tolist() == [5] * CLASSES


def test_small_boxes_do_not_count() -> None:
    boxes = np.array([[[0, 0, 3, 9], [0, 0, 9, 9]]], np.float32)
    found = arrays(NonMaximumSuppression(5, 1.0, min_size=4)([boxes, np.full((1, 2, 1), 0.5, np.float32)]))
    assert found["count"].tolist() == [1]
    assert found["index"][0, 0] == 1


GRIDS = [(8, 12), (4, 6), (2, 3)]


def pyramid() -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    anchors = [
        shifted_anchors(cell_anchors([size], [0.5, 1, 2]), grid, (64 // grid[0], 96 // grid[1]))
        for size, grid in zip((16, 32, 64), GRIDS, strict=True)
    ]
    objectness = [rng.normal(size=(BATCH, *grid, 3)).astype(np.float32) * 2 for grid in GRIDS]
    deltas = [rng.normal(size=(BATCH, *grid, 12)).astype(np.float32) * 0.4 for grid in GRIDS]
    return objectness, deltas, anchors


@pytest.mark.parametrize("pixel_offset", [0, 1])
@pytest.mark.parametrize(("levels", "score"), [(3, 0.0), (3, 0.9), (1, 0.0)])
def test_proposals_as_image_by_image(levels: int, score: float, pixel_offset: int) -> None:
    objectness, deltas, anchors = (part[:levels] for part in pyramid())
    sizes = np.array([[64, 96], [60, 90], [30, 50]], np.float32)
    options: dict[str, Any] = {"nms": 0.6, "min_size": 4, "score": score, "pixel_offset": pixel_offset}
    layer = ProposalSelection(70, 60, **options)
    found = arrays(layer([objectness, deltas, anchors, sizes]))
    assert found["boxes"].shape == (BATCH, 60, 4)
    for image in range(BATCH):
        boxes, scores = select_proposals(
            [x[image] for x in objectness],
            [x[image] for x in deltas],
            anchors,
            tuple(sizes[image]),
            pre_nms=70,
            post_nms=60,
            **options,
        )
        count = int(found["count"][image])
        assert count == len(boxes)
        np.testing.assert_allclose(found["boxes"][image, :count], boxes, atol=1e-4)
        np.testing.assert_allclose(found["scores"][image, :count], scores, atol=1e-6)
        assert not found["boxes"][image, count:].any()
    if score:
        assert found["count"].max() < 60


def test_config_and_shapes() -> None:
    layer = ProposalSelection(
        7, 5, nms=0.5, min_size=2, weights=(2, 2, 1, 1), delta_clip=None, pixel_offset=1, name="p"
    )
    assert ProposalSelection.from_config(layer.get_config()).get_config() == layer.get_config()
    other = NonMaximumSuppression(7, 0.3, score_threshold=0.2, min_size=1, candidates=9, per_class=3, name="n")
    assert NonMaximumSuppression.from_config(other.get_config()).get_config() == other.get_config()
    found = other([keras.Input((11, 4)), keras.Input((11, 2))])
    assert {k: (v.shape, v.dtype) for k, v in found.items()} == {
        "boxes": ((None, 7, 4), "float32"),
        "scores": ((None, 7), "float32"),
        "class_id": ((None, 7), "int32"),
        "index": ((None, 7), "int32"),
        "count": ((None,), "int32"),
    }


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: NonMaximumSuppression(0), "max_det=0"),
        (lambda: NonMaximumSuppression(5, 1.5), "iou_threshold=1.5"),
        (lambda: NonMaximumSuppression()([np.zeros((1, 5, 4)), np.zeros((1, 6, 2))]), r"must be \[boxes, scores\]"),
        (lambda: ProposalSelection(0), "pre_nms=0"),
        (lambda: ProposalSelection().build([[(1, 2, 2, 3)], [], [], (1, 2)]), "for each level. Received: 1, 0, 0"),
        (
            lambda: ProposalSelection().build([[(1, None, 2, 3)], [(1, None, 2, 12)], [(12, 4)], (1, 2)]),
            "h and w fixed",
        ),
    ],
)
def test_bad_arguments_are_named(call: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()  # type: ignore[operator]
