"""SSDLite: torchvision's outputs and boxes, in Keras and in LiteRT; variants for own training."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest

from tests.nets.synthetic import Reference
from tests.nets.test_parity import checkpoint
from visionkit import nets
from visionkit.errors import ModelError
from visionkit.geometry.ssd_rule import SSDRule
from visionkit.runtime import compile_model
from visionkit.tasks.ssd import decode_ssd
from visionkit.weights.torchvision import load_torchvision

NAME = "ssdlite320_mobilenet_v3_large"
RULE = SSDRule()
LEVEL = np.repeat(np.arange(6), [6 * h * w for h, w in RULE.grids])
# Of the standard deviation, level by level. The reference's last statistics are of maps of 9, 4 and 1 cells; behind the
# last map four normalisations each divide by a deviation of 0.04, so that rounding grows a hundred-thousandfold:
# torchvision's own answer in float64 is 2e-4, 3e-3 and 130 from the reference on these three levels. The runtimes do
# not refuse the network for that: they ask what it makes of inputs that differ in the last bit.
TOLERANCE = np.array([1e-4, 1e-4, 1.5e-4, 5e-4, 1e-2])
Answer = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def reference(shared: Path) -> Reference:
    return Reference.read(shared / "parity", NAME)


@pytest.fixture(scope="module")
def model(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> keras.Model:
    found: keras.Model = getattr(nets, NAME)()
    load_torchvision(found, NAME, checkpoint(reference, tmp_path_factory.mktemp("ssd") / "noise.pth"))
    return found


@pytest.fixture(scope="module")
def image(reference: Reference) -> np.ndarray:
    pixels = reference.arrays["image"][0].astype(np.float32) / 127.5 - 1
    return np.asarray(cv2.resize(pixels, (320, 320), interpolation=cv2.INTER_LINEAR))[None]


@pytest.fixture(scope="module")
def answers(model: keras.Model, image: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Answer]:
    @cache
    def answer(runtime: str) -> Answer:
        if runtime == "keras":
            return {name: np.asarray(value) for name, value in model(image, training=False).items()}
        with compile_model(model, runtime=runtime, cache_dir=tmp_path_factory.mktemp(runtime)) as runner:
            return dict(runner(image=image))

    return answer


def errors(found: np.ndarray, expected: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The largest difference on each level but the last, in standard deviations."""
    off = np.abs(found - expected).max(axis=1) / expected[level < 5].std()
    return np.array([off[level == k].max() for k in range(5)])


def head_errors(answer: Answer, reference: Reference) -> list[np.ndarray]:
    arrays = reference.arrays
    logits = errors(answer["class_logits"][0, ::8], arrays["cls_logits"][0], LEVEL[::8])
    return [logits, errors(answer["box_deltas"][0], arrays["bbox_regression"][0], LEVEL)]


def found_boxes(answer: Answer, reference: Reference, anchors: np.ndarray) -> int:
    """How many of torchvision's 300 boxes are among ours."""
    found = decode_ssd(answer["class_logits"][0], answer["box_deltas"][0], anchors, RULE, max_det=400)
    xyxy = found.xyxy * np.array([320, 240, 320, 240], np.float32) / 320
    arrays = reference.arrays
    near = np.abs(xyxy[:, None] - arrays["boxes"]).max(axis=2) < 0.05
    near &= np.abs(found.scores[:, None] - arrays["scores"]) < 1e-4
    near &= found.classes[:, None] == arrays["labels"]
    return int(near.any(axis=0).sum())


def test_anchors_are_torchvisions(reference: Reference) -> None:
    np.testing.assert_array_equal(RULE.anchors(), reference.arrays["anchors"])


# tests/export has another of its kind in LiteRT at each run
@pytest.mark.parametrize("runtime", ["keras", pytest.param("litert", marks=pytest.mark.slow)])
def test_logits_deltas_and_boxes_are_torchvisions(
    runtime: str, answers: Callable[[str], Answer], reference: Reference
) -> None:
    answer = answers(runtime)
    for off in head_errors(answer, reference):
        assert (off < TOLERANCE).all(), off
    assert (
        found_boxes(answer, reference, RULE.anchors()) >= 290
    )  # of 300; up to 10 come from the level of one cell, see TOLERANCE


def test_boxes_in_another_order_would_be_found(answers: Callable[[str], Answer], reference: Reference) -> None:
    """The boxes of a cell slowest rather than fastest."""
    anchors = RULE.anchors()
    parts, begin = [], 0
    for height, width in RULE.grids:
        level = anchors[begin : begin + 6 * height * width]
        parts.append(level.reshape(height * width, 6, 4).transpose(1, 0, 2).reshape(-1, 4))
        begin += len(level)
    assert found_boxes(answers("keras"), reference, np.concatenate(parts)) < 30


def test_the_wrong_epsilon_is_refused_and_would_be_found(reference: Reference, image: np.ndarray) -> None:
    state = reference.state()
    wrong = getattr(nets, NAME)()
    load_torchvision(wrong, NAME, state)
    for layer in wrong.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.epsilon = 1e-5
    answer = {name: np.asarray(value) for name, value in wrong(image, training=False).items()}
    assert all((off > 10 * TOLERANCE).all() for off in head_errors(answer, reference))
    with pytest.raises(ModelError, match=r"has epsilon 1e-05, expected 0\.001"):
        load_torchvision(wrong, NAME, state)


def test_parameters_are_as_many_as_torchvisions(model: keras.Model, reference: Reference) -> None:
    count = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert count == reference.facts["parameters"] == 3_440_060
    momenta = {layer.momentum for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)}
    assert momenta == {0.97}


VARIANTS: dict[str, dict[str, Any]] = {
    "fewer classes": {"classes": 4},
    "fine": {"classes": 4, "size_hw": (240, 320), "first_stride": 8, "extras": (256, 128)},
    "pyramid": {"classes": 4, "size_hw": (250, 330), "first_stride": 8, "pyramid": 64, "extras": (128,)},
    "small": {"backbone": "small", "size_hw": (160, 224), "ratios": (2,), "scales": (0.1, 0.9)},
    "narrow": {"width_multiplier": 0.5, "reduced_tail": False, "size_hw": (192, 128), "extras": ()},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_have_a_default_box_for_each_row_of_their_answer(name: str) -> None:
    arguments = VARIANTS[name]
    model = nets.ssdlite(**arguments)
    anchors = SSDRule.of_network(arguments).anchors()
    assert model.output["class_logits"].shape == (None, len(anchors), arguments.get("classes", 91))
    assert model.output["box_deltas"].shape == (None, len(anchors), 4)


def test_a_small_detector_fits_in_five_megabytes_of_float16() -> None:
    arguments = {"classes": 4, "size_hw": (480, 640), "first_stride": 8, "pyramid": 96}
    assert 2 * nets.ssdlite(**arguments).count_params() < 5_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, "`classes` must be an integer of at least 2"),
        ({"backbone": "huge"}, "`backbone` must be one of large, small"),
        ({"first_stride": 4}, "`first_stride` must be 8 or 16"),
        ({"scales": (0.9, 0.1)}, "numbers that increase"),
        ({"scales": (0.1, 0.2, 0.3)}, "2 or 7 positive numbers"),
        ({"pyramid": 0}, "`pyramid` must be None or positive"),
        ({"size_hw": None}, "`size_hw` must be given"),
        ({"width_multiplier": 0}, "`width_multiplier` must be positive"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nets.ssdlite(**arguments)
