"""Detectors over networks made by hand: coordinates, batches, thresholds, classes, masks, what is refused."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest

from tests.tasks.made_detect import made_detector, scene, squares
from visionkit.errors import ModelError, UsageError
from visionkit.structures import Detections
from visionkit.tasks import DetectOptions, InputRule
from visionkit.tasks.detect import class_ids
from visionkit.tasks.detect_fit import detect_fit, sampled

BLOBS = [("red", 40, 30, 120, 90), ("green", 160, 100, 200, 190)]


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "shortest_side"])
@pytest.mark.parametrize("size_hw", [(210, 330), (330, 210), (96, 128), (1000, 640)])
def test_boxes_come_back_in_pixels_of_the_image(resize, size_hw):
    scale = min(size_hw) / 210
    blobs = [(color, *(round(scale * v) for v in box)) for color, *box in BLOBS]
    found = made_detector(resize=resize)(scene(size_hw, blobs))
    assert isinstance(found, Detections)
    truth = np.array([box for _, *box in blobs], np.float32)
    step = max(size_hw[0] / 96, size_hw[1] / 128, max(size_hw) / 128)  # a pixel of the input
    assert found.class_id[np.argsort(found.class_id)].tolist() == [0, 1]
    assert np.abs(found.xyxy[np.argsort(found.class_id)] - truth).max() <= step


def test_a_box_at_the_edge_ends_there():
    found = made_detector(resize="letterbox")(scene((200, 300), [("blue", 250, 150, 300, 200)]))
    assert found.xyxy[0, 2] <= 300
    assert found.xyxy[0, 3] <= 200


def test_shortest_side_is_torchvisions_size():
    rule = InputRule.preset("torch", (800, 1333), resize="shortest_side")
    sizes = {(480, 640): (800, 1066), (375, 500): (800, 1066), (432, 768): (749, 1333), (1000, 333): (1333, 443)}
    for size_hw, resized in sizes.items():  # of torchvision 0.28
        fit = detect_fit(rule, size_hw)
        assert fit.resized_hw == resized
        assert fit.input_hw == tuple(-(-side // 32) * 32 for side in resized)
    out = np.full((*detect_fit(rule, (30, 40)).input_hw, 3), 9, np.float32)
    detect_fit(rule, (30, 40))(np.full((30, 40, 3), 200, np.uint8), rule, out)
    assert (out[:, 1066:] == 0).all()
    expected = (200 / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(out[5, 5], expected, atol=1e-5)


@pytest.mark.parametrize("size_hw", [(40, 60), (300, 200), (100, 35)])
def test_samples_are_plain_bilinear_at_pixel_centres(size_hw):
    """Against a loop, and against averaging, which shrinking would be with antialiasing."""
    image = np.random.default_rng(3).integers(0, 256, (*size_hw, 3), np.uint8)
    wanted = (24, 36)
    found = sampled(image, wanted)
    for y in range(0, wanted[0], 5):
        for x in range(0, wanted[1], 7):
            place = [(p + 0.5) * n / m - 0.5 for p, n, m in zip((y, x), size_hw, wanted, strict=True)]
            place = [min(max(p, 0), n - 1) for p, n in zip(place, size_hw, strict=True)]
            (y0, x0), total = (int(p) for p in place), np.zeros(3)
            for dy in (0, 1):
                for dx in (0, 1):
                    weight = abs(1 - dy - (place[0] - y0)) * abs(1 - dx - (place[1] - x0))
                    total += weight * image[min(y0 + dy, size_hw[0] - 1), min(x0 + dx, size_hw[1] - 1)]
            assert found[y, x] == pytest.approx(total, abs=0.02)
    if size_hw == (300, 200):
        assert np.abs(cv2.resize(image, (36, 24), interpolation=cv2.INTER_AREA) - found).max() > 20


def test_lists_batches_and_single_images_agree():
    images = [scene((210, 330), BLOBS[:k]) for k in (2, 1, 0, 2, 1)]
    images.insert(2, scene((330, 210), BLOBS))
    alone = [made_detector(resize="shortest_side")(image) for image in images]
    detector = made_detector(resize="shortest_side", batch=3)
    for one, together in zip(alone, detector(images), strict=True):
        np.testing.assert_array_equal(one.xyxy, together.xyxy)
        np.testing.assert_array_equal(one.confidence, together.confidence)
    assert len(alone[3]) == 0
    assert alone[3].xyxy.shape == (0, 4)
    assert {engine.calls for engine in detector.made} == {1, 2}  # 2 + filled up, 1, 3
    assert detector([]) == []


def test_the_valid_size_reaches_a_network_that_pads():
    detector = made_detector(resize="shortest_side")
    detector(scene((210, 330), BLOBS))
    assert detector.made[0].seen == [((96, 128), (81.0, 128.0))]


def test_conf_classes_and_max_det():
    image = scene((96, 128), [("red", 2, 2, 30, 30), ("green", 40, 2, 70, 30), ("green", 80, 40, 120, 90)])
    cv2.rectangle(image, (50, 10), (60, 20), (90, 90, 90), -1)  # a hole: less sure
    every = made_detector(conf=0.0)(image)
    assert len(every) == 3
    assert (np.diff(every.confidence) <= 0).all()
    assert len(made_detector(conf=0.95)(image)) == 2
    assert len(made_detector(max_det=1)(image)) == 1
    assert made_detector(classes=("Green",))(image).class_id.tolist() == [1, 1]
    assert made_detector(classes=(0, "blue"))(image).class_id.tolist() == [0]
    assert made_detector(classes=("green",), max_det=1, conf=0.0)(image).class_id.tolist() == [1]
    detector = made_detector(conf=0.95)
    assert len(detector(image, conf=0.1)) == 3


def test_background_among_the_labels_is_no_class():
    detector = made_detector(labels=("__background__", "red", "green", "blue"))
    assert detector.labels == ("red", "green", "blue")
    assert detector(scene((96, 128), [("red", 2, 2, 30, 30)])).class_id.tolist() == [0]


def test_unknown_classes_are_told_with_what_is_near():
    labels = ["person", "bicycle", "traffic light"]
    assert class_ids(["traffic light", "0", "PERSON"], labels).tolist() == [0, 2]
    with pytest.raises(UsageError, match="mean 'person'"):
        class_ids(["persn"], labels)
    with pytest.raises(UsageError, match="There are: person"):
        class_ids(["zzz"], labels)
    with pytest.raises(UsageError, match="has 3, from 0 on"):
        class_ids([3], labels)
    assert class_ids([7], []).tolist() == [7]
    with pytest.raises(UsageError, match="no class 'blu"):
        made_detector(classes=("blu-ray",))


def test_masks_lie_where_their_boxes_do():
    detector = made_detector(lambda image: squares(image, masks=True))
    found = detector(scene((192, 256), [("red", 40, 30, 120, 90), ("blue", 10, 100, 90, 180)]))
    assert found.mask.shape == (2, 192, 256)
    for box, mask in zip(found.xyxy, found.mask, strict=True):
        ys, xs = np.nonzero(mask)
        assert box[0] - 1 <= xs.min() <= box[0] + 4
        assert box[1] - 1 <= ys.min()
        assert ys.max() <= box[3]
        assert 0.4 < mask.sum() / np.prod(box[2:] - box[:2]) < 0.6  # a triangle
    assert (
        made_detector(lambda image: squares(image, masks=True), masks=False)(np.zeros((9, 9, 3), np.uint8)).mask is None
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["box", "score"])
def test_answers_that_are_not_finite_are_refused(bad, where):
    def function(image):
        boxes, scores, classes, masks = squares(image)
        return (
            (np.full_like(np.array(boxes, float), bad) if where == "box" else boxes),
            ([bad] if where == "score" else scores),
            classes,
            masks,
        )

    with pytest.raises(ModelError, match="not finite"):
        made_detector(function)(scene((96, 128), [("red", 2, 2, 30, 30)]))


def test_boxes_without_area_are_left_out():
    def function(image):
        return [[5, 5, 5, 9], [9, 9, 4, 20], [-30, -30, -2, -2], [1, 1, 9, 9]], [0.9] * 4, [1, 1, 1, 0], None

    assert len(made_detector(function)(np.zeros((96, 128, 3), np.uint8))) == 0  # the last one is background


def test_bad_arguments_are_told():
    for name, value in {"conf": 1.5, "iou": -0.1, "max_det": 0, "classes": ()}.items():
        with pytest.raises(ValueError, match=name):
            DetectOptions(**{name: value})
    with pytest.raises(ValueError, match="uint8"):
        made_detector()(np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="at least one pixel"):
        made_detector()(np.zeros((0, 4, 3), np.uint8))


def test_several_threads_share_the_instances():
    detector = made_detector(instances=2)
    images = [scene((96, 128), [("red", k, 5, k + 20, 40)]) for k in range(2, 60, 2)]
    found = {}

    def work(part):
        for place in part:
            found[place] = detector(images[place]).xyxy

    threads = [threading.Thread(target=work, args=(range(k, len(images), 3),)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert detector.instances == 2
    for place, boxes in found.items():
        assert boxes[0, 0] == 2 + 2 * place
