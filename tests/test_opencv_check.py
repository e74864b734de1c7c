"""A failed import of OpenCV is explained, any other is let through."""

from __future__ import annotations

import pytest

from visionkit.errors import VisionkitError
from visionkit.opencv_check import explain, explained


def test_a_missing_system_library_names_it_and_both_remedies():
    told = explain(ImportError("libgthread-2.0.so.0: cannot open shared object file: No such file or directory"))
    assert told is not None
    assert told.slug == "opencv-needs-libgl"
    assert "no libgthread-2.0.so.0" in told.message
    assert "apt-get install" in told.message
    assert "pip uninstall -y opencv-python && pip install" in told.message


def test_no_opencv_at_all_names_the_wheels():
    told = explain(ModuleNotFoundError("No module named 'cv2'", name="cv2"))
    assert told is not None
    assert told.slug == "opencv-missing"


def test_other_imports_pass():
    assert explain(ModuleNotFoundError("No module named 'scipy'", name="scipy")) is None
    with pytest.raises(ModuleNotFoundError, match="scipy"), explained():
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")
    with pytest.raises(VisionkitError, match=r"libGL\.so\.1"), explained():
        raise ImportError("libGL.so.1: cannot open shared object file")
