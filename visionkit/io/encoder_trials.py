"""Which of the known video encoders this machine really runs, found by running them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from visionkit.errors import OutputError
from visionkit.io.encoders import ENCODERS, Encoder, video_suffix
from visionkit.io.text import safe_text
from visionkit.io.video_sinks import EncoderRefusedError, count_frames, open_sink

__all__ = ["EncoderStatus", "available_encoders", "no_encoder"]

FRAMES, SIZE_HW, FPS = 3, (64, 96), 25.0


@dataclass(frozen=True)
class EncoderStatus:
    """What came of writing three frames with one encoder; `reason` says why not `ok`."""

    name: str
    backend: str
    ok: bool
    reason: str
    codec: str


def available_encoders() -> list[EncoderStatus]:
    """One status per known encoder, found by writing three frames of 64 x 96 with it and reading the file again."""
    with tempfile.TemporaryDirectory(prefix="visionkit-") as folder:
        return [_try(encoder, Path(folder) / f"{i}{video_suffix(encoder.codec)}") for i, encoder in enumerate(ENCODERS)]


def no_encoder(codec: str, suffix: str, reasons: list[str]) -> OutputError:
    """The error for a codec that this machine cannot write; it lists what it can, having tried."""
    working = ", ".join(dict.fromkeys(s.codec for s in available_encoders() if s.ok)) or "none"
    wanted = f"{codec} video" if codec != "auto" else f"'{suffix}' video"
    return OutputError(
        "no-encoder", f"no working encoder for {wanted} ({'; '.join(reasons)}); available --codec: {working}"
    )


def _try(encoder: Encoder, path: Path) -> EncoderStatus:
    reason = ""
    try:
        _write(encoder, path)
        if (found := count_frames(path)) != FRAMES:
            reason = f"{found} of {FRAMES} frames are in the file"
    except Exception as error:  # FFmpeg's errors have types of their own, and any of them means no
        if not _is_refusal(error):
            raise
        reason = safe_text(error)
    return EncoderStatus(encoder.name, encoder.backend, not reason, reason, encoder.codec)


def _write(encoder: Encoder, path: Path) -> None:
    ramp = np.linspace(0, 255, SIZE_HW[0] * SIZE_HW[1] * 3).astype(np.uint8).reshape(*SIZE_HW, 3)
    sink = open_sink(encoder, path, path.suffix, SIZE_HW, FPS)
    step = round(1000 / FPS * sink.ticks_per_ms)
    try:
        for i in range(FRAMES):
            sink.write(ramp, i * step, step)
        sink.finish(FRAMES * step)
    except BaseException:
        sink.kill()
        raise


def _is_refusal(error: Exception) -> bool:
    usual = (EncoderRefusedError, OSError, ValueError, LookupError, RuntimeError, cv2.error)
    return isinstance(error, usual) or type(error).__module__.startswith("av.")
