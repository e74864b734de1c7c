"""Runs that detect: rows, order, failing frames, numbers, counts, changes of size."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from tests.tasks.made_detect import failing, made_detector, scene, squares
from visionkit.errors import ModelError, UsageError
from visionkit.geometry.rle import rle_decode
from visionkit.io import VideoWriter, read_results
from visionkit.pipeline import DetectStage, Writing, run, stream
from visionkit.structures import Detections, Frame
from visionkit.tasks import AssociationOptions, CountPlan
from visionkit.tasks.association import ByteAssociator

SIZE_HW = (96, 160)
COUNT = 60


def place_of(index):
    """Left edge of the red object; the green one stands still."""
    return 2 + 2 * index


def frame_at(index):
    left = place_of(index)
    return scene(SIZE_HW, [("red", left, 20, left + 24, 44), ("green", 100, 60, 130, 90)])


def is_late(image):
    """Whether an input is one of frames 20 and 21."""
    columns = np.flatnonzero((image[..., 0] - image[..., 1] > 120).any(axis=0))
    return len(columns) > 0 and place_of(20) - 1 <= columns[0] <= place_of(21) + 1


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with VideoWriter(path, size_hw=SIZE_HW, fps=25) as writer:
        for index in range(COUNT):
            writer.write(frame_at(index), 40.0 * index, 40.0)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """30 images; image 7 shows nothing."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(30):
        image = scene(SIZE_HW, []) if index == 7 else frame_at(index)
        cv2.imwrite(str(folder / f"{index:03}.png"), image)
    return folder


def detected(source, out, detector, **options):
    writing = Writing(out=out, video=False, formats=options.pop("formats", ("jsonl",)))
    stage = DetectStage(detector, **options)
    result = run(source, [stage], writing=writing)
    return result, list(read_results(out / "results.jsonl"))


def test_rows_equal_the_detector_image_by_image(folder, tmp_path):
    result, rows = detected(folder, tmp_path / "out", made_detector(size_hw=SIZE_HW))
    assert result.status == "complete"
    alone = made_detector(size_hw=SIZE_HW)
    for row in rows:
        found = alone(cv2.imread(str(folder / row["source"])))
        assert [one["xyxy"] for one in row["detections"]] == np.round(found.xyxy, 2).tolist()
        assert [one["class_name"] for one in row["detections"]] == [alone.labels[i] for i in found.class_id]
        assert "mask" not in json.dumps(row)
    assert rows[7]["detections"] == []
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["model"]["name"] == "made"
    assert manifest["settings"]["detect"]["conf"] == 0.25
    assert manifest["settings"]["detect"]["track"] is None


def test_masks_are_in_the_rows_as_coco_run_lengths(folder, tmp_path):
    detector = made_detector(lambda image: squares(image, masks=True), size_hw=SIZE_HW)
    _, rows = detected(folder, tmp_path / "out", detector)
    found = detector(cv2.imread(str(folder / rows[3]["source"])))
    for one, mask in zip(rows[3]["detections"], found.mask, strict=True):
        np.testing.assert_array_equal(rle_decode(one["mask"]), mask)


@pytest.mark.parametrize(("workers", "batch"), [(4, 1), (3, 4)])
def test_workers_and_batches_keep_order_and_numbers(clip, tmp_path, workers, batch):
    how = {"count": CountPlan(lines=(((80, 0), (80, 96)),), line_anchor="center")}
    plain = detected(clip, tmp_path / "one", made_detector(size_hw=SIZE_HW), associate=ByteAssociator(), **how)[1]
    detector = made_detector(size_hw=SIZE_HW, instances=2, batch=2)
    many = detected(clip, tmp_path / "many", detector, associate=ByteAssociator(), workers=workers, batch=batch, **how)[
        1
    ]
    assert many == plain
    assert plain[-1]["counts"] == {"lines": [{"in": 1, "out": 0}]}  # to the left hand of who looks down


def test_numbers_follow_their_objects(clip, tmp_path):
    _, rows = detected(clip, tmp_path / "out", made_detector(size_hw=SIZE_HW), associate=ByteAssociator())
    for row in rows:
        assert {one["class_name"]: one["tracker_id"] for one in row["detections"]} in (
            {"red": 1, "green": 2},
            {"red": 2, "green": 1},
        )
    settings = json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["detect"]["track"]
    assert (settings["tracker"], settings["low"]) == ("own", 0.1)


@pytest.mark.parametrize("kind", ["raise", "nan"])
def test_d14_a_frame_that_fails_fails_alone(folder, tmp_path, kind):
    clean = detected(folder, tmp_path / "clean", made_detector(size_hw=SIZE_HW))[1]
    result, rows = detected(
        folder, tmp_path / "out", made_detector(failing(lambda image: (image == 90).all(), kind), size_hw=SIZE_HW)
    )
    assert (result.status, result.exit_code) == ("damaged", 4)
    assert "detect: " in rows[7]["error"]
    assert "detections" not in rows[7]
    assert rows[:7] + rows[8:] == clean[:7] + clean[8:]


def test_a_failed_frame_interrupts_no_number_and_no_count(clip, tmp_path):
    plan = CountPlan(lines=(((80, 0), (80, 96)),))
    how = {"associate": ByteAssociator(), "count": plan}
    clean = detected(clip, tmp_path / "a", made_detector(size_hw=SIZE_HW), **how)[1]
    how["associate"] = ByteAssociator()
    rows = detected(clip, tmp_path / "b", made_detector(failing(is_late), size_hw=SIZE_HW), **how)[1]
    assert rows[22:] == clean[22:]


def test_a_run_in_which_everything_fails_is_the_models_error(folder, tmp_path):
    with pytest.raises(ModelError, match="made to fail"):
        detected(folder, tmp_path / "out", made_detector(failing(lambda image: True)))
    assert not (tmp_path / "out").exists()


def test_another_size_in_the_middle_begins_new_numbers_and_goes_on():
    stage = DetectStage(made_detector(resize="letterbox"), associate=ByteAssociator())
    small, large = scene((96, 128), [("red", 10, 10, 40, 40)]), scene((192, 256), [("red", 20, 20, 80, 80)])
    frames = [Frame(large if index >= 4 else small, index, 40.0 * index, 40.0, "x") for index in range(8)]
    from visionkit.pipeline import Item

    class Info:
        kind = "video"

    stage.setup(Info(), frames[0])
    numbers = []
    for frame in frames:
        item = Item(frame)
        stage.process([item])
        stage.settle([item])
        assert item.results["detect"].xyxy[0, 2] <= frame.size_hw[1]
        numbers.append(int(item.results["detect"].tracker_id[0]))
    assert numbers[:4] == [1] * 4
    assert set(numbers[4:]) == {2}


def test_weak_boxes_reach_the_tracker_and_no_row_of_their_own(tmp_path, folder):
    """Below `conf` a box is in a row only where it continues an object."""

    def function(image):
        boxes, scores, classes, masks = squares(image)
        return boxes, [0.15 if c == 2 else s for s, c in zip(scores, classes, strict=True)], classes, masks

    detector = made_detector(function, size_hw=SIZE_HW)
    _, rows = detected(folder, tmp_path / "out", detector, associate=ByteAssociator(AssociationOptions()))
    assert {one["class_name"] for row in rows for one in row["detections"]} == {"red"}


def test_lines_and_zones_outside_are_refused_before_anything_is_written(clip, tmp_path):
    for plan in (
        CountPlan(lines=(((200, 0), (300, 50)),)),
        CountPlan(zones=(((0, 100), (50, 100), (50, 180)),)),
        CountPlan(zones=(((0, 0), (50, 0), (50, 1e9)),)),
    ):
        with pytest.raises(UsageError, match="first frame, which is 160 wide and 96 high"):
            detected(clip, tmp_path / "out", made_detector(), count=plan)
    assert not (tmp_path / "out").exists()


def test_a_stream_yields_detections_with_numbers(clip):
    import visionkit as vk

    found = list(vk.stream(clip, made_detector(size_hw=SIZE_HW), associate=True))
    assert len(found) == COUNT
    frame, detections = found[-1]
    assert isinstance(detections, Detections)
    assert frame.index == COUNT - 1
    assert (detections.tracker_id > 0).all()
    plain = next(iter(stream(clip, DetectStage(made_detector(size_hw=SIZE_HW)))))
    assert plain[1].tracker_id is None
