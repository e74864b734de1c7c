"""Index, time and duration from what the containers say, worked by hand."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from visionkit.io.picture import Picture
from visionkit.io.timeline import Placed, Timeline


def picture(pts_ms: float | None, **fields: object) -> Picture:
    pts = None if pts_ms is None else Fraction(pts_ms)
    values = {"duration_ms": Fraction(40), **fields}
    return Picture(lambda: np.zeros((1, 2, 3), np.uint8), (1, 2), pts, **values)


def place(*pictures: Picture, rate: int = 25, holes_are_losses: bool = False) -> list[Placed]:
    return list(Timeline(Fraction(rate), holes_are_losses=holes_are_losses).place(pictures))


def times(placed: list[Placed]) -> list[float]:
    return [float(each.pts_ms) for each in placed]


def events(placed: list[Placed]) -> list[dict]:
    return [event for each in placed for event in each.events]


def test_a_picture_lasts_until_the_next_and_the_last_as_the_container_says() -> None:
    placed = place(picture(500), picture(540), picture(700), picture(740, duration_ms=Fraction(33)))
    assert times(placed) == [500, 540, 700, 740]
    assert [float(each.duration_ms) for each in placed] == [40, 160, 40, 33]
    assert [each.index for each in placed] == [0, 1, 2, 3]
    assert events(placed) == []


def test_without_times_they_come_from_the_rate() -> None:
    placed = place(*[picture(None, duration_ms=None) for _ in range(4)], rate=50)
    assert times(placed) == [0, 20, 40, 60]
    assert [float(each.duration_ms) for each in placed] == [20, 20, 20, 20]


def test_a_restart_is_carried_on_and_told() -> None:
    placed = place(*[picture(t) for t in (0, 40, 80, 0, 40, 80)])
    assert times(placed) == [0, 40, 80, 120, 160, 200]
    (event,) = events(placed)
    assert (event["event"], event["kind"], event["index"], event["offset_ms"]) == ("discontinuity", "restart", 3, 120)


def test_one_picture_out_of_order_is_put_between_its_neighbours() -> None:
    placed = place(*[picture(t) for t in (0, 40, 120, 80, 160, 200)])
    assert times(placed) == [0, 40, 120, 140, 160, 200]
    (event,) = events(placed)
    assert (event["kind"], event["container_ms"]) == ("out-of-order", 80)


def test_one_time_that_leaps_ahead_is_put_back() -> None:
    placed = place(*[picture(t) for t in (0, 40, 99_999, 120, 160)])
    assert times(placed) == [0, 40, 80, 120, 160]
    assert [event["kind"] for event in events(placed)] == ["out-of-order"]


@pytest.mark.parametrize("stuck", [(0, 40, 40, 80), (0, 40, 40, 40, 40)])
def test_times_that_stand_still_still_increase(stuck: tuple[int, ...]) -> None:
    placed = times(place(*[picture(t) for t in stuck]))
    assert all(later > earlier for earlier, later in pairwise(placed))


def test_known_losses_move_the_index_and_are_told() -> None:
    placed = place(picture(0), picture(40), picture(160, lost_before=2), picture(200))
    assert [each.index for each in placed] == [0, 1, 4, 5]
    assert events(placed) == [{"event": "gap", "index": 2, "frames": 2, "from_ms": 40.0, "to_ms": 160.0}]
    assert [float(each.duration_ms) for each in placed] == [40, 40, 40, 40]


def test_after_trouble_the_clock_tells_how_many_were_lost() -> None:
    placed = place(*[picture(40 * n) for n in range(5)], picture(40 * 12, trouble_before=True))
    assert placed[-1].index == 12
    assert placed[-1].lost_before == 7


def test_trouble_without_a_hole_loses_nothing() -> None:
    placed = place(*[picture(33 * n, trouble_before=n == 3) for n in range(6)], rate=30)
    assert [each.lost_before for each in placed] == [0] * 6


def test_a_hole_that_the_container_explains_is_no_loss() -> None:
    slow = picture(120, duration_ms=Fraction(400))
    placed = place(picture(0), picture(40), picture(80), slow, picture(520, trouble_before=True))
    assert placed[-1].lost_before == 0


def test_a_hole_in_an_even_beat_is_told_but_is_no_loss() -> None:
    placed = place(*[picture(40 * n) for n in range(20)], picture(40 * 25))
    assert events(placed) == [{"event": "gap", "index": 20, "frames": 0, "from_ms": 760.0, "to_ms": 1000.0}]
    assert placed[-1].index == 20


def test_a_hole_in_an_even_beat_of_a_transport_stream_is_loss() -> None:
    placed = place(*[picture(40 * n) for n in range(20)], picture(40 * 25), holes_are_losses=True)
    assert (placed[-1].index, placed[-1].lost_before) == (25, 5)


def test_an_even_clock_is_believed_over_a_count_of_packets() -> None:
    placed = place(*[picture(40 * n) for n in range(20)], picture(40 * 22, lost_before=9))
    assert (placed[-1].index, placed[-1].lost_before) == (22, 2)


def test_pictures_after_a_loss_are_in_doubt_until_a_key_frame() -> None:
    keys = [False, False, False, True, False]
    pictures = [picture(40 * n + 40 * (n > 0), lost_before=int(n == 1), key=key) for n, key in enumerate(keys)]
    assert [each.picture.damaged for each in place(*pictures)] == [False, True, True, False, False]
