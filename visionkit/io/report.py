"""What a source says about itself before the first frame, and what reading it found after the last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from visionkit.structures import Frame

__all__ = ["MediaInfo", "ReadReport", "Source"]


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What is known of a source when it is open and no frame has been handed out yet.

    Args:
        kind: a video, one image, or several images.
        name: printable name (bytes that are not UTF-8 and control characters as `\\xNN`).
        path: absolute path; None for a glob.
        size_hw: upright height and width of the first frame; None for several images.
        fps: average frames per second by the container; None for images or when it does not say.
        duration_ms: declared length; None when it does not say.
        frame_count: declared number of frames; None when unknown or implausible. Never a promise.
        rotation: degrees clockwise that frames were turned to stand upright: 0, 90, 180 or 270.
        timing: `container`: times are the container's; `synthetic`: it has none, they come from the index and `fps`.
        pixel_format: as stored, before conversion to 8-bit BGR.
    """

    kind: Literal["video", "images", "image"]
    name: str
    path: Path | None
    size_hw: tuple[int, int] | None
    fps: float | None = None
    duration_ms: float | None = None
    frame_count: int | None = None
    codec: str | None = None
    container: str | None = None
    rotation: int = 0
    has_audio: bool = False
    backend: str = ""
    timing: Literal["container", "synthetic"] | None = None
    pixel_format: str | None = None
    size_bytes: int | None = None


@dataclass(slots=True)
class ReadReport:
    """What reading found; final once the source is exhausted.

    Args:
        decoded: frames handed out that the decoder did not complain about.
        damaged: frames handed out with `Frame.damaged` set.
        skipped: frames the source holds (or held) that could not be decoded.
        declared: number of frames the container declares, None when it does not or cannot be believed.
        ended_early: the data stops before the container says it should.
        events: in order: dicts with `event` and the fields of that event.
        failures: images that gave no frame: dicts with `name` and `reason`.
        finished: the source was read to its end (or to `end_s`).
    """

    decoded: int = 0
    damaged: int = 0
    skipped: int = 0
    declared: int | None = None
    ended_early: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    finished: bool = False

    @property
    def frames(self) -> int:
        """Number of frames handed out."""
        return self.decoded + self.damaged

    @property
    def complete(self) -> bool:
        """Whether nothing was lost or damaged; when False a run ends with exit code 4."""
        return not (self.damaged or self.skipped or self.ended_early or self.failures)

    def summary(self) -> str:
        """One line for people, e.g. `decoded 45 of 100 declared, 1 damaged, input ends early`."""
        of = "" if self.declared is None else f" of {self.declared} declared"
        parts = [f"decoded {self.frames}{of}"]
        parts += [f"{self.damaged} damaged"] * bool(self.damaged)
        parts += [f"{self.skipped} lost"] * bool(self.skipped)
        parts += [f"{len(self.failures)} failed"] * bool(self.failures)
        parts += ["input ends early"] * self.ended_early
        return ", ".join(parts)


class Source(Protocol):
    """Frames of a file, a folder or a stream: a context manager to iterate once."""

    info: MediaInfo
    report: ReadReport

    def __enter__(self) -> Source: ...

    def __exit__(self, *exc: object) -> None: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Let go of the file; safe to call twice."""
