"""Say what to do when OpenCV cannot be loaded, instead of the loader's own message."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from visionkit.errors import VisionkitError

__all__ = ["DESKTOP_LIBRARIES", "explain", "explained"]

# What the desktop wheel of OpenCV (opencv-python: Qt windows) takes from the system; the headless wheel takes nothing.
DESKTOP_LIBRARIES = ("libGL.so.1", "libgthread-2.0.so.0", "libglib-2.0.so.0", "libxcb.so.1", "libX11.so.6")

_SWAP = "pip uninstall -y opencv-python && pip install --force-reinstall --no-deps 'opencv-python-headless>=5.0,<5.1'"


def explain(error: ImportError) -> VisionkitError | None:
    """The error to show for a failed import of OpenCV, or None if `error` is about something else."""
    library = next((name for name in DESKTOP_LIBRARIES if name in str(error)), None)
    if library:
        return VisionkitError(
            "opencv-needs-libgl",
            f"OpenCV cannot start: this machine has no {library}, which the desktop wheel opencv-python needs. "
            f"Install it (`apt-get install -y libgl1 libglib2.0-0`), or take the wheel without windows: `{_SWAP}`.",
        )
    if error.name == "cv2":
        return VisionkitError(
            "opencv-missing",
            "OpenCV is not installed. Install one of its wheels, never both: `pip install 'opencv-python>=5.0,<5.1'`, "
            "or on a machine without a display `pip install 'opencv-python-headless>=5.0,<5.1'`.",
        )
    return None


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Within, an import of OpenCV that fails raises the `VisionkitError` that tells the remedy."""
    try:
        yield
    except ImportError as error:
        told = explain(error)
        if told is None:
            raise
        raise told from error
