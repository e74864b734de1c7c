"""The files that rows can go to, by the names that `--format` knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from visionkit.io.detection_files import CocoWriter, VocWriter, YoloWriter
from visionkit.io.line_writer import LineWriter
from visionkit.io.results import JsonlWriter
from visionkit.io.tables import CsvWriter, MotWriter

__all__ = ["FORMATS", "STREAM_FORMATS", "RowWriter", "RowWriters", "open_writers", "stream_writer"]

FORMATS = ("jsonl", "csv", "coco", "voc", "yolo", "mot")
STREAM_FORMATS = ("jsonl", "csv", "mot")
LINES: Mapping[str, tuple[type[LineWriter], str]] = {
    "jsonl": (JsonlWriter, "results.jsonl"),
    "csv": (CsvWriter, "results.csv"),
    "mot": (MotWriter, "mot.txt"),
}


class RowWriter(Protocol):
    """What takes rows."""

    def write(self, row: Mapping[str, Any], /) -> None:
        """Take one row."""

    def close(self) -> None:
        """Complete what was written."""

    def abort(self) -> None:
        """Drop it; never raises."""


class RowWriters:
    """Several writers that take the same rows.

    Attributes:
        rows: how many.
    """

    def __init__(self, writers: Sequence[RowWriter]) -> None:
        self.writers = list(writers)
        self.rows = 0

    def write(self, row: Mapping[str, Any]) -> None:
        """Hand one row to each of them."""
        for writer in self.writers:
            writer.write(row)
        self.rows += 1

    def close(self) -> None:
        """Complete all files."""
        for writer in self.writers:
            writer.close()

    def abort(self) -> None:
        """Drop all files; never raises."""
        for writer in self.writers:
            writer.abort()


def open_writers(
    formats: Sequence[str], place: Callable[[str], Path], names: Callable[[], Sequence[str] | None]
) -> RowWriters:
    """Writers of `results.jsonl`, which is always there, and of the further formats, into a run's folder.

    Args:
        formats: of `FORMATS`.
        place: makes the path of a named output.
        names: gives the class names when the files are closed; before, they may not be known.
    """
    if unknown := sorted(set(formats) - set(FORMATS)):
        raise ValueError(f"`formats` must be of {', '.join(FORMATS)}. Received: {', '.join(unknown)}.")
    writers: list[RowWriter] = []
    try:
        for name in FORMATS:
            if name == "jsonl" or name in formats:
                writers.append(_opened(name, place, names))
    except BaseException:
        RowWriters(writers).abort()
        raise
    return RowWriters(writers)


def stream_writer(formats: Sequence[str], stream: BinaryIO) -> LineWriter:
    """A writer of rows in one format onto a stream."""
    chosen = [name for name in FORMATS if name in formats]
    if len(chosen) != 1 or chosen[0] not in STREAM_FORMATS:
        raise ValueError(f"`formats` must be one of {', '.join(STREAM_FORMATS)}. Received: {', '.join(formats)}.")
    return LINES[chosen[0]][0](stream)


def _opened(name: str, place: Callable[[str], Path], names: Callable[[], Sequence[str] | None]) -> RowWriter:
    if name in LINES:
        kind, file = LINES[name]
        return kind(place(file))
    if name == "coco":
        return CocoWriter(place("coco.json"), names)
    return VocWriter(place) if name == "voc" else YoloWriter(place, names)
