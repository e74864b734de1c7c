"""The loops between the parts of a two-stage detector, over made parts that need no network."""

from __future__ import annotations

import numpy as np
import pytest

from visionkit.errors import ModelError
from visionkit.geometry.detection_rules import RCNNRule, rcnn_rule
from visionkit.geometry.nms import class_nms
from visionkit.geometry.proposals import select_proposals
from visionkit.geometry.roi import pyramid_level, roi_align
from visionkit.runtime.base import Runner, Signature, TensorSpec
from visionkit.tasks import rcnn
from visionkit.tasks.detect_network import Limits
from visionkit.tasks.rcnn import RCNNPipeline, RCNNRunners, rule_anchors

INPUT_HW = (96, 160)
LEVELS, CHANNELS, CLASSES = 5, 8, 4
GRIDS = [(24, 40), (12, 20), (6, 10), (3, 5), (2, 3)]
SIZE = (90.0, 150.0)
RULE = RCNNRule(pre_nms=60, post_nms=50, max_det=12)


class Made(Runner):
    """Answers by a function of its one input."""

    def __init__(self, name: str, shape: tuple[int | None, ...], answer) -> None:  # type: ignore[no-untyped-def]
        spec = TensorSpec(name, shape, np.dtype(np.float32))
        outputs = tuple(
            TensorSpec(key, (None,), np.dtype(np.float32))
            for key in answer(np.zeros([n or 1 for n in shape], np.float32))
        )
        super().__init__("made", Signature((spec,), outputs), threads=2)
        self.answer, self.closed = answer, False

    def _run(self, feed):  # type: ignore[no-untyped-def]
        return list(self.answer(feed[0]).values())

    def _release(self) -> None:
        self.closed = True


def maps_of(inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Maps of noise that differs from image to image: the first level of the input is the seed."""
    found: dict[str, list[np.ndarray]] = {}
    for image in inputs:
        rng = np.random.default_rng(int(image[0, 0, 0]))
        for level, (h, w) in enumerate(GRIDS):
            parts = {"rpn_objectness": (3, 1.0), "rpn_deltas": (12, 0.4)}
            if level < LEVELS - 1:
                parts["feature"] = (CHANNELS, 1.0)
            for name, (depth, deviation) in parts.items():
                values = rng.normal(0, deviation, (h, w, depth)).astype(np.float32)
                found.setdefault(f"{name}_{level}", []).append(values)
    return {name: np.stack(values) for name, values in found.items()}


MIX = np.random.default_rng(9).normal(0, 0.2, (7 * 7 * CHANNELS, 5 * CLASSES)).astype(np.float32)


def box_answer(rois: np.ndarray) -> dict[str, np.ndarray]:
    mixed = rois.reshape(len(rois), -1) @ MIX
    return {"class_logits": mixed[:, :CLASSES], "box_deltas": mixed[:, CLASSES:]}


def mask_answer(rois: np.ndarray) -> dict[str, np.ndarray]:
    doubled = rois.repeat(2, axis=1).repeat(2, axis=2)
    return {"mask_logits": doubled[..., :CLASSES]}


def pipeline_of(rule: RCNNRule = RULE, *, rows: int = 16, masks: bool = False, maps=maps_of) -> RCNNPipeline:  # type: ignore[no-untyped-def]
    trunk = Made("image", (None, *INPUT_HW, 3), maps)
    box = Made("rois", (rows, 7, 7, CHANNELS), box_answer)
    mask = Made("rois", (5, 14, 14, CHANNELS), mask_answer) if masks else None
    return RCNNPipeline(RCNNRunners(trunk, box, mask), rule)


def images(*seeds: int) -> np.ndarray:
    values = np.zeros((len(seeds), *INPUT_HW, 3), np.float32)
    values[:, 0, 0, 0] = seeds
    return values


@pytest.fixture(params=["numba", "numpy"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "numpy":
        monkeypatch.setattr(rcnn, "load_loops", lambda: None)
    return request.param


def slow(seed: int, rule: RCNNRule, size: tuple[float, float]):  # type: ignore[no-untyped-def]
    """The same by the functions of `geometry`, a box at a time."""
    maps = {name: values[0] for name, values in maps_of(images(seed)).items()}
    anchors = rule_anchors(rule, INPUT_HW, GRIDS)
    objectness = [maps[f"rpn_objectness_{level}"] for level in range(LEVELS)]
    deltas = [maps[f"rpn_deltas_{level}"] for level in range(LEVELS)]
    options = {"nms": rule.proposal_nms, "min_size": rule.proposal_min_size, "score": rule.proposal_score}
    boxes, _ = select_proposals(
        objectness, deltas, anchors, size, pre_nms=rule.pre_nms, post_nms=rule.post_nms, **options
    )
    rows = []
    for box in boxes:
        level = int(pyramid_level(box[None])[0])
        pooled = roi_align(maps[f"feature_{level}"], box[None], (7, 7), scale=0.25 / 2**level)
        answer = {key: value[0].astype(np.float64) for key, value in box_answer(pooled.astype(np.float32)).items()}
        probs = np.exp(answer["class_logits"]) / np.exp(answer["class_logits"]).sum()
        x, y, w, h = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]
        for label in range(1, CLASSES):
            tx, ty, tw, th = answer["box_deltas"].reshape(-1, 4)[label] / (10, 10, 5, 5)
            cx, cy, width, height = x + tx * w, y + ty * h, w * np.exp(tw), h * np.exp(th)
            corners = np.array([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2])
            corners = np.clip(corners, 0, [size[1], size[0]] * 2)
            if probs[label] > rule.score and (corners[2:] - corners[:2] >= rule.min_size).all():
                rows.append((probs[label], label, *corners))
    table = np.array(rows)
    kept = class_nms(table[:, 2:], table[:, 0], table[:, 1].astype(int), rule.nms, limit=rule.max_det)
    return boxes, table[kept, 2:], table[kept, 0], table[kept, 1].astype(int)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_is_the_slow_loop(engine: str, seed: int) -> None:
    pipeline = pipeline_of()
    assert pipeline.engine == engine
    (found,) = pipeline(images(seed), [SIZE])
    _, boxes, scores, classes = slow(seed, RULE, SIZE)
    np.testing.assert_array_equal(found.classes, classes)
    np.testing.assert_allclose(found.xyxy, boxes, atol=1e-2)
    np.testing.assert_allclose(found.scores, scores, atol=1e-4)
    assert found.masks is None


def test_images_of_a_batch_do_not_meet(engine: str) -> None:
    pipeline = pipeline_of(masks=True)
    together = pipeline(images(4, 5, 6), [SIZE, (60.0, 160.0), INPUT_HW])
    for place, size in enumerate([SIZE, (60.0, 160.0), INPUT_HW]):
        (alone,) = pipeline(images(4 + place), [size])
        np.testing.assert_array_equal(together[place].xyxy, alone.xyxy)
        np.testing.assert_array_equal(together[place].masks, alone.masks)
        assert (alone.xyxy <= np.array([size[1], size[0]] * 2) + 1e-4).all()


@pytest.mark.parametrize("rows", [1, 7, 50, 64])
def test_the_batch_of_the_head_does_not_matter(rows: int) -> None:
    (found,), (expected,) = (pipeline_of(rows=n)(images(7), [SIZE]) for n in (rows, 16))
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=1e-3)


def test_pooling_is_that_of_geometry_at_every_level(engine: str) -> None:
    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 150, (100, 2))
    side = np.exp(np.linspace(-4, np.log(3000), 100)[:, None] + rng.uniform(-0.5, 0.5, (100, 2)))  # far beyond the maps
    boxes = np.concatenate([corner, corner + side], axis=1).astype(np.float32)
    levels = pyramid_level(boxes)
    assert set(levels.tolist()) == {0, 1, 2, 3}
    maps = maps_of(images(8, 9))
    pooled = pipeline_of().pool(maps, 1, boxes, 14)
    for n, (box, level) in enumerate(zip(boxes, levels, strict=True)):
        expected = roi_align(maps[f"feature_{level}"][1], box[None], (14, 14), scale=0.25 / 2**level)[0]
        np.testing.assert_allclose(pooled[n], expected, atol=2e-5)


def test_limits_take_the_place_of_the_rules(engine: str) -> None:
    pipeline = pipeline_of()
    (usual,) = pipeline(images(1), [SIZE])
    (sure,) = pipeline(images(1), [SIZE], Limits(0.6, None, 5))
    assert 0 < len(sure.scores) <= 5
    assert (sure.scores > 0.6).all()
    np.testing.assert_array_equal(sure.xyxy, usual.xyxy[: len(sure.xyxy)])
    (all_of_them,) = pipeline(images(1), [SIZE], Limits(0.0, 1.0, 10_000))
    assert len(all_of_them.scores) == 50 * (CLASSES - 1)


def test_nothing_is_found_where_no_proposal_is_left(engine: str) -> None:
    pipeline = pipeline_of(RULE.but({"proposal_score": 1.0}), masks=True)
    (found,) = pipeline(images(1), [SIZE])
    assert found.xyxy.shape == (0, 4)
    assert found.scores.shape == found.classes.shape == (0,)
    assert found.masks is not None
    assert found.masks.shape == (0, 28, 28)


def test_masks_are_of_the_boxes_own_class(engine: str) -> None:
    pipeline = pipeline_of(masks=True)
    (found,) = pipeline(images(1), [SIZE])
    maps = maps_of(images(1))
    pooled = pipeline.pool(maps, 0, found.xyxy, 14).repeat(2, axis=1).repeat(2, axis=2)
    assert found.masks is not None
    for mask, label, cells in zip(found.masks, found.classes, pooled, strict=True):
        np.testing.assert_allclose(mask, 1 / (1 + np.exp(-cells[..., label])), atol=1e-5)


@pytest.mark.parametrize("where", ["rpn_objectness_2", "feature_0"])
def test_an_answer_that_is_not_finite_is_refused(where: str) -> None:
    def broken(inputs: np.ndarray) -> dict[str, np.ndarray]:
        maps = maps_of(inputs)
        maps[where][:] = np.nan
        return maps

    with pytest.raises(ModelError, match="not finite"):
        pipeline_of(maps=broken)(images(1), [SIZE])


def test_a_head_for_any_number_of_boxes_is_refused() -> None:
    box = Made("rois", (None, 7, 7, CHANNELS), box_answer)
    with pytest.raises(ValueError, match="a fixed number of boxes"):
        RCNNPipeline(RCNNRunners(Made("image", (None, *INPUT_HW, 3), maps_of), box), RULE)


def test_closing_closes_all_parts() -> None:
    pipeline = pipeline_of(masks=True)
    pipeline.close()
    assert all(runner.closed for runner in pipeline.runners)


def test_rules_refuse_what_they_do_not_know() -> None:
    assert rcnn_rule("fasterrcnn_mobilenet_v3_large_320_fpn").pre_nms == 150
    assert rcnn_rule("fasterrcnn_resnet50_fpn", {"anchor_sizes": [[8], [16]]}).anchor_sizes == ((8,), (16,))
    with pytest.raises(ValueError, match="a rule has no speed"):
        rcnn_rule("fasterrcnn_resnet50_fpn", {"speed": 1})
    with pytest.raises(ValueError, match=r"`nms` must be from 0 to 1\. Received: nms=2"):
        rcnn_rule("fasterrcnn_resnet50_fpn", {"nms": 2})
    with pytest.raises(ValueError, match="`network` must be one of"):
        rcnn_rule("ssd")
