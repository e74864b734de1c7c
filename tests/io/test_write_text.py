"""Text from outside: harmless on a terminal, reversible in JSON."""

from __future__ import annotations

import os
import unicodedata

import pytest

from visionkit.io import original_name, printable_name, safe_text

HOSTILE = "a\x1b[31mb\x1b]0;title\x07\x1b]8;;http://x\x1b\\c\rd\x9be\u202ef\x00g\ud800h\u2028i\u200bj\nk\tl\x7f"


def test_i1_nothing_a_terminal_acts_on_is_left():
    shown = safe_text(HOSTILE)
    assert not [c for c in shown if unicodedata.category(c)[0] == "C" or c in "\u2028\u2029"]
    assert shown.startswith("a\\x1b[31mb\\x1b]0;title\\x07")
    assert "\\u202ef\\x00g\\ud800h\\u2028i" in shown
    shown.encode("utf-8")


def test_i1_ordinary_text_is_not_changed_and_long_text_is_cut():
    assert safe_text("Straße 猫 \N{CAT FACE} 50 % 'x' a\\b") == "Straße 猫 \N{CAT FACE} 50 % 'x' a\\b"
    assert safe_text("x" * 1_000_000) == "x" * 199 + "…"
    assert len(safe_text("\x1b" * 1_000_000, limit=50)) == 50
    assert safe_text(b"\xffname") == "\\xffname"
    assert safe_text(ValueError("a\nb")) == "a\\x0ab"


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("clip.mp4", "clip.mp4"),
        ("Straße 猫.mp4", "Straße 猫.mp4"),
        (b"\xff\xfe.mp4", "\\xff\\xfe.mp4"),
        ("a\\b", "a\\\\b"),
        ("a\\xffb", "a\\\\xffb"),
        ("line\nbreak", "line\\u000abreak"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\U000e0001", "\\U000e0001"),
        ("", ""),
    ],
)
def test_names_are_printed_reversibly(name, printed):
    assert printable_name(name) == printed
    printed.encode("utf-8")
    assert original_name(printed) == os.fsdecode(name)


def test_every_byte_and_every_hostile_character_round_trips():
    for first in range(256):
        name = os.fsdecode(bytes([first, 0x78, 0xFF - first]))
        assert original_name(printable_name(name)) == name
    assert original_name(printable_name(HOSTILE)) == HOSTILE
    names = {printable_name(os.fsdecode(bytes([a, b]))) for a in range(256) for b in range(256)}
    assert len(names) == 65536
