"""Numbers over time: our own tracker on paths whose truth is known, and that of the package where it is installed."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from visionkit.structures import Detections
from visionkit.tasks import AssociationOptions, make_associator
from visionkit.tasks.association import TRACKER_KINDS, ByteAssociator
from visionkit.tasks.motion import Motion

LIBRARY = importlib.util.find_spec("trackers") is not None
KINDS = ["own", *(["bytetrack", "sort", "ocsort"] if LIBRARY else [])]


def seen(boxes, scores=None, classes=None):
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(count, 0.9, np.float32) if scores is None else np.array(scores, np.float32),
        np.zeros(count, np.int64) if classes is None else np.array(classes, np.int64),
    )


def box(x, y, w=40, h=30):
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def two_paths(time_s):
    """Two objects that pass each other at different heights, 120 pixels a second."""
    return [box(50 + 120 * time_s, 100), box(350 - 120 * time_s, 112)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fps", [30, 12.5, 6])
def test_two_objects_that_pass_keep_their_numbers(kind, fps):
    associate = make_associator(kind)
    numbers = []
    for frame in range(int(2.4 * fps)):
        found = associate(seen(two_paths(frame / fps)), frame / fps)
        assert len(found) == 2
        numbers.append(found.tracker_id.tolist())
    settled = numbers[4:]
    assert settled[0][0] != settled[0][1]
    if kind == "own" or fps > 10:  # the others lose what moves half its width a frame
        assert all(ids == settled[0] for ids in settled)
    if kind == "own":
        assert settled[0] == [1, 2]


def test_noise_and_shuffled_order_do_not_swap_numbers():
    generator = np.random.default_rng(5)
    associate, path_of = ByteAssociator(), {}
    for frame in range(60):
        boxes = np.array(two_paths(frame / 25)) + generator.normal(0, 1.5, (2, 4))
        order = generator.permutation(2)
        found = associate(seen(boxes[order]), frame / 25)
        for path, number in zip(order, found.tracker_id, strict=True):
            assert path_of.setdefault(int(number), int(path)) == path
    assert sorted(path_of) == [1, 2]


def test_a_missing_object_comes_back_under_its_number_in_time_but_not_later():
    for gap_s, same in ((0.4, True), (0.9, True), (1.6, False)):
        associate, time_s, before = ByteAssociator(), 0.0, None
        for _ in range(15):
            before = associate(seen([box(60 + 40 * time_s, 80)]), time_s)
            time_s += 0.04
        end = time_s + gap_s
        while time_s < end:
            associate(seen([]), time_s)
            time_s += 0.04
        for _ in range(3):
            after = associate(seen([box(60 + 40 * time_s, 80)]), time_s)
            time_s += 0.04
        assert bool(after.tracker_id[0] == before.tracker_id[0]) is same


def test_time_is_what_counts_and_not_frames():
    """The same clip with every fifth frame gives the same objects; with frames counted it would be lost."""
    for stride in (1, 2, 5):
        associate, ids = ByteAssociator(), set()
        for frame in range(0, 60, stride):
            ids |= set(associate(seen(two_paths(frame / 30)), frame / 30).tracker_id.tolist())
        assert ids - {-1} == {1, 2}


def test_weak_boxes_continue_objects_and_begin_none():
    associate = ByteAssociator()
    for frame in range(6):
        associate(seen([box(50 + 3 * frame, 50)]), frame / 30)
    found = associate(seen([box(68, 50), box(200, 200)], [0.15, 0.15]), 0.2)
    assert found.tracker_id.tolist() == [1]
    assert found.confidence.tolist() == pytest.approx([0.15])
    assert len(associate(seen([box(71, 50)], [0.05]), 0.233)) == 0  # below `low`


def test_what_is_seen_once_has_no_number():
    associate = ByteAssociator()
    associate(seen([box(50, 50)]), 0.0)
    found = associate(seen([box(50, 50), box(300, 300)]), 0.033)
    assert found.tracker_id.tolist() == [1, -1]
    found = associate(seen([box(50, 50)]), 0.066)
    assert associate(seen([box(50, 50), box(300, 300)]), 0.1).tracker_id.tolist() == [1, -1]
    assert associate(seen([box(50, 50), box(301, 300)]), 0.133).tracker_id.tolist() == [1, 2]


def test_classes_take_part_but_a_detector_may_change_its_mind():
    associate = ByteAssociator()
    for frame in range(5):
        associate(seen([box(50, 50), box(75, 50)], classes=[0, 1]), frame / 30)
    swapped = associate(seen([box(52, 50), box(73, 50)], classes=[1, 1]), 5 / 30)
    assert swapped.tracker_id.tolist() == [1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_reset_steps_back_and_repeated_times(kind):
    associate = make_associator(kind)
    for frame in range(5):
        first = associate(seen([box(50, 50)]), frame / 30)
    assert len(associate(seen([box(50, 50)]), 4 / 30)) == 1  # the same time again
    for frame in range(5):  # the clock steps back: a new part
        found = associate(seen([box(50, 50)]), frame / 30)
    assert found.tracker_id[0] > first.tracker_id[0]
    associate.reset()
    for frame in range(5):
        later = associate(seen([box(50, 50)]), 1 + frame / 30)
    assert later.tracker_id[0] > found.tracker_id[0]
    assert associate(seen([]), 3.0).tracker_id.shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_and_order_come_through(kind):
    associate = make_associator(kind)
    masks = np.zeros((2, 8, 9), bool)
    masks[1] = True
    for frame in range(4):
        given = seen([box(50, 50), box(200, 60)], [0.9, 0.95])
        given = Detections(given.xyxy, given.confidence, given.class_id, masks)
        found = associate(given, frame / 30)
        np.testing.assert_array_equal(found.xyxy, given.xyxy)
        np.testing.assert_array_equal(found.mask, masks)


def test_bad_arguments():
    with pytest.raises(ValueError, match="kind"):
        make_associator("deep")
    for name, value in {"conf": 2, "iou": -1, "hits": 0, "lost_s": 0}.items():
        with pytest.raises(ValueError, match=name):
            AssociationOptions(**{name: value})
    assert make_associator("auto").name == ("bytetrack" if LIBRARY else "own")
    if not LIBRARY:
        with pytest.raises(ImportError):
            make_associator("sort")
    assert set(KINDS) < set(TRACKER_KINDS)


def test_the_filter_against_the_textbooks_matrices():
    """One coordinate of one box through F, H, Q and R written out."""
    motion, dt = Motion(), 2.5
    motion.add(np.array([[0.0, 0.0, 40.0, 20.0]]))
    state, cov = np.array([20.0, 0.0]), np.diag([motion.spread[0, 0, 0], motion.spread[0, 0, 2]])
    for seen_x, height in ((30.0, 20.0), (41.0, 22.0), (50.0, 21.0)):
        scale = motion.place[0, 3] ** 2
        step = np.array([[1, dt], [0, 1]])
        state, cov = step @ state, step @ cov @ step.T + dt * np.diag([scale / 400, scale / 25600])
        motion.predict(dt)
        gain = cov[:, 0] / (cov[0, 0] + (height / 20) ** 2)
        state, cov = state + gain * (seen_x - state[0]), cov - np.outer(gain, cov[0])
        motion.correct(0, np.array([seen_x - 20, 0, seen_x + 20, height]))
        np.testing.assert_allclose([motion.place[0, 0], motion.speed[0, 0]], state)
        np.testing.assert_allclose(motion.spread[0, 0], [cov[0, 0], cov[0, 1], cov[1, 1]])
