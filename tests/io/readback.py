"""What a written video really holds, by PyAV alone, and a folder's content for before-and-after comparisons."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt


@dataclass
class Written:
    """Decoded pictures and times of a video file."""

    images: list[npt.NDArray[np.uint8]]
    pts_ms: list[float]
    codec: str
    pix_fmt: str
    size_hw: tuple[int, int]
    duration_ms: float
    audio_codec: str | None
    colorspace: int
    color_range: int


def read_back(path: Path) -> Written:
    """Everything a test may ask about the video in `path`."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        clock: Any = stream.time_base
        length_ms = container.duration / 1000 if stream.duration is None else float(stream.duration * clock * 1000)
        audio = container.streams.audio[0].codec_context.name if container.streams.audio else None
        return Written(
            images=[frame.to_ndarray(format="bgr24") for frame in frames],
            pts_ms=[float(frame.pts * frame.time_base * 1000) for frame in frames],
            codec=stream.codec_context.name,
            pix_fmt=str(stream.codec_context.pix_fmt),
            size_hw=(stream.height, stream.width),
            duration_ms=length_ms,
            audio_codec=audio,
            colorspace=int(frames[0].colorspace),
            color_range=int(frames[0].color_range),
        )


def sound(path: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Times in ms and absolute values of every sample of the first audio stream, first channel."""
    times, values = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray().astype(np.float64)
            channels = len(frame.layout.channels)
            first = samples[0, ::channels] if not frame.format.is_planar else samples[0]
            start = float(frame.pts * frame.time_base)
            times.append(1000 * (start + np.arange(len(first)) / frame.sample_rate))
            values.append(np.abs(first))
    joined = np.concatenate(values)
    return np.concatenate(times), joined / joined.max()


def snapshot(folder: Path) -> dict[str, str]:
    """The sha256 of every file below `folder`, links not followed, by relative name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder"
    return found
