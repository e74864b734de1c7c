"""Text from outside (labels, file names) made fit for terminals, logs and JSON."""

from __future__ import annotations

import os
import re
import unicodedata

__all__ = ["original_name", "printable_name", "safe_text"]

# Control, format (bidi overrides, zero-width), surrogate, private-use, unassigned; line and paragraph separators.
UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
BYTE_ESCAPE = range(0xDC80, 0xDD00)  # where `os.fsdecode` puts the bytes 0x80..0xFF that are not UTF-8
ESCAPED = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")


def safe_text(text: object, limit: int = 200) -> str:
    """`text` without anything a terminal or a log could act on: such characters appear as `\\x1b` or `\\u202e`.

    Args:
        text: a label, a name, an exception; bytes are decoded like file names.
        limit: longest result; a longer one is cut and ends in `…`.
    """
    plain = os.fsdecode(text) if isinstance(text, bytes | os.PathLike) else str(text)
    plain = plain[: limit + 1]
    shown = "".join(_escape(c) if unicodedata.category(c) in UNPRINTABLE else c for c in plain)
    return shown if len(shown) <= limit else shown[: max(limit - 1, 0)] + "…"


def printable_name(name: str | bytes | os.PathLike[str]) -> str:
    """A file name as printable, valid Unicode, from which `original_name` gives back the very same name.

    A byte that is not UTF-8 becomes `\\xff`, an unprintable character `\\u000a`, and a backslash `\\\\`; every other
    character stays, so that ordinary names do not change.
    """
    text = os.fsdecode(name)
    return "".join(
        "\\\\" if c == "\\" else _escape(c, controls_as="u") if unicodedata.category(c) in UNPRINTABLE else c
        for c in text
    )


def original_name(printed: str) -> str:
    """The file name that `printable_name` printed, as `os.fsencode` and `open` take it."""

    def back(match: re.Match[str]) -> str:
        byte, short, long = match.groups()
        if byte is not None:
            return chr(0xDC00 + int(byte, 16))
        return chr(int(short or long, 16)) if short or long else "\\"

    return ESCAPED.sub(back, printed)


def _escape(c: str, controls_as: str = "x") -> str:
    code = ord(c)
    if code in BYTE_ESCAPE:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100 and controls_as == "x":
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
