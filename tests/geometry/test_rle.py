"""COCO's run-length encoding against a loop and strings made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from visionkit.geometry.rle import counts_to_string, mask_to_counts, rle_area, rle_decode, rle_encode, string_to_counts


def slow_counts(mask: np.ndarray) -> list[int]:
    counts, last, run = [], 0, 0
    for column in range(mask.shape[1]):
        for row in range(mask.shape[0]):
            if int(mask[row, column]) != last:
                counts.append(run)
                last, run = 1 - last, 0
            run += 1
    return [*counts, run]


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_as_a_loop_down_the_columns(share: float) -> None:
    mask = np.random.default_rng(0).uniform(size=(13, 29)) < share
    assert mask_to_counts(mask) == slow_counts(mask)
    for compressed in (False, True):
        rle = rle_encode(mask, compressed=compressed)
        assert rle["size"] == [13, 29]
        np.testing.assert_array_equal(rle_decode(rle), mask)
        assert rle_area(rle) == mask.sum()


def test_by_hand() -> None:
    mask = np.array([[0, 1, 1], [0, 0, 1]])
    assert mask_to_counts(mask) == [2, 1, 1, 2]  # down: 0 0 | 1 | 0 | 1 1
    # 2 -> '2', 1 -> '1', 1 -> '1', then 2 - 1 = 1 -> '1'
    assert rle_encode(mask)["counts"] == "2111"
    assert mask_to_counts(np.ones((2, 3))) == [0, 6]
    assert mask_to_counts(np.zeros((2, 3))) == [6]


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ([15], "?"),  # 01111 + 48
        ([16], "`0"),  # 10000 with more to come (48 + 16 + 32), then 0: else bit 16 would be a sign
        ([32], "P1"),  # 00000 and more, then 1
        ([1000], "Xo0"),  # 1000 = 31 * 32 + 8: 8 and more, 31 and more (alone it would be -1), 0
    ],
)
def test_strings_by_hand(counts: list[int], text: str) -> None:
    assert counts_to_string(counts) == text
    assert string_to_counts(text) == counts


def test_differences_may_be_negative() -> None:
    counts = [10, 20, 30, 5, 29]  # from the fourth on: 5 - 20 = -15, 29 - 30 = -1
    text = counts_to_string(counts)
    assert text == ":d0n0AO"  # ':' 10; 'd0' 20; 'n0' 30; -15 = 10001 -> 'A'; -1 = 11111 -> 'O'
    assert string_to_counts(text) == counts
    assert string_to_counts(text.encode()) == counts


def test_numbers_of_any_size_there_and_back() -> None:
    rng = np.random.default_rng(0)
    counts = [int(n) for n in rng.integers(0, 10**7, 200)]
    assert string_to_counts(counts_to_string(counts)) == counts


def test_empty_masks() -> None:
    for shape in ((0, 5), (5, 0), (4, 3)):
        mask = np.zeros(shape, bool)
        np.testing.assert_array_equal(rle_decode(rle_encode(mask)), mask)
        assert rle_area(rle_encode(mask)) == 0


@pytest.mark.parametrize(
    ("rle", "says"),
    [
        ({"size": [2, 3], "counts": [5]}, "fill 2 x 3 pixels. Received: sum 5"),
        ({"size": [2, 3], "counts": [7, -1]}, "must not be negative"),
        ({"size": [2], "counts": [6]}, r"`size` must be \[height, width\]"),
        ({"counts": [6]}, "size=None"),
        ({"size": [2, 3], "counts": [2.5, 3.5]}, "a list of integers"),
        ({"size": [2, 3], "counts": None}, "NoneType"),
        ({"size": [2, 3], "counts": "2 1"}, "Received: ' '"),
        ({"size": [2, 3], "counts": "2P"}, "in the middle of a number"),
        ({"size": [2, 3], "counts": "2é"}, "sum"),
    ],
)
def test_what_is_no_mask_is_refused(rle: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        rle_decode(rle)


def test_a_mask_of_another_rank_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`mask` must be \(H, W\)"):
        rle_encode(np.zeros((2, 3, 1)))
