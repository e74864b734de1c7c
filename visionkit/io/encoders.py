"""Which video encoders there are, and which of them may write a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from visionkit.errors import UsageError
from visionkit.io.text import safe_text

__all__ = ["CODECS", "ENCODERS", "Encoder", "candidates", "video_suffix"]

FORMATS = MappingProxyType(
    {".mp4": "mp4", ".mov": "mov", ".m4v": "mp4", ".mkv": "matroska", ".webm": "webm", ".avi": "avi"}
)
MP4_LIKE = frozenset({".mp4", ".m4v", ".mov", ".mkv"})


@dataclass(frozen=True)
class Encoder:
    """One way to write video.

    Args:
        codec: what users call the format, as in `--codec`.
        name: what the backend calls the encoder (a FourCC for OpenCV).
        backend: `pyav` or `opencv`.
        suffixes: of the files it may write.
        options: handed to the encoder.
        tag: the container's name for the codec where the usual one is not what players look for.
        clock: ticks a second that time stamps are written in (MPEG-4 part 2 takes less than 65536).
    """

    codec: str
    name: str
    backend: str
    suffixes: frozenset[str]
    options: Mapping[str, str] = field(default_factory=dict)
    tag: str | None = None
    clock: int = 90000


# In the order in which `auto` takes them. libx264: see `video_write`; the others run at their fastest setting that
# still looks fine. No B-frames where they can be had without: decoding times then equal presentation times.
ENCODERS = (
    Encoder("h264", "libx264", "pyav", MP4_LIKE, {"preset": "superfast", "crf": "23", "bf": "0"}),
    Encoder(
        "vp9",
        "libvpx-vp9",
        "pyav",
        MP4_LIKE | {".webm"},
        {"deadline": "realtime", "cpu-used": "8", "crf": "33", "b": "0", "row-mt": "1"},
    ),
    Encoder("mpeg4", "mpeg4", "pyav", MP4_LIKE, {"b": "8M"}, clock=60000),
    Encoder("mpeg4", "mp4v", "opencv", MP4_LIKE | {".avi"}),
    Encoder(
        "h265",
        "libx265",
        "pyav",
        MP4_LIKE,
        {"preset": "ultrafast", "crf": "26", "x265-params": "log-level=none:bframes=0"},
        "hvc1",
    ),
    Encoder("av1", "libsvtav1", "pyav", MP4_LIKE | {".webm"}, {"preset": "11", "crf": "38"}),
    Encoder("mjpeg", "MJPG", "opencv", frozenset({".avi"})),
)
CODECS = ("auto", *dict.fromkeys(encoder.codec for encoder in ENCODERS))


def video_suffix(codec: str) -> str:
    """The usual file suffix for `codec`: `.webm` for vp9, `.avi` for mjpeg, else `.mp4`."""
    return {"vp9": ".webm", "mjpeg": ".avi"}.get(codec, ".mp4")


def candidates(codec: str, suffix: str) -> list[Encoder]:
    """The encoders that may write `codec` (or, for `auto`, anything) into a file with this suffix, best first.

    Raises:
        UsageError: `unknown-codec`, `unknown-container`, or `codec-container` where the two do not go together.
    """
    if codec not in CODECS:
        raise UsageError("unknown-codec", f"unknown codec '{safe_text(codec)}'; known are {', '.join(CODECS)}")
    suffix = suffix.lower()
    if suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise UsageError(
            "unknown-container", f"cannot tell a video format from '{safe_text(suffix)}'; use one of {known}"
        )
    fitting = [e for e in ENCODERS if suffix in e.suffixes and codec in {"auto", e.codec}]
    if not fitting:
        raise UsageError(
            "codec-container", f"{codec} does not go into a '{suffix}' file; name it '{video_suffix(codec)}' instead"
        )
    return fitting
