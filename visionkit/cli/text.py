"""Words on a terminal: strings made safe to print, tables, JSON, examples in help pages."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from visionkit.errors import OutputError

__all__ = ["clean", "emit", "emit_json", "examples", "file_size", "silence_stdout", "stdout_failures", "table", "tell"]


def clean(text: str) -> str:
    r"""`text` on one line and without anything a terminal would obey: such characters become escapes (`\n`, `\x1b`).

    Bytes of a file name that are not UTF-8 (lone surrogates in Python) become `\xNN`.
    """
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else char.encode("unicode_escape").decode("ascii")


def emit(line: str = "") -> None:
    """Write one line to stdout; every control character but the line's end is escaped."""
    if sys.stdout is None:
        raise OutputError("stdout-closed", "The results go to stdout, and stdout is closed. Open it, or redirect it.")
    with stdout_failures():
        click.echo(clean(line))


@contextlib.contextmanager
def stdout_failures() -> Iterator[None]:
    """Within, a stdout that takes no more (a full disk) is an `OutputError`; a reader that left passes through."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        silence_stdout()
        raise OutputError("stdout-failed", f"stdout took no more: {error.strerror}.") from error


def silence_stdout() -> None:
    """Let what is still in stdout's buffer go nowhere: the interpreter flushes it once more at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def emit_json(value: Any) -> None:
    """Write `value` to stdout as strict, indented JSON in ASCII (so any locale can print it)."""
    for line in json.dumps(value, indent=2, allow_nan=False).splitlines():
        emit(line)


def tell(slug: str, message: str, code: int) -> int:
    """Write the one line of a failure to stderr, if there is a stderr, and return `code`."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            click.echo(f"visionkit: error[{slug}]: {clean(' '.join(message.splitlines()))}", err=True)
    return code


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table whose columns are as wide as their widest cell; the first row is the head."""
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def file_size(count: int | None) -> str:
    """`count` bytes in the unit a reader expects: `840 B`, `1.2 MB`; `?` where unknown."""
    if count is None:
        return "?"
    if count < 1000:
        return f"{count} B"
    for unit, scale in (("kB", 1e3), ("MB", 1e6)):
        if count < scale * 1000:
            return f"{count / scale:.1f} {unit}"
    return f"{count / 1e9:.1f} GB"


def examples(*lines: str) -> str:
    """The end of a help page: command lines that work when pasted."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
