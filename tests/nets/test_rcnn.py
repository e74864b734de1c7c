"""Two-stage detectors without references: arguments, batches, saving, parts, checkpoints of older names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from visionkit import nets
from visionkit.nets.rcnn_heads import proposal_head
from visionkit.weights import load_card
from visionkit.weights.torchvision import FAMILIES, load_torchvision

SIZE = (64, 96)
SMALL = "fasterrcnn_mobilenet_v3_large_320_fpn"
TWO_STAGE = [name for name in FAMILIES if "rcnn" in name and "fpn" in name]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(1)
    rule = {"pre_nms": 20, "post_nms": 12, "max_det": 7, "score": 0.2}
    return nets.fasterrcnn_mobilenet_v3_large_320_fpn(classes=3, size_hw=SIZE, rule=rule)


def inputs(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    sizes = np.array([[64, 96], [40, 96], [64, 50]], np.float32)[:count]
    return [rng.standard_normal((count, *SIZE, 3)).astype(np.float32), sizes]


def answer(model: keras.Model, given: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in model(given, training=False).items()}


def test_images_of_a_batch_do_not_meet(model: keras.Model) -> None:
    given = inputs(3)
    together = answer(model, given)
    assert {name: value.shape for name, value in together.items()} == {
        "boxes": (3, 7, 4),
        "scores": (3, 7),
        "class_id": (3, 7),
        "count": (3,),
    }
    for place, size in enumerate(given[1]):
        alone = answer(model, [values[place : place + 1] for values in given])
        count = int(alone["count"][0])
        assert 0 < count == together["count"][place]
        np.testing.assert_allclose(alone["boxes"][0], together["boxes"][place], atol=1e-3)
        assert (alone["boxes"][0, :count, 2:] <= size[::-1] + 1e-4).all()
        assert (alone["boxes"][0, count:] == 0).all()
        assert set(alone["class_id"][0, :count]) <= {1, 2}


def test_a_saved_network_answers_alike(model: keras.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "detector.keras")
    again = keras.models.load_model(tmp_path / "detector.keras")
    expected = answer(model, inputs(2))
    for name, value in answer(again, inputs(2)).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-4)
    trunk = nets.rcnn_parts(again).trunk
    assert trunk.input_shape == (None, *SIZE, 3)


def test_parts_are_made_of_the_networks_layers(model: keras.Model) -> None:
    parts = nets.rcnn_parts(model)
    assert parts.mask_head is None
    ours = {id(layer) for layer in model.layers if layer.weights}
    assert {id(layer) for part in parts[:2] for layer in part.layers if layer.weights} == ours
    assert sorted(parts.box_head.output) == ["box_deltas", "class_logits"]
    assert sorted(parts.trunk.output) == [
        "feature_0",
        *(f"rpn_deltas_{level}" for level in range(3)),
        *(f"rpn_objectness_{level}" for level in range(3)),
    ]


def test_a_mask_head_doubles_its_map() -> None:
    network = nets.maskrcnn_resnet50_fpn(classes=3, size_hw=SIZE, rule={"post_nms": 4, "max_det": 3})
    head = nets.rcnn_parts(network).mask_head
    assert head is not None
    assert head.input_shape == (None, 14, 14, 256)
    assert head.output["mask_logits"].shape == (None, 28, 28, 3)
    assert network.output["masks"].shape == (None, 3, 28, 28)


def test_an_rpn_of_vgg_has_the_papers_parameters() -> None:
    """DET-7: 3 * 3 * 512 * 512 + 512 + (18 + 36) * (512 + 1), with one logit for each of nine anchors in place of 2."""
    feature = keras.Input((14, 14, 512))
    (score,), (box,) = proposal_head([feature], 9)
    count = keras.Model(feature, [score, box]).count_params()
    assert count == 3 * 3 * 512 * 512 + 512 + (9 + 36) * (512 + 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, "`classes` must be an integer of at least 2"),
        ({"size_hw": (64, 100)}, "`size_hw` must be multiples of 32"),
        ({"size_hw": None}, "`size_hw` must be given"),
        ({"norm_eps": -1.0}, "`norm_eps` must be at least 0"),
        ({"rule": {"speed": 1}}, "a rule has no speed"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(nets, SMALL)(**{"size_hw": SIZE, **options})


def test_parts_of_another_family_are_refused() -> None:
    with pytest.raises(ValueError, match="must be a two-stage detector"):
        nets.rcnn_parts(nets.lenet5())


def state_of(network: keras.Model, name: str) -> dict[str, np.ndarray]:
    """A checkpoint that fits, of numbered values."""
    from visionkit.weights.torchvision import _fills

    layers = [layer for layer in network._flatten_layers(include_self=False) if layer.weights]
    fills = [fill for layer in layers for fill in _fills(layer, FAMILIES[name])]
    return {
        fill.tensor: np.full(fill.layout.shape(tuple(fill.variable.shape)), index, np.float32)
        for index, fill in enumerate(fills)
    }


OLD = {
    r"_blocks\.(\d+)\.0\.": r"_blocks.\1.",
    r"rpn\.head\.conv\.0\.0\.": "rpn.head.conv.",
    **{rf"mask_head\.{i}\.0\.": f"mask_head.mask_fcn{i + 1}." for i in range(4)},
}


def test_the_names_of_the_first_checkpoints_are_known() -> None:
    """Those of 2019 and 2021, as torchvision's `_load_from_state_dict` lists them."""
    name = "maskrcnn_resnet50_fpn"
    network = nets.maskrcnn_resnet50_fpn(classes=3, size_hw=SIZE, norm_eps=0.0, rule={"post_nms": 4, "max_det": 3})
    state = state_of(network, name)
    old = dict(state)
    for pattern, replacement in OLD.items():
        old = {re.sub(pattern, replacement, key): value for key, value in old.items()}
    assert len(set(state) - set(old)) == 2 * (4 + 4 + 1 + 4)
    load_torchvision(network, name, old)
    found = network.get_layer("roi_heads.mask_head.3.0").bias
    np.testing.assert_array_equal(np.asarray(found), state["roi_heads.mask_head.3.0.bias"])


@pytest.mark.parametrize("name", TWO_STAGE)
def test_cards_say_which_epsilon_their_weights_want(name: str) -> None:
    card = load_card(name)
    wanted = 0.0 if name in ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn") else 1e-5
    assert card.args.get("norm_eps", 1e-5) == wanted
    assert len(card.labels) == 91
    network = getattr(nets, name)(**{**card.args, "size_hw": SIZE})
    norms = {layer.epsilon for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)}
    assert norms == {wanted}
