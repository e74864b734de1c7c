"""What C libraries print on file descriptor 2 while an image is decoded: caught, because it is the only sign of damage.

libjpeg and libpng return an array for many broken files and only print. Lines that are not a decoder's (another thread
may write at that moment) are passed on when the block ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from typing import IO

__all__ = ["caught_messages"]

_lock = threading.Lock()
_DECODER = re.compile(
    r"libpng|libtiff|TIFF|JPEG|jpeg|Corrupt|Premature|Unsupported marker|Invalid SOS|Inconsistent progression|"
    r"^\[ *(WARN|ERROR|INFO|DEBUG|FATAL):\d+@|global .*\.(cpp|hpp):\d+|^Warning: |OpenCV|webp|WebP|extraneous bytes|"
    r"Bogus|Huffman|DCT|restart marker|Quantization|avif|AVIF|^> |^\s*$"
)


@contextlib.contextmanager
def caught_messages() -> Iterator[list[str]]:
    """The decoder's lines printed inside the block; the list is filled when it ends."""
    lines: list[str] = []
    with _lock:
        try:
            saved = os.dup(2)
        except OSError:  # nothing is open there: nothing to catch
            yield lines
            return
        with tempfile.TemporaryFile() if not hasattr(os, "memfd_create") else _memory() as sink:
            os.dup2(sink.fileno(), 2)
            try:
                yield lines
            finally:
                os.dup2(saved, 2)
                os.close(saved)
                sink.seek(0)
                _sort(sink.read(1 << 20), lines)


def _memory() -> IO[bytes]:
    return os.fdopen(os.memfd_create("messages"), "w+b")


def _sort(data: bytes, lines: list[str]) -> None:
    others = []
    for line in data.splitlines(keepends=True):
        text = line.decode("utf-8", "backslashreplace")
        if _DECODER.search(text.rstrip("\n")):
            lines.append(text.strip())
        else:
            others.append(line)
    if others:
        with contextlib.suppress(OSError):
            os.write(2, b"".join(others))
