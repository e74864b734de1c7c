"""Small clips for tests of reading, made with PyAV and damaged by hand; every frame shows its own number."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
BITS = 8
# x264's macroblock tree gives other bytes in one of ten runs, and a flipped bit should be the same bit in every run.
ENCODER_OPTIONS = {"libx264": {"x264-params": "mbtree=0"}, "libx265": {"x265-params": "log-level=none"}}


def numbered(number: int, size_hw: tuple[int, int] = (240, 320)) -> Image:
    """uint8 (H, W, 3) BGR: a gradient that moves, and `number` as 8 black or white blocks along the top edge."""
    height, width = size_hw
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([(columns + 3 * number) % 256, (rows + 2 * number) % 256, (rows + columns) % 256], axis=-1)
    image = image.astype(np.uint8)
    block = width // BITS
    for bit in range(BITS):
        image[: height // 4, bit * block : (bit + 1) * block] = 255 if number >> bit & 1 else 0
    return image


def number_of(image: Image) -> int:
    """The number that `numbered` drew, read back from a decoded image."""
    height, width = image.shape[:2]
    block = width // BITS
    means = [image[: height // 8, bit * block + 2 : (bit + 1) * block - 2].mean() for bit in range(BITS)]
    return sum(1 << bit for bit, mean in enumerate(means) if mean > 127)


def write_clip(
    path: Path,
    images: Iterable[Image],
    *,
    codec: str = "libx264",
    times_ms: Sequence[int] | None = None,
    fps: int = 25,
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    faststart: bool = False,
    fragmented: bool = False,
    rotation: int | None = None,
    audio: bool = False,
) -> Path:
    """A clip at `fps`, or with each frame at its `times_ms`; returns `path`."""
    options = {"fflags": "+bitexact"}  # no random identifiers
    if faststart:
        options["movflags"] = "+faststart"
    if fragmented:
        options["movflags"] = "+frag_keyframe+empty_moov+default_base_moof"
    with av.open(str(path), "w", container_options=options) as container:
        stream = None
        for number, image in enumerate(images):
            if stream is None:
                stream = container.add_stream(codec, rate=fps)
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = pix_fmt
                stream.codec_context.gop_size = gop
                stream.codec_context.thread_count = 1
                stream.options = ENCODER_OPTIONS.get(codec, {})
                if times_ms is not None:
                    stream.codec_context.time_base = Fraction(1, 1000)
                    stream.time_base = Fraction(1, 1000)
                if rotation is not None:
                    stream.set_display_rotation(rotation)
                sound = container.add_stream("aac", rate=8000) if audio else None
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts = number if times_ms is None else times_ms[number]
            frame.time_base = Fraction(1, fps) if times_ms is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))
            if sound is not None:
                _mux_silence(container, sound)
    return path


def _mux_silence(container: av.container.OutputContainer, stream: av.AudioStream) -> None:
    samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    samples.sample_rate = 8000
    samples.pts = 0
    container.mux(stream.encode(samples))
    container.mux(stream.encode(None))


def cut(path: Path, target: Path, fraction: float = 0.5) -> Path:
    """The first part of a file."""
    data = path.read_bytes()
    target.write_bytes(data[: int(len(data) * fraction)])
    return target


def flip_bits(path: Path, target: Path, *, count: int = 40, seed: int = 0, middle: float = 0.5) -> Path:
    """The file with `count` bits turned over in the 400 bytes after `middle` of its length."""
    data = bytearray(path.read_bytes())
    rng = random.Random(seed)
    start = int(len(data) * middle)
    for _ in range(count):
        data[start + rng.randrange(400)] ^= 1 << rng.randrange(8)
    target.write_bytes(bytes(data))
    return target


def zero(path: Path, target: Path, start: float, stop: float) -> Path:
    """The file with the bytes between two fractions of its length set to zero."""
    data = bytearray(path.read_bytes())
    first, last = int(len(data) * start), int(len(data) * stop)
    data[first:last] = bytes(last - first)
    target.write_bytes(bytes(data))
    return target


def lie_about_count(path: Path, target: Path, count: int) -> Path:
    """The MP4 whose time-to-sample table says there are `count` frames."""
    data = bytearray(path.read_bytes())
    at = data.index(b"stts")
    data[at + 12 : at + 16] = struct.pack(">I", count)
    target.write_bytes(bytes(data))
    return target
