"""What both video readers hand over: one decoded picture, its time, and what was lost before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError

__all__ = ["Picture", "Reader", "Stream", "too_large", "turned"]


@dataclass(slots=True)
class Picture:
    """One picture in order of presentation.

    Args:
        render: gives the upright uint8 (H, W, 3) BGR image; may be called once, before the next picture is asked for
            or after.
        size_hw: of the upright image.
        pts_ms: exact time by the container; None when it gives none.
        duration_ms: by the container; None when it gives none.
        damaged: the decoder complained about it, or about a picture that it was predicted from.
        lost_before: pictures known to be lost between the one before and this one.
        key: it needs no other picture to be decoded (or nobody knows).
        trouble_before: data was lost before this picture; how many pictures that was, only the clock can tell.
    """

    render: Callable[[], npt.NDArray[np.uint8]]
    size_hw: tuple[int, int]
    pts_ms: Fraction | None
    duration_ms: Fraction | None
    rotation: int = 0
    damaged: bool = False
    lost_before: int = 0
    trouble_before: bool = False
    key: bool = True


@dataclass(slots=True)
class Stream:
    """What the container says of the video stream."""

    codec: str
    container: str
    fps: Fraction | None
    duration_ms: float | None
    declared: int | None
    has_audio: bool
    pixel_format: str | None = None


class Reader(Protocol):
    """One pass over the pictures of a file."""

    backend: str
    stream: Stream
    lost_at_end: int  # pictures known to be lost after the last one
    ended_early: bool

    @property
    def first_index(self) -> int:
        """Index in the file of the first picture."""

    def pictures(self) -> Iterator[Picture]:
        """Pictures in order of presentation; `lost_at_end` and `ended_early` are final after the last one."""

    def events(self) -> list[dict[str, Any]]:
        """Events found so far that belong to no picture."""

    def close(self) -> None:
        """Let go of the file."""


def turned(image: npt.NDArray[np.uint8], rotation: int, mirrored: bool = False) -> npt.NDArray[np.uint8]:
    """The image (H, W, 3), turned `rotation` degrees clockwise, then mirrored left to right; contiguous."""
    out = np.rot90(image, -(rotation // 90) % 4)
    return np.ascontiguousarray(out[:, ::-1] if mirrored else out)


def too_large(name: str, height: int, width: int, max_pixels: int) -> InputError:
    """The error for a picture above the limit."""
    return InputError(
        "frame-too-large",
        f"{name} has frames of {width}x{height} = {height * width} pixels; the limit is {max_pixels} "
        "(raise it with --max-pixels).",
    )
