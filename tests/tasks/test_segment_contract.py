"""What every segmenter of every card promises."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.tasks.made_segment import write_segment_card
from visionkit.errors import ModelError, RecipeError
from visionkit.structures import Segmentation
from visionkit.tasks import InputRule, Segmenter, load_segmenter
from visionkit.tasks.load_segment import default_segmenter
from visionkit.weights import list_cards

CARDS = [card for card in list_cards() if card.task == "segment"]
BUNDLED = [card.name for card in CARDS if any(entry.file for entry in card.weights)]


def pictures() -> list[np.ndarray]:
    """Three images of unequal, non-square sizes."""
    generator = np.random.default_rng(4)
    sizes = [(90, 61), (33, 140), (64, 65)]
    small = [generator.integers(0, 256, (4, 5, 3), np.uint8) for _ in sizes]
    return [cv2.resize(s, size[::-1], interpolation=cv2.INTER_CUBIC) for s, size in zip(small, sizes, strict=True)]


def assert_is_segmentation(found: object, size_hw: tuple[int, int], classes: int) -> None:
    """Known class ids at the image's own size, and finite confidences in [0, 1], at least that of a guess."""
    assert isinstance(found, Segmentation)
    assert found.class_map.shape == size_hw
    assert found.class_map.dtype == np.uint8
    assert found.class_map.max() < classes
    if found.confidence is not None:
        assert found.confidence.dtype == np.float32
        assert ((found.confidence >= 1 / classes - 1e-5) & (found.confidence <= 1)).all()


@pytest.fixture(scope="module", params=["shortest_side", "letterbox", *BUNDLED])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str | Path:
    if request.param in BUNDLED:
        return request.param
    return write_segment_card(tmp_path_factory.mktemp("card") / "tiny", resize=request.param, size_hw=(64, 96))


@pytest.fixture(scope="module")
def task(source: str | Path) -> Segmenter:
    return load_segmenter(source, runtime="litert", threads=1, confidence=True)


def test_answers_have_the_contracts_form(task) -> None:
    images = pictures()
    before = [image.copy() for image in images]
    for answers in (task(images), [task(image) for image in images]):
        assert len(answers) == len(images)
        for image, answer in zip(images, answers, strict=True):
            assert_is_segmentation(answer, image.shape[:2], len(task.labels))
    assert all(np.array_equal(a, b) for a, b in zip(images, before, strict=True))


def test_probabilities_and_confidence_agree(task) -> None:
    image = pictures()[0]
    probs, found = task.probs(image), task(image)
    np.testing.assert_allclose(probs.sum(axis=2), 1, atol=1e-4)
    np.testing.assert_allclose(probs.max(axis=2), found.confidence, atol=1e-5)


def test_it_says_what_it_is(task) -> None:
    task(pictures()[0])
    said = task.describe()
    assert len(said["sha256"]) == 64
    assert (said["runtime"], said["precision"]) == ("litert", "float32")


def test_the_answer_is_that_of_the_whole_network(source, task) -> None:
    """Logits of the whole Keras model, resized to the image, against ours, which leave out its last resizing."""
    from visionkit.tasks.network import CardNetwork
    from visionkit.weights import load_card

    image = pictures()[2]
    fit = task.fit(image.shape[:2])
    classes = {"classes": len(task.labels), "size_hw": fit.rule.size_hw}
    logits = CardNetwork(load_card(source), arguments=classes).model()(fit.rule(image)[None], training=False)
    logits = np.asarray(logits["logits"] if isinstance(logits, dict) else logits)[0]
    top, bottom, left, right = fit.content or (0, logits.shape[0], 0, logits.shape[1])
    logits = logits[top:bottom, left:right]
    enlarged = np.dstack([cv2.resize(np.ascontiguousarray(p), image.shape[1::-1]) for p in logits.transpose(2, 0, 1)])
    assert (enlarged.argmax(axis=2) == task(image).class_map).mean() > 0.97


def test_vk_load_gives_it(source) -> None:
    import visionkit as vk

    task = vk.load(source, runtime="litert", threads=1)
    assert isinstance(task, Segmenter)
    images = pictures()
    assert np.array_equal(task(images[0]).class_map, vk.load(source, runtime="litert", threads=1)(images)[0].class_map)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_card_has_a_rule_labels_and_a_network(card) -> None:
    rule = InputRule.from_card(card)
    assert rule(pictures()[0]).shape == (*rule.size_hw, 3)
    assert 2 <= len(card.labels) <= 256
    assert len(set(card.labels)) == len(card.labels)
    from visionkit.runtime.quiet import import_keras

    import_keras()
    from visionkit import nets

    assert callable(getattr(nets, card.network))


def test_cards_that_do_not_fit_are_told(tmp_path) -> None:
    folder = write_segment_card(tmp_path / "tiny", extra="options = {confidence = true, fuzzy = 1}")
    with pytest.raises(RecipeError, match="fuzzy") as caught:
        load_segmenter(folder)
    assert caught.value.slug == "unknown-option"
    with pytest.raises(ModelError, match="not to segment"):
        load_segmenter("siambox_light")
    with pytest.raises(ModelError, match="does not exist"):
        load_segmenter("mine.tflite")


def test_a_cards_options_hold_and_the_calls_go_before_them(tmp_path) -> None:
    extra = "options = {confidence = true, palette = [[1, 2, 3], [4, 5, 6]]}"
    folder = write_segment_card(tmp_path / "tiny", extra=extra)
    task = load_segmenter(folder, runtime="keras", threads=1)
    assert task.options.palette == ((1, 2, 3), (4, 5, 6))
    assert task(pictures()[0]).confidence is not None
    other = load_segmenter(folder, runtime="keras", threads=1, confidence=False, crf={"iterations": 2}, tta=True)
    assert (other.options.confidence, other.options.flip, len(other.options.scales)) == (False, True, 3)
    assert other.refiner.params.iterations == 2


def test_the_default_is_a_bundled_model_or_the_official_one() -> None:
    name = default_segmenter()
    assert name in BUNDLED if BUNDLED else name == "lraspp_mobilenet_v3_large"


def test_instances_answer_alike(source) -> None:
    one, three = (load_segmenter(source, runtime="litert", threads=1, instances=n) for n in (1, 3))
    for image in pictures()[:2]:
        assert np.array_equal(one(image).class_map, three(image).class_map)
    assert (one.instances, three.instances) == (1, 3)
