"""The Siamese box tracker with a matcher that knows the answer: states, windows, coordinates, renewal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from visionkit.geometry.boxes import iou_aligned
from visionkit.structures import Track
from visionkit.tasks import PresenceOptions, SiamTracker, TrackerOptions
from visionkit.tasks.presence import Presence


@dataclass(frozen=True)
class Color:
    rgb: np.ndarray

    def blended(self, other: Color, share: float) -> Color:
        return Color((1 - share) * self.rgb + share * other.rgb)


class ColorMatcher:
    """Finds pixels of the exemplar's colour; its box is their extent."""

    exemplar_size, search_size = 64, 128
    seen: list[int]

    def __init__(self) -> None:
        self.encoded: list[tuple[np.ndarray, np.ndarray]] = []
        self.matched = 0

    def encode(self, exemplar: np.ndarray, box: np.ndarray) -> Color:
        assert exemplar.dtype == np.uint8
        self.encoded.append((exemplar, box))
        x, y = (int(v) for v in (box[:2] + box[2:]) / 2)
        return Color(exemplar[y, x].astype(float))

    def match(self, target: Color, search: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.matched += 1
        near = np.abs(search.astype(float) - target.rgb).max(axis=2) < 60
        centers = (np.stack(np.meshgrid(np.arange(16), np.arange(16)), -1).reshape(-1, 2) + 0.5) * 8
        boxes = np.concatenate([centers - 4, centers + 4], axis=1).astype(np.float32)
        scores = np.full(len(centers), 0.02, np.float32)
        if near.sum() > 4:
            rows, columns = np.nonzero(near)
            box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)
            inside = ((centers > box[:2]) & (centers < box[2:])).all(axis=1)
            scores[inside], boxes[inside] = 0.9, box
        return scores, boxes


def picture(center: tuple[float, float] | None, size: tuple[int, int] = (20, 30), hw: tuple[int, int] = (180, 260)):
    """Grey, with a blue rectangle (BGR) of width, height `size` around `center`; and its box."""
    image = np.full((*hw, 3), 120, np.uint8)
    if center is None:
        return image, None
    x, y = int(center[0] - size[0] / 2), int(center[1] - size[1] / 2)
    image[max(y, 0) : y + size[1], max(x, 0) : x + size[0]] = (230, 30, 20)
    return image, np.array([x, y, x + size[0], y + size[1]], np.float32)


def tracker(**options: object) -> SiamTracker:
    presence = {"patience": 3}
    return SiamTracker(ColorMatcher(), TrackerOptions(presence=PresenceOptions(**presence), **options))


def test_follows_a_moving_growing_object() -> None:
    t = tracker()
    image, box = picture((60, 50))
    first = t.init(image, box)
    assert (first.state, first.confidence) == ("tracking", 1.0)
    for i in range(1, 40):
        image, box = picture((60 + 3 * i, 50 + 2 * i), (20 + i // 4, 30 + i // 3))
        track = t.update(image)
        assert track.state == "tracking"
        assert iou_aligned(track.xyxy[None], box[None])[0] > 0.7


def test_admits_loss_and_finds_again() -> None:
    t = tracker()
    t.init(*picture((60, 50)))
    t.update(picture((62, 50))[0])
    states = [t.update(picture(None)[0]).state for _ in range(6)]
    assert states == ["uncertain", "uncertain", "lost", "lost", "lost", "lost"]
    last_seen = t.update(picture(None)[0])
    assert np.allclose(last_seen.xyxy, [52, 35, 72, 65], atol=1.5)  # it says where it was last, not somewhere else
    image, box = picture((210, 140))  # far outside of the local window
    found = [t.update(image) for _ in range(30)]
    again = next(i for i, track in enumerate(found) if track.state == "reacquired")
    assert iou_aligned(found[again].xyxy[None], box[None])[0] > 0.7
    assert {track.state for track in found[again + 1 :]} == {"tracking"}
    assert all(track.state == "lost" for track in found[:again])


def test_the_search_window_grows_while_the_object_is_missing() -> None:
    t = tracker(growth=0.5, max_growth=1.8)
    t.init(*picture((130, 90)))
    sides = []
    for _ in range(3):
        sides.append(t._window(t._memory).side)
        t.update(picture(None)[0])
    assert sides[0] < sides[1] < sides[2]
    assert sides[2] == pytest.approx(1.8 * sides[0], rel=0.02)


def test_a_lost_object_is_looked_for_in_every_part_of_the_image() -> None:
    t = tracker()
    t.init(*picture((60, 50)))
    for _ in range(4):
        t.update(picture(None)[0])
    seen = np.zeros((180, 260), bool)
    for _ in range(60):
        window = t._scan_window(t._memory)
        seen[max(window.y0, 0) : window.y0 + window.side, max(window.x0, 0) : window.x0 + window.side] = True
    assert seen.all()


def test_the_exemplar_follows_a_change_of_colour_only_with_renewal() -> None:
    def last(renewal: float) -> Track:
        t = tracker(renewal=renewal, renewal_rate=0.5)
        image, box = picture((100, 80))
        t.init(image, box)
        for i in range(40):
            image, box = picture((100, 80))
            image[image[..., 0] == 230] = (230 - 3 * i, 30 + 3 * i, 20)
            track = t.update(image)
        return track

    assert last(0.9).state == "tracking"
    assert last(0.0).state == "lost"


def test_an_image_of_another_size_carries_the_box_over() -> None:
    t = tracker()
    t.init(*picture((60, 50)))
    image, box = picture((120, 100), (40, 60), (360, 520))
    track = t.update(image)
    assert iou_aligned(track.xyxy[None], box[None])[0] > 0.8


def test_images_are_not_written_to_and_the_network_gets_rgb() -> None:
    t = tracker()
    image, box = picture((60, 50))
    before = image.copy()
    t.init(image, box)
    t.update(image)
    assert np.array_equal(image, before)
    exemplar, inner = t.matcher.encoded[0]
    assert exemplar[32, 32].tolist() == [20, 30, 230]  # BGR (230, 30, 20)
    assert np.allclose((inner[:2] + inner[2:]) / 2, 32, atol=1)


def test_the_same_frames_give_the_same_tracks() -> None:
    def once() -> list[tuple[list[float], float, str]]:
        t = tracker()
        t.init(*picture((60, 50)))
        tracks = [t.update(picture((60 + 2 * i, 50 + i))[0]) for i in range(10)]
        return [(track.xyxy.tolist(), track.confidence, track.state) for track in tracks]

    assert once() == once()


def test_a_box_partly_outside_is_cut() -> None:
    image, _ = picture((5, 50))
    assert tracker().init(image, (-5, 35, 15, 65)).xyxy.tolist() == [0, 35, 15, 65]


@pytest.mark.parametrize(
    ("box", "says"), [((300, 0, 320, 9), "260 x 180"), ((9, 9, 9, 20), "area"), ((1, 2, 3), "four finite numbers")]
)
def test_bad_boxes_are_named(box: tuple[float, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tracker().init(picture((60, 50))[0], box)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)]
)
def test_bad_images_are_named(image: np.ndarray) -> None:
    t = tracker()
    t.init(*picture((60, 50)))
    with pytest.raises(ValueError, match="image"):
        t.update(image)


def test_update_needs_init() -> None:
    with pytest.raises(RuntimeError, match="call `init"):
        tracker().update(picture(None)[0])


def test_presence_needs_patience_and_a_good_score_to_return() -> None:
    presence = Presence(PresenceOptions(tracking=0.4, lost=0.2, patience=2, reacquire=0.6))
    said = [(presence.observe(score), presence.state) for score in (0.3, 0.1, 0.25, 0.1, 0.1, 0.5, 0.7, 0.9)]
    assert said == [
        (True, "uncertain"),
        (False, "uncertain"),
        (True, "uncertain"),
        (False, "uncertain"),
        (False, "lost"),
        (False, "lost"),  # enough to be uncertain, too little to come back
        (True, "reacquired"),
        (True, "tracking"),
    ]


@pytest.mark.parametrize("options", [{"lost": 0.5}, {"reacquire": 0.1}, {"patience": 0}, {"tracking": 1.5}])
def test_presence_names_bad_scores(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        PresenceOptions(**options)
