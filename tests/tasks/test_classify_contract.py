"""What every classifier of every card promises."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.tasks.cards import COLORS, write_card
from visionkit.errors import ModelError, RecipeError
from visionkit.io.results import frame_row
from visionkit.structures import Classification, Frame, MultiClassification
from visionkit.tasks import load_classifier
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.load_classify import card_rule, shares
from visionkit.weights import list_cards

CARDS = [card for card in list_cards() if card.task == "classify"]
BUNDLED = [card.name for card in CARDS if any(entry.file for entry in card.weights)]
HEADS = {"color": COLORS, "daytime": ("day", "night")}


def pictures() -> list[np.ndarray]:
    """Three images of unequal, non-square sizes."""
    generator = np.random.default_rng(4)
    sizes = [(90, 61), (33, 140), (64, 65)]
    small = [generator.integers(0, 256, (4, 5, 3), np.uint8) for _ in sizes]
    return [cv2.resize(s, size[::-1], interpolation=cv2.INTER_CUBIC) for s, size in zip(small, sizes, strict=True)]


def assert_is_classification(found: object, count: int, topk: int = 5) -> None:
    """Known class ids, each once, with finite probabilities in [0, 1] that do not increase."""
    assert isinstance(found, Classification)
    assert len(found) == min(count, topk)
    assert len(set(found.class_id.tolist())) == len(found)
    assert ((found.class_id >= 0) & (found.class_id < count)).all()
    assert found.confidence.dtype == np.float32
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()
    assert (np.diff(found.confidence) <= 0).all()
    assert found.confidence.sum() <= 1 + 1e-5


@pytest.fixture(scope="module", params=["one head", "two heads", *BUNDLED])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str | Path:
    if request.param == "one head":
        return write_card(tmp_path_factory.mktemp("one") / "colors")
    if request.param == "two heads":
        return write_card(tmp_path_factory.mktemp("two") / "both", heads=HEADS)
    return request.param


@pytest.fixture(scope="module")
def task(source: str | Path) -> object:
    return load_classifier(source, runtime="litert", threads=1, batch=2)


def test_answers_have_the_contracts_form(task) -> None:
    images = pictures()
    before = [image.copy() for image in images]
    for answers in (task(images), [task(image) for image in images]):
        assert len(answers) == len(images)
        for answer in answers:
            assert isinstance(answer, MultiClassification) == task.multi
            parts = answer.heads if task.multi else {task.heads[0]: answer}
            for head, part in parts.items():
                assert_is_classification(part, task.class_count[head])
    assert all(np.array_equal(a, b) for a, b in zip(images, before, strict=True))


def test_an_image_has_one_answer_alone_and_among_others(task) -> None:
    images = pictures()
    for together, alone in zip(task.logits(images), [task.logits(i) for i in images], strict=False):
        if not task.multi:
            np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


def test_different_images_have_different_answers(task) -> None:
    images = pictures()
    found = task.logits(images)
    values = next(iter(found.values())) if task.multi else found
    assert np.abs(values[0] - values[1]).max() > 1e-3


def test_labels_name_the_classes_in_rows(task) -> None:
    image = pictures()[0]
    row = frame_row(Frame(image, 0, None, None, "a.jpg"), task(image), class_names=task.labels)
    if task.multi:
        assert set(row["heads"]) == set(HEADS)
        assert {entry["class_name"] for entry in row["heads"]["daytime"]} == {"day", "night"}
    else:
        names = [entry["class_name"] for entry in row["classes"]]
        assert names == [task.labels[entry["class_id"]] for entry in row["classes"]]


def test_it_says_what_it_is(task) -> None:
    said = task.describe()
    assert len(said["sha256"]) == 64
    assert (said["runtime"], said["precision"]) == ("litert", "float32")


def test_the_second_start_needs_no_keras_and_the_answers_are_keras_s(source, task) -> None:
    """LiteRT against the network itself: the same logits within 1e-4 of their spread."""
    if isinstance(source, str):
        pytest.skip("parity of the bundled networks is tested with their weights")
    keras = load_classifier(source, runtime="keras", threads=1)
    image = pictures()[1]
    ours, theirs = task.logits(image), keras.logits(image)
    if not task.multi:
        ours, theirs = {"logits": ours}, {"logits": theirs}
    for head in ours:
        assert np.abs(ours[head] - theirs[head]).max() <= 1e-4 * theirs[head].std()


def test_another_input_size(source) -> None:
    small = load_classifier(source, runtime="keras", threads=1, size_hw=(48, 32))
    assert small.rule.size_hw == (48, 32)
    assert small(pictures()[0]) is not None


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_card_has_a_rule_labels_and_a_network(card) -> None:
    rule = card_rule(card)
    assert isinstance(rule, InputRule)
    assert rule(pictures()[0]).shape == (*rule.size_hw, rule.channels)
    for labels in card.heads.values() if card.heads else [card.labels]:
        assert len(labels) == len(set(labels)) or "imagenet" in card.summary.lower()  # ImageNet has two cranes
        assert len(labels) > 1
    from visionkit.runtime.quiet import import_keras

    import_keras()
    from visionkit import nets

    assert callable(getattr(nets, card.network))


@pytest.mark.parametrize(
    ("weights_bytes", "cores", "expected"),
    [(22 << 20, 2, (1, 2)), (100 << 20, 2, (1, 2)), (550 << 20, 2, (2, 1)), (22 << 20, 16, (4, 4)), (9, 1, (1, 1))],
)
def test_cores_are_shared_out_while_the_weights_stay_few(weights_bytes, cores, expected) -> None:
    assert shares(weights_bytes, cores) == expected


def test_instances_answer_alike(source, task) -> None:
    several = load_classifier(source, runtime="litert", threads=1, batch=2, instances=3)
    assert several.instances == 3
    for image in pictures():
        found, expected = several.logits(image), task.logits(image)
        if not task.multi:
            assert np.array_equal(found, expected)


def test_cards_that_do_not_fit_are_told(tmp_path) -> None:
    folder = write_card(tmp_path / "colors", extra="options = {topk = 3, fuzzy = 1}")
    with pytest.raises(RecipeError, match="fuzzy") as caught:
        load_classifier(folder, runtime="keras")
    assert caught.value.slug == "unknown-option"
    with pytest.raises(ModelError, match="not to classify"):
        load_classifier("siambox_light")


def test_options_of_the_call_go_before_the_cards(tmp_path) -> None:
    folder = write_card(tmp_path / "colors", extra="options = {topk = 3}")
    assert len(load_classifier(folder, runtime="keras", threads=1)(pictures()[0])) == 3
    assert len(load_classifier(folder, runtime="keras", threads=1, topk=2)(pictures()[0])) == 2


@pytest.mark.slow  # two whole ImageNet networks are built, saved and compiled: most of a minute
@pytest.mark.parametrize("network", ["mobilenet_v3_small", "resnet18"])
def test_whole_networks_with_random_weights(network: str, tmp_path) -> None:
    from visionkit.runtime.quiet import import_keras

    keras = import_keras()
    from visionkit import nets

    keras.utils.set_random_seed(0)
    path = tmp_path / "random.weights.h5"
    getattr(nets, network)().save_weights(path)
    task = load_classifier(network, weights=path, runtime="litert", threads=1)
    assert len(task.labels) == 1000
    assert_is_classification(task(pictures()[0]), 1000)
