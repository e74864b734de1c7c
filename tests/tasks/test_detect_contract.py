"""What every detector of every card promises."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.tasks.made_detect import write_detect_card
from visionkit.errors import ModelError, RecipeError, UsageError
from visionkit.structures import Detections
from visionkit.tasks import Detector, InputRule, load_detector
from visionkit.tasks.load_detect import default_detector
from visionkit.weights import list_cards

CARDS = [card for card in list_cards() if card.task == "detect"]
BUNDLED = [card.name for card in CARDS if any(entry.file for entry in card.weights)]


def pictures() -> list[np.ndarray]:
    """Three images of unequal, non-square sizes."""
    generator = np.random.default_rng(4)
    sizes = [(90, 61), (33, 140), (64, 65)]
    small = [generator.integers(0, 256, (4, 5, 3), np.uint8) for _ in sizes]
    return [cv2.resize(s, size[::-1], interpolation=cv2.INTER_CUBIC) for s, size in zip(small, sizes, strict=True)]


def assert_is_detections(found: object, size_hw: tuple[int, int], classes: int) -> None:
    """Boxes with area inside the image, known class ids, probabilities that do not rise."""
    assert isinstance(found, Detections)
    height, width = size_hw
    assert found.xyxy.dtype == np.float32
    assert (found.xyxy[:, :2] >= 0).all()
    assert (found.xyxy[:, 2:] <= [width, height]).all()
    assert (found.xyxy[:, 2:] > found.xyxy[:, :2]).all()
    assert ((found.class_id >= 0) & (found.class_id < classes)).all()
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()
    assert (np.diff(found.confidence) <= 0).all()
    if found.mask is not None:
        assert found.mask.shape == (len(found), height, width)


@pytest.fixture(scope="module", params=["tiny", *BUNDLED])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str | Path:
    if request.param in BUNDLED:
        return request.param
    return write_detect_card(tmp_path_factory.mktemp("card") / "tiny")


@pytest.fixture(scope="module")
def task(source: str | Path) -> Detector:
    return load_detector(source, runtime="litert", threads=1, conf=0.05, max_det=20)


def test_answers_have_the_contracts_form(task) -> None:
    images = pictures()
    before = [image.copy() for image in images]
    for answers in (task(images), [task(image) for image in images]):
        assert len(answers) == len(images)
        for image, answer in zip(images, answers, strict=True):
            assert_is_detections(answer, image.shape[:2], len(task.labels))
            assert len(answer) <= 20
    assert all(np.array_equal(a, b) for a, b in zip(images, before, strict=True))


def test_it_says_what_it_is(task) -> None:
    task(pictures()[0])
    said = task.describe()
    assert len(said["sha256"]) == 64
    assert (said["runtime"], said["precision"]) == ("litert", "float32")


def test_batches_and_instances_answer_alike(source, task) -> None:
    other = load_detector(source, runtime="litert", threads=1, conf=0.05, max_det=20, batch=2, instances=2)
    for a, b in zip(task(pictures()), other(pictures()), strict=True):
        np.testing.assert_allclose(a.xyxy, b.xyxy, atol=0.05)
        np.testing.assert_allclose(a.confidence, b.confidence, atol=1e-4)
    assert (other.batch, other.instances) == (2, 2)


def test_vk_load_gives_it(source) -> None:
    import visionkit as vk

    task = vk.load(source, runtime="litert", threads=1, conf=0.05)
    assert isinstance(task, Detector)
    image = pictures()[0]
    np.testing.assert_array_equal(task(image).xyxy, task([image])[0].xyxy)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_card_has_a_rule_labels_and_a_network(card) -> None:
    rule = InputRule.from_card(card)
    assert min(rule.size_hw) >= 32
    labels = card.labels[1:] if card.labels[0] in ("background", "__background__") else card.labels
    assert len(labels) >= 1
    from visionkit.runtime.quiet import import_keras

    import_keras()
    from visionkit import nets

    assert callable(getattr(nets, card.network))


def test_cards_that_do_not_fit_are_told(tmp_path) -> None:
    folder = write_detect_card(tmp_path / "tiny", extra="options = {conf = 0.3, fuzzy = 1}")
    with pytest.raises(RecipeError, match="fuzzy") as caught:
        load_detector(folder)
    assert caught.value.slug == "unknown-option"
    with pytest.raises(ModelError, match="not to detect"):
        load_detector("siambox_light")


def test_a_cards_options_hold_and_the_calls_go_before_them(tmp_path) -> None:
    folder = write_detect_card(tmp_path / "tiny", extra='options = {conf = 0.3, iou = 0.5, classes = ["bus"]}')
    task = load_detector(folder)
    assert (task.options.conf, task.options.iou, task.classes.tolist()) == (0.3, 0.5, [1])
    assert load_detector(folder, conf=0.6, classes=["dog"]).classes.tolist() == [2]
    with pytest.raises(UsageError, match="mean 'dog'"):
        load_detector(folder, classes=["dgo"])


def test_another_size_of_input(tmp_path) -> None:
    folder = write_detect_card(tmp_path / "tiny")
    task = load_detector(folder, runtime="keras", size_hw=(64, 160), conf=0.05)
    assert task.fit((300, 400)).input_hw == (64, 160)
    assert_is_detections(task(pictures()[0]), (90, 61), 3)


def test_the_default_is_the_official_one_and_not_what_happens_to_be_bundled() -> None:
    assert default_detector() == "ssdlite320_mobilenet_v3_large"
