"""Trackers on trial: what counts, how it is drawn, what is recorded for the calibration, and where two tracks part."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest

from visionkit.compress.measure_variants import compare_measured
from visionkit.compress.paired import STRETCH, TrackOutcome, compare_paired
from visionkit.compress.trial_track import recorded_calls
from visionkit.compress.trials import DataChoice, make_trial
from visionkit.compress.verdict import Bounds, VariantFacts, judge
from visionkit.errors import InputError, UsageError
from visionkit.evaluate.track import evaluate_tracker
from visionkit.structures import Track
from visionkit.weights.card import Card

CARD = Card("made", Path(), "track", "siambox", "Apache-2.0")
SIZE_HW = (60, 90)


def write_sequences(root: Path, counts: dict[str, int]) -> Path:
    """A bright square that moves by a pixel a frame to the right, from x = 10."""
    for name, count in counts.items():
        (root / name / "img").mkdir(parents=True)
        rows = []
        for k in range(count):
            image = np.full((*SIZE_HW, 3), 30, np.uint8)
            image[20:40, 10 + k : 30 + k] = 220
            cv2.imwrite(str(root / name / "img" / f"{k:04d}.png"), image)
            rows.append(f"{10 + k},20,20,20")
        (root / name / "groundtruth_rect_0based.txt").write_text("\n".join(rows))
    return root


class Follower:
    """Finds the bright square, and is `late` pixels behind from the frame `start` on."""

    def __init__(self, late: int = 0, start: int = 0) -> None:
        self.late, self.start, self.frame = late, start, 0

    def init(self, image, xyxy):
        self.frame = 0

    def update(self, image):
        self.frame += 1
        left = int(np.flatnonzero(image[30, :, 0] > 128)[0]) - self.late * (self.frame >= self.start)
        return Track(np.array([left, 20, left + 20, 40], np.float32), 0.9, "tracking")


@pytest.fixture
def trial(tmp_path):
    return make_trial(CARD, DataChoice(write_sequences(tmp_path / "data", {"long": 40, "short": 12})))


def test_the_score_is_that_of_eval(trial):
    measured = trial.measure(Follower(late=4))
    scores = evaluate_tracker(lambda: Follower(late=4), trial.samples)
    got = measured.outcome.scores(measured.outcome.whole())[0]
    np.testing.assert_allclose(got, [np.mean([one.auc for one in scores]), *(one.auc for one in scores)])
    assert (measured.outcome.images, list(measured.outcome.counts)) == (2, [40, 12])
    assert trial.labels == ("long", "short")


def test_a_later_track_loses_what_its_overlap_says(trial):
    """Behind by 4 of 20 pixels: 16 / 24 = 0.67 overlaps, which is more than 14 of the 21 thresholds."""
    good, bad = trial.measure(Follower()), trial.measure(Follower(late=4, start=1))
    before, _, drop, changes = compare_measured(trial, good, bad)
    assert before.value == pytest.approx(20 / 21)
    each = [(count - 1) / count * (20 - 14) / 21 for count in (40, 12)]  # the first frame is given
    assert drop.value == pytest.approx(100 * np.mean(each))
    assert [(one.name, one.count) for one in changes] == [("long", 40), ("short", 12)]
    assert [one.drop.value for one in changes] == pytest.approx([100 * one for one in each])
    assert drop.low <= drop.value <= drop.high


def test_frames_beside_each_other_are_drawn_together():
    """One half of each sequence is lost: 100 frames that had nothing to do with each other would say 50 +- 5 points."""
    lost = [np.repeat([1.0, 0.0], 50)] * 4
    both = compare_paired(TrackOutcome([np.ones(100)] * 4), TrackOutcome(lost))
    assert both.drop.value == pytest.approx(50)
    assert both.drop.high - both.drop.low > 2 * 1.96 * 100 * 0.5 / np.sqrt(400) * 1.5
    draws = TrackOutcome(lost).draws(np.random.default_rng(0), 50)
    assert (draws.sum(axis=1) == 400).all()
    assert ((draws.reshape(50, 4, 100) > 0).mean(axis=2) <= 1).all()
    assert ((draws.reshape(50, 4, 100).sum(axis=2) % 100) == 0).all()  # whole sequences


def test_what_differs_between_sequences_widens_the_interval():
    """Of four sequences one loses all: no draw of frames within them would tell that it might have been two."""
    paired = compare_paired(TrackOutcome([np.ones(500)] * 4), TrackOutcome([*[np.ones(500)] * 3, np.zeros(500)]))
    assert paired.drop.value == 25
    assert paired.drop.low == 0
    assert paired.drop.high >= 50


def test_a_sequence_that_cannot_be_read_is_told_and_not_counted(tmp_path):
    root = write_sequences(tmp_path / "data", {"a": 5, "b": 5})
    (root / "a" / "img" / "0002.png").write_bytes(b"\x89PNG broken")
    trial = make_trial(CARD, DataChoice(root))
    good, bad = trial.measure(Follower()), trial.measure(Follower(late=12))
    assert [problem.name for problem in good.problems] == ["a"]
    assert (good.outcome.images, list(good.outcome.counts)) == (1, [0, 5])
    _, _, drop, changes = compare_measured(trial, good, bad)
    assert drop.value > 10
    assert np.isnan(changes[0].drop.value)
    assert [one.name for one in trial.differ(good, bad, 4)] == ["b/0001.png"]


def test_where_two_tracks_part_is_shown_once_a_stretch(trial):
    good, bad = trial.measure(Follower()), trial.measure(Follower(late=12, start=3))
    found = trial.differ(good, bad, 6)
    frames = [(one.name.split("/")[0], int(one.name.split("/")[1][:4])) for one in found]
    assert {name for name, _ in frames} == {"long", "short"}
    assert all(frame >= 3 for _, frame in frames)
    places = sorted(frame for name, frame in frames if name == "long")
    assert all(b - a >= STRETCH for a, b in itertools.pairwise(places))
    assert found[0].before == "overlap with the truth 100% (blue)"
    assert found[0].after == "overlap with the truth 25% (red)"  # 8 of 32 pixels
    assert found[0].image.shape == (*SIZE_HW, 3)
    assert trial.differ(good, good, 6) == []


def test_on_frames_without_labels_it_needs_a_box(trial, tmp_path):
    clip = tmp_path / "data" / "long" / "img"
    with pytest.raises(UsageError, match="--box X,Y,W,H") as caught:
        trial.frames(str(clip))
    assert caught.value.slug == "no-box"
    with pytest.raises(UsageError, match="name that, too"):
        trial.frames(None, xyxy=(10, 20, 30, 40))
    with pytest.raises(InputError):
        trial.frames(str(tmp_path / "none.mp4"), xyxy=(10, 20, 30, 40))
    frames = trial.frames(str(clip), count=4, xyxy=(10, 20, 30, 40))
    assert len(frames) == 20
    score, pictures = trial.compare(Follower(), Follower(late=12, start=5), frames, 3)
    assert score == pytest.approx((4 + 15 * 0.25) / 19)
    assert pictures[0].before == "tracking, 0.90 (blue)"
    assert "#5" in pictures[0].name  # the first of equally bad ones


def test_options_of_other_data_are_refused(tmp_path):
    root = write_sequences(tmp_path, {"a": 3})
    with pytest.raises(UsageError, match="--part is of data in parts"):
        make_trial(CARD, DataChoice(root, part="test"))
    shorter = make_trial(CARD, DataChoice(write_sequences(tmp_path / "b", {"x": 30, "y": 10}), limit=20))
    assert [len(one.frames) for one in shorter.samples] == [15, 5]


def test_too_few_sequences_are_told_as_such(trial):
    from visionkit.compress.verdict import Interval

    facts = VariantFacts("int8", drop=Interval(0.4, -1, 2), images=4, counted=500, size=1, zipped=1)
    ruling = judge(facts, facts, Bounds(), trial.metric, trial.nouns)
    assert ruling.verdict == "unsure"
    assert ruling.reasons[0].text.startswith("4 sequences cannot tell whether it stays within 1 point of success AUC")


class Halves:
    """A matcher over two runners that note nothing but answer."""

    exemplar_size, search_size = 16, 32

    def __init__(self, exemplar, search):
        self.runners = exemplar, search

    def encode(self, exemplar, box):
        return self.runners[0](exemplar=exemplar[None])["f"]

    def match(self, target, search):
        found = self.runners[1](f=target, search=search[None])
        return found["scores"], found["boxes"]


def test_what_reaches_the_networks_is_recorded(trial):
    from visionkit.tasks.track import SiamTracker, TrackerOptions

    def exemplar(exemplar):
        return {"f": exemplar[:, :2, :2].astype(np.float32)}

    def search(f, search):
        return {"scores": np.array([0.9], np.float32), "boxes": np.array([[8, 8, 24, 24]], np.float32)}

    tracker = SiamTracker(Halves(exemplar, search), TrackerOptions(renewal=0.0))
    calls = recorded_calls(tracker, trial.samples, 10)
    assert len(calls["exemplar"]) == 2  # one a sequence
    assert len(calls["search"]) == 10
    assert {name: array.shape for name, array in calls["search"][0].items()} == {
        "f": (1, 2, 2, 3),
        "search": (1, 32, 32, 3),
    }
    apart = [np.abs(one["search"].astype(int) - calls["search"][0]["search"]).max() for one in calls["search"][1:]]
    assert max(apart) > 50  # of other frames
