"""SSDs as files: decoding and suppression inside, the task's boxes out, of images of any size."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.export.plain import picture, served
from tests.tasks.made_detect import write_detect_card
from visionkit.errors import ModelError
from visionkit.export import box_match, detector_parts, export_model, plan_ssd
from visionkit.export.box_match import compare_boxes, match_boxes
from visionkit.export.input_graph import DetectGraph
from visionkit.export.plan import ExportOptions, ExportPlan, make_plan
from visionkit.tasks import load_detector
from visionkit.weights import Card, load_card

SIZE_HW = (96, 128)
IMAGES = [picture(130, 77), picture(75, 210, 1), picture(*SIZE_HW, 2)]
FORMATS = {"savedmodel": "net", "litert": "net.tflite"}
LABELS = ("car", "bus", "dog")


@pytest.fixture(scope="module")
def card(tmp_path_factory) -> Card:
    return load_card(moved(write_detect_card(tmp_path_factory.mktemp("cards") / "tiny", size_hw=SIZE_HW)))


def moved(folder: Path) -> Path:
    """The card with weights that move its boxes, as those of a fresh network hardly do."""
    from visionkit import nets

    card, path = load_card(folder), folder / "tiny.weights.h5"
    model = nets.ssdlite(**card.args, classes=len(card.labels) + 1, size_hw=SIZE_HW)
    model.load_weights(path)
    for layer in model.layers:
        if layer.name.startswith("head.regression_head") and layer.name.endswith(".1") and layer.weights:
            kernel, *rest = layer.get_weights()
            layer.set_weights([400 * kernel, *rest])
    model.save_weights(path)
    text = (folder / "card.toml").read_text()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "card.toml").write_text(text.replace(card.weights[0].sha256, digest))
    return folder


@pytest.fixture(scope="module")
def made(card, tmp_path_factory) -> Callable[[str], Path]:
    """It in a format, written when it is first asked for."""
    place = tmp_path_factory.mktemp("made")
    return functools.cache(lambda kind: export_model(card, place / FORMATS[kind], format=kind, probes=[IMAGES[0]]).path)


def assert_same(answer, task, image, *, conf: float = detector_parts.SERVED_SCORE) -> int:
    """The answer of `serving_default` is the task's detections, in every word of it; gives how many there are."""
    wanted = task(image, conf=conf)
    count = int(answer["num_detections"])
    assert count == len(wanted)
    height, width = image.shape[:2]
    # in order of score; neighbours whose scores are the same to the last digits may have changed places
    assert np.abs(answer["scores"][:count] - wanted.confidence).max(initial=0) < 1e-4
    assert (np.diff(answer["scores"]) <= 0).all()
    apart = np.abs(answer["xyxy"][:count, None] - wanted.xyxy[None]).max(-1) / max(height, width)
    apart[answer["classes"][:count, None] != wanted.class_id[None]] = 1
    apart[np.abs(answer["scores"][:count, None] - wanted.confidence[None]) > 1e-4] = 1
    assert (apart.min(0) < 1e-4).all()
    assert (apart.min(1) < 1e-4).all()
    shares = answer["xyxy"][:, [1, 0, 3, 2]] / [height, width, height, width]
    assert np.abs(answer["boxes"] - shares).max() < 1e-6
    assert (answer["boxes"] >= 0).all()
    assert (answer["boxes"] <= 1).all()
    for name in ("boxes", "xyxy", "scores", "classes"):
        assert not answer[name][count:].any()
    return count


@pytest.mark.parametrize("kind", list(FORMATS))
def test_alone_it_says_what_the_task_says(card: Card, made, kind: str, tmp_path: Path) -> None:
    images = IMAGES if kind == "savedmodel" else [IMAGES[2]]  # LiteRT: of the network's size
    task, answers = load_detector(card.folder, runtime="keras"), served(made(kind), images, tmp_path)
    found = [assert_same(answer, task, image) for answer, image in zip(answers, images, strict=True)]
    assert min(found) > 20


@pytest.mark.parametrize("kind", list(FORMATS))
def test_the_loader_runs_it_as_it_runs_the_card(card: Card, made, kind: str) -> None:
    task = load_detector(made(kind), trust=True, runtime=kind)
    card_task = load_detector(card.folder, runtime="keras")
    assert task.labels == LABELS
    for image in IMAGES:
        ours, theirs = task(image, conf=0.15), card_task(image, conf=0.15)
        assert len(ours) == len(theirs) > 0
        assert np.abs(ours.xyxy - theirs.xyxy).max() < 1e-4 * max(image.shape)
        assert (ours.class_id == theirs.class_id).all()


def test_a_background_among_the_labels_does_not_move_the_classes(tmp_path: Path) -> None:
    folder = write_detect_card(tmp_path / "tiny", labels=LABELS, size_hw=SIZE_HW)
    text = (folder / "card.toml").read_text()
    (folder / "card.toml").write_text(text.replace('["car"', '["background", "car"'))
    plan = make_plan(load_card(folder), ExportOptions("litert"))
    assert plan.card.labels == LABELS  # what the file will tell
    answer = {name: value[0] for name, value in batched(plan, IMAGES[2]).items()}
    assert assert_same(answer, load_detector(folder, runtime="keras"), IMAGES[2]) > 0


@pytest.mark.parametrize("limits", [{"max_det": 7}, {"conf": 0.01}, {"iou": 0.2}])
def test_a_cards_thresholds_are_inside(limits: dict[str, float], tmp_path: Path) -> None:
    lines = "\n".join(f"{key} = {value}" for key, value in limits.items())
    folder = write_detect_card(tmp_path / "tiny", size_hw=SIZE_HW)
    with (folder / "card.toml").open("a") as file:
        file.write(f"[options]\n{lines}\n")
    plan = make_plan(load_card(folder), ExportOptions("savedmodel"))
    answer = {name: value[0] for name, value in batched(plan, IMAGES[0]).items()}
    conf = limits.get("conf", detector_parts.SERVED_SCORE)
    count = assert_same(answer, load_detector(folder, runtime="keras"), IMAGES[0], conf=conf)
    assert len(answer["scores"]) == limits.get("max_det", 300) >= count


def test_no_more_than_the_rules_boxes_of_a_class_compete(card: Card) -> None:
    plan = make_plan(card, ExportOptions("savedmodel"))
    story = plan.serve.__self__
    object.__setattr__(story.rule, "candidates", 12)
    answer, wanted = batched(plan, IMAGES[0]), expected(plan, IMAGES[0])
    assert wanted["num_detections"][0] <= 12 * len(LABELS)
    assert worst(plan, answer, wanted) < 1e-5


def test_images_of_a_batch_do_not_meet(card: Card) -> None:
    plan = make_plan(card, ExportOptions("savedmodel"))
    two = np.stack([IMAGES[2], picture(*SIZE_HW, 9)])
    together = {name: np.asarray(value) for name, value in plan.serve(two[..., ::-1], False).items()}
    for place, image in enumerate(two):
        apart = {name: value[place : place + 1] for name, value in together.items()}
        assert worst(plan, apart, expected(plan, image)) < 1e-5


@pytest.mark.parametrize("fault", ["swapped", "background", "unscaled", "bgr", "iou", "threshold", "weights"])
def test_a_wrong_graph_is_found(card: Card, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, image = make_plan(card, ExportOptions("savedmodel")), IMAGES[0]
    story, wanted = plan.serve.__self__, expected(plan, image)
    assert worst(plan, batched(plan, image), wanted) < 1e-5
    to_image, inputs, decoded = DetectGraph.to_image, DetectGraph.inputs, type(story).decoded
    if fault == "swapped":
        monkeypatch.setattr(DetectGraph, "to_image", lambda s, b, *a: to_image(s, b, *a)[..., ::-1])
    elif fault == "background":
        monkeypatch.setattr(
            type(story), "decoded", lambda s, *a: {k: v + (k == "classes") for k, v in decoded(s, *a).items()}
        )
    elif fault == "unscaled":  # in pixels of the input
        monkeypatch.setattr(DetectGraph, "to_image", lambda s, b, *a: b)
    elif fault == "bgr":
        monkeypatch.setattr(DetectGraph, "inputs", lambda s, x, fixed: inputs(s, x[..., ::-1], fixed))
    elif fault == "iou":
        story.iou = 0.45
    elif fault == "threshold":
        story.parts.conf = 0.4
    else:
        object.__setattr__(story.rule, "weights", (10.0, 10.0, 8.0, 5.0))
    assert worst(plan, batched(plan, image), wanted) > 10 * 1e-4


def test_a_wrong_one_is_not_published(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_ssd, "CANDIDATES", 20)  # too few
    with pytest.raises(ModelError, match="was not written") as error:
        export_model(card, tmp_path / "net", format="savedmodel", probes=[IMAGES[0]])
    assert error.value.slug == "export-differs"
    assert not list(tmp_path.iterdir())


def answer_of(rows) -> dict[str, np.ndarray]:
    """(yxyx in shares, score, class) of each box as an answer of one image."""
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    scores, classes = (np.array([row[i] for row in rows]) for i in (1, 2))
    told = {"boxes": boxes, "xyxy": 100 * boxes[:, [1, 0, 3, 2]], "scores": scores, "classes": classes}
    padded = {name: np.pad(value, [(0, 5)] + [(0, 0)] * (value.ndim - 1)) for name, value in told.items()}
    return {**padded, "num_detections": np.array(len(rows))}


def test_ties_are_counted_and_nothing_else_is_forgiven() -> None:
    far, near = [0.6, 0.6, 0.9, 0.9], [0.1, 0.1, 0.4, 0.4]
    beside = [0.1, 0.1, 0.4, 0.37]  # an overlap of 0.9 with near
    one = answer_of([(near, 0.9, 1), (far, 0.7, 0)])
    how = {"conf": 0.05, "iou": 0.5}
    other = answer_of([(beside, 0.90004, 1), (far, 0.7, 0)])  # each suppresses the other, by a hair
    assert (match_boxes(one, other, **how).ties, match_boxes(one, other, **how).alone) == (2, 0)
    other = answer_of([(beside, 0.91, 1), (far, 0.7, 0)])
    assert match_boxes(one, other, **how).alone == 2
    other = answer_of([(near, 0.9, 1), (far, 0.7, 1)])  # another class
    assert match_boxes(one, other, **how).alone == 2
    other = answer_of([(near, 0.9, 1), (far, 0.7, 0), ([0, 0, 0.1, 0.1], 0.05005, 2)])  # at the least score
    assert (match_boxes(one, other, **how).ties, match_boxes(one, other, **how).alone) == (1, 0)
    other = answer_of([(near, 0.9, 1), (far, 0.7, 0), ([0, 0, 0.1, 0.1], 0.06, 2)])
    assert match_boxes(one, other, **how).alone == 1
    half = [0.1, 0.1, 0.3, 0.4]  # an overlap of 2/3
    other = answer_of([(near, 0.9, 1), (far, 0.7, 0), (half, 0.5, 1)])
    assert match_boxes(one, other, conf=0.05, iou=2 / 3).alone == 0
    assert match_boxes(one, other, conf=0.05, iou=0.6).alone == 1


def test_ties_are_bounded() -> None:
    boxes = [[0.1 * i, 0.1, 0.1 * i + 0.08, 0.9] for i in range(9)]
    one = answer_of([(box, 0.5, 0) for box in boxes])
    more = ([0, 0, 0.01, 0.01], 0.05001, 1)  # at the least score
    many = [answer_of([(box, 0.5, 0) for box in boxes] + [more] * count) for count in (2, 3)]
    compare = compare_boxes(conf=0.05, iou=0.5)
    batch = [{name: value[None] for name, value in answer.items()} for answer in (one, *many)]
    assert compare(batch[1], batch[0], "num_detections", 0) == 0
    assert compare(batch[2], batch[0], "num_detections", 0) == 1
    assert box_match.MOST_TIES < 0.05


def batched(plan: ExportPlan, image: np.ndarray) -> dict[str, np.ndarray]:
    """What the plan's graph says of an image of any size, with the batch's axis."""
    return {name: np.asarray(value) for name, value in plan.serve(image[None, ..., ::-1], False).items()}


def expected(plan: ExportPlan, image: np.ndarray) -> dict[str, np.ndarray]:
    """What the task says, with the batch's axis."""
    return {name: value[None] for name, value in plan.expected([image], False)[0].items()}


def worst(plan: ExportPlan, answer: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> float:
    """The largest difference as the check before publishing has it."""
    assert set(answer) == set(wanted)
    return max(plan.compare(answer, wanted, name, 1e-4) for name in wanted)
