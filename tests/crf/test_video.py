"""The CRF over a video: marginals are carried the right way, labels flicker less, a cut is noticed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from visionkit.crf import CRFParams, Flicker, VideoCRF, flicker_index, mean_field, unary_from_labels
from visionkit.crf.video import backward_flow, warp

STEP = 3  # pixels a frame that the disc moves to the right


def textured(size_hw, seed):
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (*size_hw, 3)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 90, cv2.NORM_MINMAX)


def clip(frames=6, size_hw=(72, 110)):
    """A bright textured disc over a dark textured ground: images, true labels, and annotations that waver."""
    height, width = size_hw
    rng = np.random.default_rng(5)
    ground, disc = textured(size_hw, 1), textured((height, width + STEP * frames), 2) + 120
    y, x = np.mgrid[:height, :width]
    images, truths, unaries = [], [], []
    for i in range(frames):
        truth = ((x - 35 - STEP * i) ** 2 + (y - 36) ** 2 < 20**2).astype(int)
        moved = disc[:, STEP * (frames - i) : STEP * (frames - i) + width]
        images.append(np.where(truth[..., None] == 1, moved, ground).astype(np.uint8))
        truths.append(truth)
        wrong = cv2.resize(rng.random((9, 14)), (width, height), interpolation=cv2.INTER_NEAREST) < 0.3
        unaries.append(unary_from_labels(np.where(wrong, 1 - truth, truth), 2, 0.6))
    return images, truths, unaries


def test_flow_leads_back_and_warp_follows_it():
    images, truths, _ = clip(2)
    flow = backward_flow(images[1], images[0])
    inside = truths[1] == 1
    assert np.median(flow[inside][:, 0]) == pytest.approx(-STEP, abs=0.5)
    carried = warp(truths[0].astype(np.float32), flow, nearest=True)
    assert (carried == truths[1])[5:-5, 5:-5].mean() > 0.98
    forth = warp(truths[0].astype(np.float32), -flow, nearest=True)  # the wrong way
    assert (forth == truths[1]).mean() < (carried == truths[1]).mean() - 0.03


def test_warp_carries_many_labels_at_once():
    rng = np.random.default_rng(0)
    values = rng.random((20, 31, 9)).astype(np.float32)
    flow = np.zeros((20, 31, 2), np.float32)
    flow[..., 0] = 2
    assert np.allclose(warp(values, flow)[:, :-2], values[:, 2:], atol=1e-6)
    assert np.allclose(warp(values, flow)[:, -2:], values[:, -1:], atol=1e-6)


def test_flicker_index_by_hand():
    before = np.array([[0, 0, 1, 1]])
    flow = np.zeros((1, 4, 2), np.float32)
    flow[..., 0] = -1  # everything moved one pixel to the right; the leftmost was beyond the edge
    assert flicker_index(np.array([[0, 0, 0, 1]]), before, flow) == 0
    assert flicker_index(before, before, flow) == 0.25
    assert flicker_index(before, before, np.zeros_like(flow)) == 0
    assert flicker_index(before, before, flow, np.array([[1, 1, 0, 1]], bool)) == 0
    assert np.isnan(flicker_index(before, before, flow, np.zeros((1, 4), bool)))


def test_a_warm_start_flickers_less_and_is_no_worse():
    images, truths, unaries = clip(10)
    params = CRFParams(theta_alpha=20, theta_beta=20, bilateral_weight=3, gaussian_weight=1)
    video, alone = VideoCRF(params), CRFParams(**{**_fields(params), "iterations": 2})
    flicker = {"raw": Flicker(), "alone": Flicker(), "video": Flicker()}
    right: dict[str, list[float]] = {name: [] for name in flicker}
    for image, truth, unary in zip(images, truths, unaries, strict=True):
        marginals = {"raw": -unary, "alone": mean_field(unary, image, alone), "video": video(unary, image)}
        for name, q in marginals.items():
            labels = q.argmax(-1)
            flicker[name](image, labels)
            right[name].append((labels == truth).mean())
    assert flicker["video"].mean < 0.8 * flicker["alone"].mean < flicker["raw"].mean
    assert np.mean(right["video"][1:]) >= np.mean(right["alone"][1:])


def _fields(params):
    return {name: getattr(params, name) for name in params.__dataclass_fields__}


def test_a_field_made_beforehand_changes_nothing():
    images, _, unaries = clip(4)
    params = CRFParams(theta_alpha=20, theta_beta=20, bilateral_weight=3, gaussian_weight=1)
    video, ahead = VideoCRF(params), VideoCRF(params)
    fields = [ahead.prepare(image) for image in reversed(images)][::-1]  # in any order
    for image, unary, field in zip(images, unaries, fields, strict=True):
        assert np.array_equal(video(unary, image), ahead(unary, image, field=field))
        assert video.warm == ahead.warm
    wrong = ahead(unaries[3], images[3], field=fields[0])
    assert not np.array_equal(video(unaries[3], images[3]), wrong), "the control: another frame's field"
    for field in (ahead.prepare(images[0][:40]), VideoCRF().prepare(images[0])):
        with pytest.raises(ValueError, match="field"):
            ahead(unaries[0], images[0], field=field)


def test_a_cut_starts_anew():
    images, _, unaries = clip(3)
    video = VideoCRF()
    video(unaries[0], images[0])
    assert not video.warm
    video(unaries[1], images[1])
    assert video.warm
    other = 255 - textured(images[0].shape[:2], 9) * 2
    q = video(unaries[2], other)
    assert not video.warm
    assert np.array_equal(q, mean_field(unaries[2], other))
    flicker = Flicker()
    labels = q.argmax(-1)
    assert flicker(images[0], labels) is None
    assert flicker(other, labels) is None
    assert np.isnan(flicker.mean)


def test_another_size_or_number_of_labels_starts_anew():
    images, _, unaries = clip(2)
    video = VideoCRF()
    video(unaries[0], images[0])
    assert video(unaries[1][:40], images[1][:40]).shape == (40, 110, 2)
    assert not video.warm
    three = np.concatenate([unaries[1], unaries[1][..., :1]], axis=2)[:40]
    assert video(three, images[1][:40]).shape == (40, 110, 3)
    assert not video.warm
    video.reset()
    video(three, images[1][:40])
    assert not video.warm


def test_tiny_frames_need_no_flow():
    video = VideoCRF()
    for _ in range(2):
        q = video(np.zeros((5, 7, 2), np.float32), np.zeros((5, 7, 3), np.uint8))
    assert np.allclose(q, 0.5)


@pytest.mark.parametrize(("name", "value"), [("memory", 1.1), ("memory", -0.1), ("warm_iterations", -1)])
def test_bad_settings(name, value):
    with pytest.raises(ValueError, match=name):
        VideoCRF(**{name: value})


def test_images_must_be_what_flow_can_be_made_of():
    with pytest.raises(ValueError, match="optical flow"):
        VideoCRF()(np.zeros((20, 30, 2), np.float32), np.zeros((20, 30, 3), np.float32))
