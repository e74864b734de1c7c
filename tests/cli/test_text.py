"""What is printed cannot steer a terminal."""

from __future__ import annotations

import json

import pytest

from visionkit.cli import text
from visionkit.errors import OutputError


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain ünï 車 🚗", "plain ünï 車 🚗"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202eright to left", "\\u202eright to left"),
        ("not UTF-8: \udcff", "not UTF-8: \\xff"),
        ("lone \ud800", "lone \\ud800"),
        ("", ""),
    ],
)
def test_clean_escapes_what_a_terminal_obeys(given, shown):
    assert text.clean(given) == shown
    assert text.clean(shown) == shown


def test_table_pads_each_column_to_its_widest_cell():
    assert text.table([["NAME", "N"], ["a", "10"], ["longer", ""]]) == ["NAME    N", "a       10", "longer"]


@pytest.mark.parametrize(
    ("count", "shown"),
    [(None, "?"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (5_700_000, "5.7 MB"), (2_500_000_000, "2.5 GB")],
)
def test_file_size(count, shown):
    assert text.file_size(count) == shown


def test_emit_json_is_strict_and_ascii(capsys):
    text.emit_json({"name": "\udcff ü \x1b", "values": [1.5, None]})
    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"name": "\udcff ü \x1b", "values": [1.5, None]}
    with pytest.raises(ValueError, match="JSON"):
        text.emit_json(float("nan"))


def test_emit_to_a_closed_stdout_is_an_output_error(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(OutputError, match="stdout is closed"):
        text.emit("x")
