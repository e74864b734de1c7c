"""Opens whatever a user names: an image, a folder of images, a glob, or a video; decided by content, not by name."""

from __future__ import annotations

import os
from pathlib import Path

from visionkit.errors import InputError, UsageError
from visionkit.io.paths import LocalFile, PathLike, local_file, local_path
from visionkit.io.probe import Sniffed, read_head, sniff
from visionkit.io.report import Source
from visionkit.io.video_read import Backend, Selection, open_video

__all__ = ["open_source"]

_GLOB = "*?["


def open_source(
    source: PathLike,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    stride: int = 1,
    backend: Backend = "auto",
    max_pixels: int = 100_000_000,
) -> Source:
    """The frames of a local image, folder, glob or video, to be iterated once inside a `with` block.

    Args:
        source: a path; never a protocol or a numbered pattern. `*`, `?` and `[` make a glob only where no file has
            that very name.
        start_s: frames from this time of the container on (videos only).
        end_s: frames before this time (videos only).
        stride: every n-th frame from the first one on; `Frame.index` stays the index in the source.
        backend: reader of videos; `auto` is PyAV where installed, else OpenCV.
        max_pixels: larger images and frames are refused before they are decoded.

    Raises:
        InputError: `input-missing`, `not-a-regular-file`, `input-unreadable`, `input-undecodable`, `playlist-refused`,
            `no-video-stream`, `no-frames`, `no-images`, `no-decoder`, `frame-too-large`, `image-too-large`.
        UsageError: `bad-range`, `bad-backend`.
    """
    from visionkit.io.images import FolderSource, ImageSource, listing

    selection = Selection(start_s, end_s, stride)
    path = local_path(source)
    if path.is_dir() or _is_glob(path):
        _without_range(selection)
        return FolderSource(listing(path), path, stride=stride, max_pixels=max_pixels)
    file = local_file(source)
    found = _openable(file, sniff(read_head(file)))
    if found.kind == "image":
        _without_range(selection)
        return ImageSource(file, found.format, max_pixels=max_pixels)
    return open_video(file, found.format, selection, backend=backend, max_pixels=max_pixels)


def _without_range(selection: Selection) -> None:
    if selection.start_s is not None or selection.end_s is not None:
        raise UsageError("bad-range", "A start or an end needs a video; images have no time.")


def _is_glob(path: Path) -> bool:
    return not os.path.lexists(path) and any(mark in os.fspath(path) for mark in _GLOB)


def _openable(file: LocalFile, found: Sniffed) -> Sniffed:
    """`found` for a video or an image; a GIF that moves is a video."""
    if found.kind == "playlist":
        raise InputError(
            "playlist-refused",
            f"{file.name} is a {found.format} playlist, which names other files or addresses; "
            "give the video file itself.",
        )
    if found.kind == "audio":
        raise InputError(
            "no-video-stream", f"{file.name} is a sound file ({found.format}); expected a video or an image."
        )
    if found.kind == "unknown":
        raise InputError(
            "input-undecodable",
            f"{file.name} ({file.size} bytes) "
            + ("is neither a video nor an image that VisionKit reads." if file.size else "is empty."),
        )
    if found.format == "gif":
        from visionkit.io.image_header import moves

        return Sniffed("video", "gif") if moves(file.path) else found
    return found
