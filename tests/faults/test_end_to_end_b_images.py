"""Rows B1, B2 and B5 through `visionkit track`, each under the common oracle."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.faults.oracle import check, track
from tests.io.clips import numbered

SIZE_HW = (96, 128)


def jpeg(number: int, share: float = 1.0) -> bytes:
    """The first part of an image's file."""
    data = cv2.imencode(".jpg", numbered(number, SIZE_HW), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    return data[: int(share * len(data))]


@pytest.fixture
def folder(tmp_path):
    """100 good images, and among them 5 bad ones, one that cannot be read and an empty one."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(100):
        (images / f"{number:03}.jpg").write_bytes(jpeg(number))
    for number, content in enumerate(
        [b"text\n" * 40, jpeg(1, 0.4), b"\x89PNG\r\n\x1a\nno", b"\0" * 500, b"BM" + b"x" * 50]
    ):
        (images / f"{10 * number:03}-bad.{'png' if number == 2 else 'bmp' if number == 4 else 'jpg'}").write_bytes(
            content
        )
    (images / "055-gone.jpg").symlink_to(images / "nowhere.jpg")  # a name that cannot be opened, for root as well
    (images / "066-empty.jpg").write_bytes(b"")
    return images


def test_b1_a_folder_with_bad_images_exits_4_and_lists_each_with_a_reason(folder, tmp_path):
    first = check(track("images", folder=tmp_path, out="a"), 4, video=False)
    assert [row["source"] for row in first.rows] == [f"{number:03}.jpg" for number in range(100)]
    failures = first.manifest["source"]["failures"]
    assert [entry["name"] for entry in failures] == [
        *("000-bad.jpg", "010-bad.jpg", "020-bad.png", "030-bad.jpg", "040-bad.bmp", "055-gone.jpg", "066-empty.jpg")
    ]
    assert all(entry["reason"] for entry in failures)
    assert first.manifest["counts"]["skipped"] == 7
    assert len(list((first.out / "annotated").iterdir())) == 100
    again = check(track("images", folder=tmp_path, out="b"), 4, video=False)
    assert again.rows == first.rows


def test_b2_a_truncated_jpeg_exits_3_alone(tmp_path):
    (tmp_path / "half.jpg").write_bytes(jpeg(3, 0.5))
    outcome = check(track("half.jpg", folder=tmp_path), 3, "input-undecodable")
    assert "half.jpg" in outcome.stderr


def test_b2_a_truncated_jpeg_in_a_folder_has_no_clean_row(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(jpeg(number, 0.5 if number == 1 else 1.0))
    outcome = check(track("images", folder=tmp_path), 4, video=False)
    assert [row["source"] for row in outcome.rows if "error" not in row] == ["0.jpg", "2.jpg"]
    assert [entry["name"] for entry in outcome.manifest["source"]["failures"]] == ["1.jpg"]


def test_one_image_is_a_run_of_one_row(tmp_path):
    cv2.imwrite(str(tmp_path / "one.png"), np.full((*SIZE_HW, 3), 90, np.uint8))
    outcome = check(track("one.png", folder=tmp_path), 0, video=False)
    assert [(row["source"], row["pts_ms"]) for row in outcome.rows] == [("one.png", None)]
    assert [p.name for p in (outcome.out / "annotated").iterdir()] == ["one.jpg"]
