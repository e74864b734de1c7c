"""Frames in order: what follows what, a CRF that goes on from the frame before, and flicker."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from tests.tasks.made_segment import halves, made_segmenter
from visionkit.crf import CRFParams, Flicker
from visionkit.io import VideoWriter, read_results
from visionkit.pipeline import Item, MaskSink, Reading, SegmentStage, Writing, run
from visionkit.pipeline.over_time import Continuity, FlickerMeter, flicker_size
from visionkit.structures import Frame
from visionkit.tasks.refine import Refiner, warm_iterations

SIZE_HW = (28, 36)  # so small that the CRF is exact, which needs no compiling
COUNT = 12
CRF = CRFParams(theta_alpha=6, theta_beta=40, theta_gamma=1, bilateral_weight=3, gaussian_weight=1, iterations=2)


def textured(size_hw=SIZE_HW, at=14, seed=1):
    """Red left of `at`, green right of it, with a grain that optical flow can hold on to."""
    grain = np.random.default_rng(seed).integers(0, 120, (*size_hw, 1)).astype(np.uint8)
    grain = cv2.GaussianBlur(grain, (0, 0), 1.5).reshape(*size_hw, 1)
    return np.where(halves(size_hw, at=at) > 0, 255 - grain, grain).astype(np.uint8)


def still(index, *, pts_ms=None, damaged=False, size_hw=SIZE_HW, image=None):
    image = textured(size_hw) if image is None else image
    return Frame(image, index, 40.0 * index if pts_ms is None else pts_ms, 40.0, "clip", damaged)


def told(frames):
    follows = Continuity()
    return [follows(frame) for frame in frames]


def test_frames_follow_each_other_by_index_whatever_the_stride():
    assert told(still(i) for i in (0, 1, 2)) == [False, True, True]
    assert told(still(i) for i in (7, 12, 17, 22)) == [False, True, True, True]


def test_lost_frames_time_damage_and_size_break_the_line():
    assert told(still(i) for i in (0, 1, 4, 5)) == [False, True, False, True]
    assert told(still(i) for i in (0, 3, 9, 12)) == [False, True, False, True]  # with a stride of 3
    assert told(still(i, damaged=i == 2) for i in range(5)) == [False, True, False, False, True]
    assert told(still(i, size_hw=(30, 36) if i > 1 else SIZE_HW) for i in range(4)) == [False, True, False, True]
    times = (0, 40, 80, 900, 940, 300)
    assert told(still(i, pts_ms=t) for i, t in enumerate(times)) == [False, True, True, False, True, False]
    slow = (0, 2000, 4000, 6000)  # one frame in two seconds is this video's beat
    assert told(still(i, pts_ms=t) for i, t in enumerate(slow)) == [False, True, True, True]


def test_flicker_is_the_share_of_pixels_that_change_class_without_a_reason():
    meter, image = FlickerMeter(), textured()
    steady = (np.indices(SIZE_HW)[1] >= 14).astype(np.uint8)
    other = steady.copy()
    other[:7] = 2  # a quarter
    for index in range(5):
        meter(image, {"steady": steady, "restless": other if index % 2 else steady})
    assert meter.summary() == {"steady": 0.0, "restless": 0.25, "pairs": 4, "size_hw": list(SIZE_HW)}
    meter.cut()
    meter(image, {"steady": other})
    assert meter.summary()["steady"] == 0  # what came before the cut is not compared


def test_flicker_of_a_large_image_is_measured_in_a_small_one():
    large = (540, 960)
    assert flicker_size(large) == (192, 341)
    image = cv2.resize(textured((54, 96)), large[::-1], interpolation=cv2.INTER_CUBIC)
    rng = np.random.default_rng(3)
    maps = [(rng.random(large) < 0.1).astype(np.uint8) for _ in range(4)]
    meter, whole = FlickerMeter(), Flicker()
    for labels in maps:
        meter(image, {"noise": labels})
        whole(image, labels)
    assert meter.summary()["noise"] == pytest.approx(whole.mean, abs=0.01)
    assert whole.mean == pytest.approx(2 * 0.1 * 0.9, abs=0.01)


def test_nothing_to_compare_says_nothing():
    meter = FlickerMeter()
    assert meter.summary() is None
    for _ in range(3):
        meter(np.zeros((3, 5, 3), np.uint8), {"classes": np.zeros((3, 5), np.uint8)})
    assert meter.summary() is None


def test_warm_iterations():
    assert [warm_iterations(n) for n in (0, 1, 5, 10)] == [0, 1, 2, 4]


def probs_of(image, seed, share=0.25):
    """Probabilities of two classes by colour, with wrong patches."""
    rng = np.random.default_rng(seed)
    green = image[..., 1] > image[..., 2]
    small = (rng.random((4, 5)) < share).astype(np.uint8)
    wrong = cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
    second = np.where(green ^ wrong, 0.65, 0.35).astype(np.float32)
    return np.stack([1 - second, second], axis=2)


def test_the_first_frame_and_one_behind_a_reset_are_those_of_a_single_image():
    refiner, image = Refiner(CRF), textured()
    video = refiner.video()
    first, second = video(probs_of(image, 0), image), video(probs_of(image, 1), image)
    alone = refiner(probs_of(image, 1), image)
    assert np.allclose(first, refiner(probs_of(image, 0), image), atol=1e-6)
    assert video.warm
    assert np.abs(second - alone).max() > 0.01
    video.reset()
    assert np.allclose(video(probs_of(image, 1), image), alone, atol=1e-6)
    assert not video.warm


def test_what_is_prepared_in_any_order_is_settled_as_if_frame_by_frame():
    image = textured()
    one, other = Refiner(CRF).video(), Refiner(CRF).video()
    ready = [one.prepare(probs_of(image, k), image) for k in (2, 1, 0)]
    for k, prepared in enumerate(reversed(ready)):
        assert np.array_equal(one.settle(prepared), other(probs_of(image, k), image))


def test_a_change_of_size_starts_anew_also_where_the_crf_works_at_a_smaller_size():
    refiner = Refiner(CRF, max_pixels=28 * 18)
    video = refiner.video()
    for size_hw in (SIZE_HW, SIZE_HW, (56, 40), (56, 40), SIZE_HW):
        image = textured(size_hw)
        expected = refiner(probs_of(image, 2), image)
        found = video(probs_of(image, 2), image)
        assert found.shape == (*size_hw, 2)
        assert video.warm or np.allclose(found, expected, atol=1e-6)


def restless(inputs):
    """The network by colour, unsure and with noise that differs from frame to frame, by the frame itself."""
    image = inputs[0]
    rng = np.random.default_rng(int(np.abs(image[:4]).sum() * 64) % (1 << 31))
    small = cv2.resize(np.ascontiguousarray(image), (image.shape[1] // 8, image.shape[0] // 8))
    lead = (small[..., 1] - small[..., 0]) / 255 + rng.normal(0, 0.8, small.shape[:2])
    away = np.full(lead.shape, -9.0)
    return np.dstack([away, -lead, lead, away])[None]


def write_clip(path, count=COUNT, change=lambda index, image: image):
    with VideoWriter(path, size_hw=SIZE_HW, fps=25) as writer:
        for index in range(count):
            writer.write(change(index, textured(at=8 + 2 * index)), 40.0 * index, 40.0)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


def segmented(source, out, *, reading=None, crf=CRF, **options):
    stage = SegmentStage(made_segmenter(restless, crf=crf), **options)
    run(source, [stage], reading=reading, writing=Writing(out=out, video=False), sinks=[MaskSink(stage)])
    masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted((out / "masks").glob("*.png"))]
    return masks, list(read_results(out / "results.jsonl")), json.loads((out / "run.json").read_text())


def test_results_do_not_depend_on_the_number_of_workers(clip, tmp_path):
    one = segmented(clip, tmp_path / "one", workers=1)
    four = segmented(clip, tmp_path / "four", workers=4)
    assert len(one[0]) == COUNT
    assert all(np.array_equal(a, b) for a, b in zip(one[0], four[0], strict=True))
    assert one[1] == four[1]
    assert one[2]["summary"] == four[2]["summary"]


def test_a_warm_crf_flickers_less_than_one_without_memory_and_the_network_most(clip, tmp_path):
    warm = segmented(clip, tmp_path / "warm")[2]
    cold = segmented(clip, tmp_path / "cold", warm=False)[2]
    none = segmented(clip, tmp_path / "none", crf=None)[2]
    a, b, c = (found["summary"]["segment"]["flicker"] for found in (warm, cold, none))
    assert a["classes"] < 0.95 * b["classes"]
    assert b["classes"] < b["before_crf"] == a["before_crf"] == c["classes"]
    assert a["pairs"] == COUNT - 1
    assert "before_crf" not in c
    assert [found["settings"]["segment"]["crf_over_time"] for found in (warm, cold, none)] == [True, False, False]


def test_a_run_that_starts_later_starts_anew(clip, tmp_path):
    whole, _, _ = segmented(clip, tmp_path / "whole")
    late, rows, _ = segmented(clip, tmp_path / "late", reading=Reading(start_s=0.2))
    alone, _, _ = segmented(clip, tmp_path / "alone", warm=False)
    first = rows[0]["index"]
    assert first == 5
    assert np.array_equal(late[0], alone[first])
    assert not np.array_equal(whole[first], alone[first])


def test_every_third_frame_still_goes_on_from_the_one_before(clip, tmp_path):
    found = segmented(clip, tmp_path / "out", reading=Reading(stride=3))[2]
    assert found["summary"]["segment"]["flicker"]["pairs"] == COUNT // 3 - 1


def test_a_cut_starts_anew_and_is_no_flicker(tmp_path):
    def change(index, image):
        return image if index < 6 else cv2.flip(image, 1) // 5  # as dark as night

    source = write_clip(tmp_path / "cut.mp4", change=change)
    warm, _, told = segmented(source, tmp_path / "warm")
    alone, _, _ = segmented(source, tmp_path / "alone", warm=False)
    same = [np.array_equal(a, b) for a, b in zip(warm, alone, strict=True)]
    assert same[0]
    assert same[6]
    assert not any(same[1:6])
    assert told["summary"]["segment"]["flicker"]["pairs"] == COUNT - 2


def test_a_damaged_frame_neither_starts_from_another_nor_is_started_from():
    stage = SegmentStage(made_segmenter(restless, crf=CRF))
    frames = [still(i, damaged=i == 2, image=textured(at=8 + 2 * i)) for i in range(5)]
    stage.setup(None, frames[0])
    alone = made_segmenter(restless, crf=CRF)
    same = []
    for frame in frames:
        items = [Item(frame)]
        stage.process(items)
        stage.settle(items)
        same.append(np.array_equal(items[0].results["segment"].class_map, alone(frame.image).class_map))
        assert set(items[0].results) == {"segment"}  # nothing of what was on the way is held any longer
    assert same == [True, False, True, True, False]


def test_images_have_no_flicker_and_no_frame_before(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(3):
        cv2.imwrite(str(folder / f"{index}.png"), textured(at=8 + index))
    _, _, told = segmented(folder, tmp_path / "out")
    assert told["summary"] == {}
    assert told["settings"]["segment"]["crf_over_time"] is False
