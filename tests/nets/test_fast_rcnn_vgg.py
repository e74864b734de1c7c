"""Fast and Faster R-CNN on VGG-16 as published: counts, wiring, and the parts against the whole."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import visionkit.nets.fast_rcnn_vgg as family
from visionkit.geometry.anchors import faster_rcnn_anchors
from visionkit.geometry.detection_rules import rcnn_rule
from visionkit.nets.rcnn import rcnn_parts
from visionkit.runtime import compile_model
from visionkit.tasks.rcnn import RCNNPipeline, RCNNRunners
from visionkit.weights.torchvision import load_torchvision

SIZE = (160, 240)
VALID = np.array([[150, 230], [160, 205]], np.float32)
PREDICTORS = {"class_logits": "roi_heads.box_predictor.cls_score", "box_deltas": "roi_heads.box_predictor.bbox_pred"}
RULE: dict[str, Any] = {"pre_nms": 300, "post_nms": 30, "score": 0.3}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same networks with a tenth of the channels."""
    monkeypatch.setattr(family, "UNITS", 48)
    monkeypatch.setattr(family, "STAGES_16", ((1, 8), (1, 8), (1, 16), (1, 16), (1, 24)))


def spread(model: keras.Model) -> keras.Model:
    """First weights of such a size that anchors move and classes differ."""
    parts = rcnn_parts(model)
    for name, deviation in (("rpn.cls_score", 2), ("rpn.bbox_pred", 0.2)):
        layer = model.get_layer(name)
        found = keras.Model(model.inputs[0], layer.output)(images())
        layer.kernel.assign(layer.kernel * (deviation / np.asarray(found).std()))
    rois = np.abs(np.random.RandomState(3).standard_normal((30, 7, 7, 24))).astype(np.float32)
    for name, deviation in (("class_logits", 2), ("box_deltas", 1)):
        layer = model.get_layer(parts.box_head.get_layer(PREDICTORS[name]).name)
        found = np.asarray(parts.box_head(rois)[name])
        layer.kernel.assign(layer.kernel * (deviation / found.std()))
    return model


def images() -> np.ndarray:
    return np.random.RandomState(0).standard_normal((2, *SIZE, 3)).astype(np.float32)


def test_the_proposal_head_has_as_many_parameters_as_the_papers() -> None:
    """DET-7: 3 * 3 * 512 * 512 + 512 + (18 + 36) * (512 + 1)."""
    feature = keras.Input((4, 7, 512))
    head = keras.Model(feature, family.published_proposal_head(feature))
    assert head.count_params() == 3 * 3 * 512 * 512 + 512 + (18 + 36) * (512 + 1) == 2_387_510
    assert [output.shape[1:] for output in head.outputs] == [(4, 7, 9), (4, 7, 36)]


def test_objectness_is_the_softmax_of_two_scores() -> None:
    feature = keras.Input((2, 3, 5))
    head = keras.Model(feature, family.published_proposal_head(feature, 9))
    scores = keras.Model(feature, head.get_layer("rpn.cls_score").output)
    x = np.random.RandomState(2).standard_normal((1, 2, 3, 5)).astype(np.float32)
    both = np.asarray(scores(x)).reshape(1, 2, 3, 2, 9)
    softmax = np.exp(both[..., 1, :]) / np.exp(both).sum(axis=3)
    objectness, _ = head(x)
    np.testing.assert_allclose(1 / (1 + np.exp(-np.asarray(objectness))), softmax, rtol=1e-5)


def test_the_rule_is_the_published_one() -> None:
    rule = rcnn_rule("fasterrcnn_vgg16")
    (cells,) = rule.cells()
    np.testing.assert_array_equal(cells, faster_rcnn_anchors())
    assert (rule.pre_nms, rule.post_nms, rule.proposal_nms, rule.nms) == (6000, 300, 0.7, 0.3)
    assert rule.box_weights == (10, 10, 5, 5)
    assert rule.roi_scales == (1 / 16,)


@pytest.mark.usefixtures("small")
def test_the_parts_give_the_boxes_of_the_whole() -> None:
    keras.utils.set_random_seed(4)
    model = spread(family.fasterrcnn_vgg16(classes=5, size_hw=SIZE, rule=RULE))
    trunk, head, mask = rcnn_parts(model)
    assert mask is None
    assert set(trunk.output) == {"feature_0", "rpn_objectness_0", "rpn_deltas_0"}
    assert trunk.output["feature_0"].shape[1:3] == (10, 15)
    found = {name: np.asarray(value) for name, value in model([images(), VALID]).items()}
    runners = RCNNRunners(
        compile_model(trunk, runtime="keras", batch=2), compile_model(head, runtime="keras", batch=30)
    )
    pipeline = RCNNPipeline(runners, rcnn_rule("fasterrcnn_vgg16", RULE))
    for index, one in enumerate(pipeline(images(), VALID)):
        count = found["count"][index]
        assert count == len(one.scores) > 2
        np.testing.assert_allclose(one.xyxy, found["boxes"][index, :count], atol=1e-3)
        np.testing.assert_allclose(one.scores, found["scores"][index, :count], atol=1e-5)
        np.testing.assert_array_equal(one.classes, found["class_id"][index, :count])
        height, width = VALID[index]
        assert (one.xyxy[:, 2:] <= [width - 1, height - 1]).all()


@pytest.mark.usefixtures("small")
def test_fast_rcnn_over_faster_rcnns_proposals_is_faster_rcnn() -> None:
    keras.utils.set_random_seed(4)
    faster = spread(family.fasterrcnn_vgg16(classes=5, size_hw=SIZE, rule=RULE))
    fast = family.fast_rcnn_vgg16(classes=5, size_hw=SIZE, boxes=34, rule=RULE)
    for layer in fast.layers:
        if layer.weights:
            layer.set_weights(faster.get_layer(layer.name).get_weights())
    expected = faster([images(), VALID])
    selected = keras.Model(faster.inputs, faster.get_layer("proposals").output)([images(), VALID])
    boxes, count, _ = (np.asarray(value) for value in selected)  # in the order of the alphabet
    given = np.concatenate([boxes, np.full((2, 4, 4), 60, np.float32)], axis=1)  # behind the count: nothing
    found = fast([images(), VALID, given, count.astype(np.int32)])
    for name in ("boxes", "scores", "class_id", "count"):
        np.testing.assert_allclose(np.asarray(found[name]), np.asarray(expected[name]), atol=1e-3)
    with_all = fast([images(), VALID, given, np.full(2, 34, np.int32)])
    assert np.abs(np.asarray(with_all["scores"]) - np.asarray(found["scores"])).max() > 1e-3


def test_a_checkpoint_of_the_classifier_fills_all_but_the_predictors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "UNITS", 8)
    model = family.fasterrcnn_vgg16(classes=3, size_hw=(32, 48))
    random = np.random.RandomState(1)
    state: dict[str, np.ndarray] = {}
    for layer in model.layers:
        if layer.name.startswith("features.") and layer.weights:
            kernel = np.transpose(layer.kernel, (3, 2, 0, 1))
            state |= {f"{layer.name}.weight": 0 * kernel + 0.5, f"{layer.name}.bias": np.zeros(len(kernel), "f")}
    for name, shape in (("classifier.0", (8, 25088)), ("classifier.3", (8, 8)), ("classifier.6", (1000, 8))):
        state[f"{name}.weight"] = random.standard_normal(shape).astype(np.float32)
        state[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    kept = load_torchvision(model, "fasterrcnn_vgg16", state, skip_head=True)
    predictor = "roi_heads.box_predictor"
    assert set(kept) == {
        *("rpn.conv", "rpn.cls_score", "rpn.bbox_pred"),
        *(f"{predictor}.cls_score", f"{predictor}.bbox_pred"),
    }
    fc6 = np.asarray(model.get_layer("classifier.0").kernel).reshape(7, 7, 512, 8)
    np.testing.assert_array_equal(fc6[2, 5, 100], state["classifier.0.weight"].reshape(8, 512, 7, 7)[:, 100, 2, 5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size_hw": (600, 1000)}, "multiples of 16"),
        ({"classes": 1}, "at least 2"),
        ({"rule": {"nonsense": 1}}, "a rule has no nonsense"),
        ({"rule": {"pooling": "mean"}}, "`pooling` must be align or max"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        family.fasterrcnn_vgg16(**arguments)
