"""Views of images with boxes: the boxes go where the pixels go, and batches are the same for a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.train.rendered_boxes import scene, write_voc
from visionkit.geometry.boxes import iou_pairwise
from visionkit.geometry.ssd_rule import SSDRule
from visionkit.tasks.input_rule import InputRule
from visionkit.train.detect_augment import DetectAugmentation, DetectView
from visionkit.train.detect_goal import placed, whole_view
from visionkit.train.detect_ssd import SSDTargets
from visionkit.train.detection_folders import read_detection_folders
from visionkit.train.detection_images import DetectBatches, DetectMaterial, check_detections

FILL = np.array([10, 10, 10], np.uint8)
OUT = (60, 80)


def marked(seed: int = 0) -> DetectView:
    """A grey image with one white box."""
    rng = np.random.default_rng(seed)
    image = np.full((90, 120, 3), 100, np.uint8)
    x, y, w, h = rng.integers(5, 40), rng.integers(5, 30), rng.integers(20, 60), rng.integers(20, 50)
    image[y : y + h, x : x + w] = 255
    return DetectView(image, np.array([[x, y, x + w, y + h]], float), np.array([1]), np.zeros(1, bool))


def seen(image: np.ndarray) -> list[float]:
    """The box around what is white."""
    rows, columns = np.nonzero(image.min(axis=2) > 178)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize(
    "options",
    [
        {"flip": "none", "mosaic": 0.0},
        {"flip": "both", "mosaic": 0.0},
        {"flip": "both", "mosaic": 0.0, "turns": True},
        {"flip": "horizontal", "mosaic": 0.0, "strength": 2.0},
    ],
)
def test_boxes_lie_where_the_pixels_lie(options: dict[str, object]) -> None:
    change = DetectAugmentation(light=0, colour=0, **options)  # type: ignore[arg-type]
    checked = 0
    for seed in range(60):
        view = change(lambda number, seed=seed: marked(seed), OUT, np.random.default_rng(seed), FILL)
        assert view.image.shape == (*OUT, 3)
        if len(view.xyxy):
            np.testing.assert_allclose(view.xyxy[0], seen(view.image), atol=1.01)
            checked += 1
    assert checked > 40


def test_wrong_boxes_would_be_noticed() -> None:
    """A mirror that forgets the boxes fails the comparison above."""
    change = DetectAugmentation(flip="horizontal", mosaic=0, light=0, colour=0, still=1.0)
    worst = 0.0
    for seed in range(20):
        plain = DetectAugmentation(strength=0)(lambda n, s=seed: marked(s), OUT, np.random.default_rng(seed), FILL)
        view = change(lambda n, s=seed: marked(s), OUT, np.random.default_rng(seed), FILL)
        worst = max(worst, np.abs(plain.xyxy[0] - seen(view.image)).max())
    assert worst > 5


def test_a_mosaic_holds_four_images_with_their_boxes() -> None:
    change = DetectAugmentation(flip="none", mosaic=1.0, light=0, colour=0)
    asked: list[int] = []

    def draw(number: int) -> DetectView:
        asked.append(number)
        return marked(number)

    view = change(draw, OUT, np.random.default_rng(3), FILL)
    assert asked == [0, 1, 2, 3]
    for box in view.xyxy:
        x1, y1, x2, y2 = np.rint(box).astype(int)
        assert (view.image[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].min(axis=2) > 178).mean() > 0.95


def test_a_box_of_which_little_is_seen_does_not_count() -> None:
    change = DetectAugmentation(flip="none", mosaic=0, light=0, colour=0, zoom_in=4.0, zoom_out=1.0, still=0.0)
    shares = []
    for seed in range(100):
        view = change(lambda n: marked(7), OUT, np.random.default_rng(seed), FILL)
        if len(view.xyxy):
            shares.append(bool(view.ignored[0]))
    assert 0 < sum(shares) < len(shares)


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="strength=3"):
        DetectAugmentation(strength=3)
    with pytest.raises(ValueError, match="flip='up'"):
        DetectAugmentation(flip="up")


def batches(root: Path, workers: int) -> DetectBatches:
    folders = read_detection_folders(root)
    material = DetectMaterial()
    rule = InputRule.preset("tf", (64, 96))
    targets = SSDTargets(SSDRule.of_network({"size_hw": (64, 96), "first_stride": 8, "extras": ()}))
    samples = check_detections(folders, material).samples
    options = {"batch": 3, "seed": 1, "repeats": 2, "workers": workers}
    return DetectBatches(material, samples, rule, DetectAugmentation(), targets, **options)  # type: ignore[arg-type]


def test_batches_are_the_same_for_a_seed_and_start_anywhere(tmp_path: Path) -> None:
    write_voc(tmp_path, {"train": 7})
    one, two = batches(tmp_path, 1), batches(tmp_path, 2)
    assert one.steps_per_epoch == 4  # 14 views in batches of 3
    first = [value for _, value in zip(range(6), one.stream(0), strict=False)]
    again = [value for _, value in zip(range(2), two.stream(4), strict=False)]
    for (x, y), (other_x, other_y) in zip(first[4:], again, strict=True):
        np.testing.assert_array_equal(x, other_x)
        np.testing.assert_array_equal(y, other_y)
    shown = {chosen for step in range(4) for chosen, _ in one._chosen(step)}
    assert len(shown) == 7


def test_targets_of_an_ssd() -> None:
    targets = SSDTargets(SSDRule.of_network({"size_hw": (64, 96), "first_stride": 8, "extras": ()}))
    anchors = targets.anchors
    boxes = np.array([[10.0, 10.0, 30.0, 32.0], [50.0, 20.0, 53.0, 22.0], [0.0, 40.0, 40.0, 64.0]])
    view = DetectView(np.zeros((64, 96, 3), np.uint8), boxes, np.array([0, 2, 1]), np.array([False, False, True]))
    out = targets(view, np.random.default_rng(0))
    iou = iou_pairwise(anchors, boxes[:2])
    assert iou[:, 1].max() < 0.5
    assert (out[:, 0] == 3).sum() == 1  # the small one's best box stands for it all the same
    assert out[iou[:, 1].argmax(), 0] == 3
    rest = iou[:, 0] >= 0.5
    rest[iou[:, 1].argmax()] = False
    assert (out[rest, 0] == 1).all()
    assert set(np.unique(out[:, 0])) == {-1, 0, 1, 3}


def test_placing_there_and_back() -> None:
    image, boxes = scene(np.random.default_rng(0))
    xyxy = np.array([box for _, box in boxes])
    view = DetectView(image, xyxy, np.array([kind for kind, _ in boxes]), np.zeros(len(boxes), bool))
    from visionkit.tasks.detect_network import RawDetections

    for resize in ("stretch", "letterbox"):
        rule = InputRule.preset("tf", (64, 64), resize=resize)
        inside = whole_view(view, rule)
        raw = RawDetections(inside.xyxy.astype(np.float32), np.ones(len(xyxy), np.float32), view.class_id + 1)
        back = placed(raw, rule, (image.shape[0], image.shape[1]))
        np.testing.assert_allclose(back.xyxy, xyxy, atol=1e-3)
        assert back.class_id.tolist() == view.class_id.tolist()
