"""Counts at lines and zones: worked cases, and from rows the same as from detections."""

from __future__ import annotations

import json

import numpy as np
import pytest

from visionkit.errors import UsageError
from visionkit.io.results import result_fields
from visionkit.structures import Detections
from visionkit.tasks import CountPlan, Counts
from visionkit.tasks.counting import detections_of_row

LEVEL = ((0.0, 100.0), (200.0, 100.0))


def seen(boxes, ids=None, classes=None):
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(count, 0.9, np.float32),
        np.zeros(count, np.int64) if classes is None else np.array(classes),
        tracker_id=np.arange(1, count + 1) if ids is None else np.array(ids, np.int64),
    )


def box(x, y, w=20, h=20):
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def counted(plan, frames):
    counts = Counts(plan)
    for frame in frames:
        counts.add(frame)
    return counts


def test_a_line_counts_what_went_across_and_which_way():
    up = [seen([box(50, y)]) for y in range(160, 40, -10)]
    down = [seen([box(50, y)], ids=[7], classes=[2]) for y in range(40, 160, 10)]
    counts = counted(CountPlan(lines=(LEVEL,)), [*up, *down])
    assert counts.now() == {"lines": [{"in": 1, "out": 1}]}
    told = counts.summary(("car", "bus", "dog"))["lines"][0]
    assert (told["in_by_class"], told["out_by_class"]) == ({"car": 1}, {"dog": 1})
    assert told["line"] == [0, 100, 200, 100]


def test_what_touches_turns_back_or_passes_beside_is_not_counted():
    touching = [seen([box(50, y)]) for y in (130, 105, 100, 105, 130)]
    beside = [seen([box(260, y)], ids=[2]) for y in (130, 100, 70, 40)]
    unnumbered = [seen([box(50, y)], ids=[-1]) for y in (130, 100, 70, 40)]
    counts = counted(CountPlan(lines=(LEVEL,)), [*touching, *beside, *unnumbered])
    assert counts.now() == {"lines": [{"in": 0, "out": 0}]}


def test_an_anchor_at_the_centre_counts_objects_larger_than_the_line():
    frames = [seen([box(100, y, w=300)]) for y in range(160, 40, -10)]
    assert counted(CountPlan(lines=(LEVEL,)), frames).now()["lines"][0]["in"] == 0
    assert counted(CountPlan(lines=(LEVEL,), line_anchor="center"), frames).now()["lines"][0]["in"] == 1


def test_a_zone_counts_what_is_inside_and_every_object_once():
    zone = ((50.0, 50.0), (150.0, 50.0), (150.0, 150.0), (50.0, 150.0))
    frames = [seen([box(x, 80), box(100, 80)], classes=[0, 1]) for x in range(0, 200, 10)]
    counts = counted(CountPlan(zones=(zone,)), frames)
    told = counts.summary(("car", "bus"))["zones"][0]
    assert told["objects"] == 2
    assert told["objects_by_class"] == {"car": 1, "bus": 1}
    assert (told["most_at_once"], told["inside_at_end"]) == (2, 1)
    bottom = seen([box(100, 45)])  # its bottom is inside, its centre is not
    assert counted(CountPlan(zones=(zone,)), [bottom]).now()["zones"][0]["inside"] == 1
    assert counted(CountPlan(zones=(zone,), zone_anchor="center"), [bottom]).now()["zones"][0]["inside"] == 0


def test_boxes_without_numbers_are_counted_in_zones_only():
    zone = ((50.0, 50.0), (150.0, 50.0), (150.0, 150.0), (50.0, 150.0))
    plain = Detections(np.array([box(100, 80)], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    counts = counted(CountPlan(zones=(zone,), lines=(LEVEL,)), [plain, Detections.empty()])
    told = counts.summary()["zones"][0]
    assert (told["most_at_once"], told["objects"], told["inside_at_end"]) == (1, 0, 0)


def test_rows_give_the_counts_of_the_detections_they_were_made_of():
    """Boxes that differ by less than a row can say would else fall on the line's other side."""
    generator = np.random.default_rng(2)
    plan = CountPlan(lines=(LEVEL,), zones=(((20.0, 20.0), (180.0, 40.0), (90.0, 150.0)),), line_anchor="bottom")
    live, stored = Counts(plan), Counts(plan)
    y = 100 + np.cumsum(generator.normal(0, 0.004, (400, 6)), axis=0)
    for frame in y:
        found = seen([box(30 * k + 20.004, v - 10 + 1e-4) for k, v in enumerate(frame)])
        live.add(found)
        stored.add(detections_of_row(json.loads(json.dumps(result_fields(found)))))
    assert stored.summary() == live.summary()
    assert live.now()["lines"][0]["in"] > 5  # or the test would see nothing


def test_rows_without_boxes_or_numbers():
    assert detections_of_row({"error": "detect: failed"}) is None
    empty = detections_of_row({"detections": []})
    assert empty.xyxy.shape == (0, 4)
    found = detections_of_row({"detections": [{"xyxy": [1, 2, 3, 4], "confidence": 0.5, "class_id": 2}]})
    assert found.tracker_id.tolist() == [-1]
    broken = {"detections": [{"xyxy": [1, None, 3, 4], "confidence": None, "class_id": 2}]}
    assert len(detections_of_row(broken)) == 0


@pytest.mark.parametrize(
    ("plan", "slug"),
    [
        ({"lines": (((5, 5), (5, 5)),)}, "line-too-short"),
        ({"zones": (((0, 0), (9, 9)),)}, "zone-too-small"),
        ({"zones": (((0, 0), (5, 5), (9, 9)),)}, "zone-too-small"),
    ],
)
def test_shapes_that_hold_nothing_are_refused(plan, slug):
    with pytest.raises(UsageError) as caught:
        CountPlan(**plan)
    assert caught.value.slug == slug
