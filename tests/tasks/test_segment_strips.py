"""Large images strip by strip: the same answers as from the whole map, and no more of it held than must be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.tasks.made_segment import made_segmenter
from tests.tasks.test_segment_tiles import noisy, padded_network
from visionkit.tasks.score_maps import Scores, Span, best_labels, spread
from visionkit.tasks.segment_fit import SizeOptions
from visionkit.tasks.strips import LookRows, joined_parts, strips
from visionkit.tasks.tiling import Joined, TilePlan


def large(tile=96, overlap=32, native=True, **options):
    size = SizeOptions(native=native, tile=tile, overlap=overlap)
    return made_segmenter(padded_network, size=size, confidence=True, **options)


@pytest.mark.parametrize("size_hw", [(417, 250), (96, 300), (97, 96), (300, 40), (640, 101)])
@pytest.mark.parametrize(("tile", "overlap"), [(96, 32), (128, 96), (64, 0)])
@pytest.mark.parametrize("looks", [{}, {"flip": True, "scales": (0.75, 1.0, 1.5)}, {"scales": (2.0, 0.5)}])
def test_strips_equal_the_whole(size_hw, tile, overlap, looks):
    image, task = noisy(size_hw), large(tile, overlap, **looks)
    whole = task.scores(image)
    found, entropy = task.read(image, entropy=True)
    assert found.class_map.dtype == whole.labels().dtype
    assert np.array_equal(found.class_map, whole.labels())
    # logits of a few tens, whose last digits depend on how many rows are enlarged at once
    np.testing.assert_allclose(found.confidence, whole.confidence(), atol=1e-5)
    assert entropy.shape == whole.maps[0].shape[1:]
    np.testing.assert_allclose(entropy, whole.entropy(), atol=1e-5)
    assert np.array_equal(task(image).class_map, found.class_map)


def random_plan():
    return TilePlan((640, 160), (128, 96), 64)


def answers(plan, ratio=8):
    rng = np.random.default_rng(2)
    tile_h, tile_w = (side // ratio for side in plan.tile_hw)
    maps = {tile: rng.standard_normal((3, tile_h, tile_w)).astype(np.float32) for tile in plan.tiles()}
    return maps.__getitem__


def test_rows_are_given_once_when_no_later_tile_changes_them():
    plan = random_plan()
    answer, asked = answers(plan), []
    ((whole, height),) = joined_parts(plan, answer, whole=True)
    assert (whole.shape, height) == ((3, 80, 20), 80)
    parts = []
    for part, _ in joined_parts(plan, lambda tile: asked.append(tile.corner_yx[0]) or answer(tile)):
        parts.append(part)
        end = sum(p.shape[1] for p in parts)
        assert end == 80 or end <= (max(asked) + 64) // 8, "the next row of tiles begins here"
    assert len(parts) == len(set(asked)) > 4
    assert np.array_equal(np.concatenate(parts, axis=1), whole)  # to the last bit: the same sums in the same order


def test_rows_taken_too_early_would_show_the_seams():
    """The control: without what the row of tiles below says of the overlap, other scores come out."""
    plan = random_plan()
    answer = answers(plan)
    ((whole, _),) = joined_parts(plan, answer, whole=True)
    top = Joined(plan, 8, whole=False)
    for tile in plan.tiles():
        if tile.corner_yx[0] == 0:
            top.add(tile, answer(tile))
    early = top.take(16)
    assert np.array_equal(early[:, :8], whole[:, :8])
    assert np.abs(early[:, 10:] - whole[:, 10:16]).max() > 0.5


def test_no_more_than_a_row_of_tiles_is_held():
    plan = TilePlan((3200, 96), (128, 96), 32)
    highest = 0
    look = LookRows(joined_parts(plan, answers(plan)))
    rows = 0
    for scores in strips([look], (3200, 96)):
        highest = max(highest, scores.maps[0].shape[1])
        assert scores.rows.start == rows
        rows = scores.rows.stop
    assert rows == 3200
    assert highest <= 128 // 8 + 3  # of 400 rows
    part = Joined(plan, 8, whole=False)
    with pytest.raises(ValueError, match="rows held"):
        part.add(list(plan.tiles())[-1], np.zeros((3, 16, 12), np.float32))


def test_rows_of_a_map_lie_where_they_do_in_the_whole():
    scores = np.random.default_rng(0).standard_normal((5, 30, 11)).astype(np.float32)
    rows, span = slice(70, 130), Span(9, 30)
    part = scores[:, 9:21]
    assert np.array_equal(spread(part, (200, 47), rows, span=span), spread(scores, (200, 47))[:, rows])
    assert np.array_equal(best_labels(part, (200, 47), rows, span), best_labels(scores, (200, 47))[rows])
    wrong = best_labels(part, (200, 47), rows, Span(8, 30))
    assert (wrong != best_labels(scores, (200, 47))[rows]).mean() > 0.1, "the control: a row beside"


@pytest.mark.parametrize(("image", "height"), [(200, 30), (30, 200), (31, 31), (7, 3), (2, 90), (1, 5)])
def test_the_entropys_rows_are_each_in_one_strip(image, height):
    ends = [0, *sorted({1, image // 3, image // 2, image} - {0})]
    scores = np.zeros((2, height, 4), np.float32)
    rows = [
        Scores((scores,), (image, 8), slice(a, b), (Span(0, height),)).entropy_rows for a, b in itertools.pairwise(ends)
    ]
    assert [e for part in rows for e in range(part.start, part.stop)] == list(range(height))
