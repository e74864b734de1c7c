"""What every tracker of every card promises, on a rendered sequence."""

from __future__ import annotations

import numpy as np
import pytest

from visionkit.geometry.boxes import iou_aligned
from visionkit.structures import TRACK_STATES, Track
from visionkit.tasks import load_tracker
from visionkit.train.sequence import rendered_sequence
from visionkit.weights import list_cards

CARDS = [card.name for card in list_cards() if card.task == "track"]
SIZE_HW = (180, 310)


def assert_is_track(track: object, size_hw: tuple[int, int]) -> None:
    """A `Track` whose box is float32, finite and inside the image, with a confidence in [0, 1] and a known state."""
    assert isinstance(track, Track)
    assert track.xyxy.dtype == np.float32
    x1, y1, x2, y2 = track.xyxy
    assert 0 <= x1 <= x2 <= size_hw[1]
    assert 0 <= y1 <= y2 <= size_hw[0]
    assert 0 <= track.confidence <= 1
    assert track.state in TRACK_STATES


@pytest.fixture(scope="module", params=CARDS)
def tracker(request: pytest.FixtureRequest) -> object:
    return load_tracker(request.param, runtime="litert")


def follow(tracker: object, frames: list[tuple[np.ndarray, np.ndarray]]) -> list[Track]:
    return [tracker.init(*frames[0])] + [tracker.update(image) for image, _ in frames[1:]]


def test_there_is_a_card() -> None:
    assert CARDS


def test_tracks_are_tracks_and_lie_on_the_object(tracker: object) -> None:
    frames = list(rendered_sequence(60, SIZE_HW, seed=5))
    before = [image.copy() for image, _ in frames]
    tracks = follow(tracker, frames)
    for track in tracks:
        assert_is_track(track, SIZE_HW)
    assert iou_aligned([t.xyxy for t in tracks], [box for _, box in frames]).mean() > 0.6
    assert all(np.array_equal(a, b) for a, (b, _) in zip(before, frames, strict=True))


def test_init_starts_anew(tracker: object) -> None:
    frames = list(rendered_sequence(12, SIZE_HW, seed=6))
    first = follow(tracker, frames)
    follow(tracker, list(rendered_sequence(5, (90, 70), seed=7)))
    again = follow(tracker, frames)
    assert [t.xyxy.tolist() for t in first] == [t.xyxy.tolist() for t in again]


def test_loss_is_admitted_behind_a_curtain_and_the_object_found_again(tracker: object) -> None:
    frames = list(rendered_sequence(120, SIZE_HW, seed=5, hidden=range(30, 50)))
    tracks = follow(tracker, frames)
    assert {track.state for track in tracks[40:50]} == {"lost"}
    assert "reacquired" in {track.state for track in tracks[50:]}
    assert iou_aligned([t.xyxy for t in tracks[80:]], [box for _, box in frames[80:]]).mean() > 0.5


def test_it_says_what_it_is(tracker: object) -> None:
    said = tracker.describe()
    assert said["name"] in CARDS
    assert len(said["sha256"]) == 64
    assert (said["runtime"], said["precision"]) == ("litert", "float32")
