"""Messages of OpenCV and of the FFmpeg inside it, kept from the terminal while a file is opened."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

__all__ = ["quiet_opencv"]


@contextlib.contextmanager
def quiet_opencv() -> Iterator[None]:
    """No messages of OpenCV and its FFmpeg inside the block.

    FFmpeg's level is read once in a process, when OpenCV opens its first file, for reading or writing: every place that
    opens one does it in this block.
    """
    import cv2

    level = cv2.utils.logging.getLogLevel()
    variable = "OPENCV_FFMPEG_LOGLEVEL"
    given = os.environ.get(variable)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    os.environ.setdefault(variable, "-8")
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
        if given is None:
            os.environ.pop(variable, None)
