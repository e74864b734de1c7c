"""Proposals from JSON and CSV: read alike, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from visionkit.errors import InputError
from visionkit.io.proposals import read_proposals


def test_json_and_csv_give_the_same_boxes(tmp_path: Path) -> None:
    table, lines = tmp_path / "boxes.json", tmp_path / "boxes.csv"
    table.write_text('{"a.jpg": [[1, 2, 30.5, 40], [0, 0, 7, 9]], "sub/b.jpg": [[5, 5, 6, 8]], "c.jpg": []}')
    lines.write_text("image,x1,y1,x2,y2,score\na.jpg,1,2,30.5,40,0.9\nsub/b.jpg,5,5,6,8,0.3\na.jpg,0,0,7,9,0.1\n")
    ours, theirs = read_proposals(table), read_proposals(lines)
    assert set(ours) == {"a.jpg", "b.jpg", "c.jpg"}
    assert ours["c.jpg"].shape == (0, 4)
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name])
    np.testing.assert_array_equal(ours["a.jpg"], np.array([[1, 2, 30.5, 40], [0, 0, 7, 9]], np.float32))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[1, 2]", "no object of lists"),
        ("a.json", "{", "no JSON"),
        ("a.json", "[" * 100_000, "no JSON"),
        ("a.json", '{"a.jpg": [[1, 2, 3]]}', "box 0 of 'a.jpg' is not four finite numbers"),
        ("a.json", '{"a.jpg": [[1, 2, 3, NaN]]}', "not four finite numbers"),
        ("a.json", '{"a.jpg": [[1, 2, 3, true]]}', "not four finite numbers"),
        ("a.json", '{"a.jpg": [[0, 0, 5, 5], [4, 2, 3, 5]]}', "box 1 of 'a.jpg' has no area"),
        ("a.json", '{"x/a.jpg": [], "y/a.jpg": []}', "two images are called 'a.jpg'"),
        ("a.csv", "a.jpg,1,2,3\n", "line 1 has 4 columns"),
        ("a.csv", "a.jpg,1,2,3,4\na.jpg,1,2,x,4\n", "line 2 has a box that is not four numbers"),
    ],
)
def test_what_is_wrong_is_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_proposals(tmp_path / name)
    assert caught.value.slug == "proposals-invalid"


def test_a_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_proposals(tmp_path / "none.json")
