"""VID-1: rows of a run equal the API called frame by frame, in count, order, time, size and value."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import visionkit as vk
from visionkit.cli.shell import run as cli
from visionkit.io.results import frame_row
from visionkit.structures import Frame, Track
from visionkit.train.sequence import rendered_sequence

COUNT, SIZE_HW, FPS = 23, (120, 176), 12.5


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[float, ...]]:
    """A clip written by OpenCV alone, and its object's box in the first frame."""
    path = tmp_path_factory.mktemp("vid1") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, SIZE_HW[::-1])
    frames = list(rendered_sequence(COUNT, SIZE_HW, seed=2))
    for image, _ in frames:
        writer.write(image)
    writer.release()
    return path, tuple(float(v) for v in frames[0][1])


def images_of(path: Path) -> list[np.ndarray]:
    """Every frame as OpenCV reads it, without VisionKit."""
    capture, images = cv2.VideoCapture(str(path)), []
    while True:
        ok, image = capture.read()
        if not ok:
            capture.release()
            return images
        images.append(image)


def by_hand(clip: tuple[Path, tuple[float, ...]], images: list[np.ndarray]) -> list[Track]:
    tracker = vk.load("siambox_light", runtime="litert", threads=1)
    return [tracker.init(images[0], clip[1])] + [tracker.update(image) for image in images[1:]]


@pytest.fixture(scope="module")
def rows(clip: tuple[Path, tuple[float, ...]], tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The rows of the command line."""
    x1, y1, x2, y2 = clip[1]
    out = tmp_path_factory.mktemp("out") / "run"
    box = f"{x1!r},{y1!r},{x2 - x1!r},{y2 - y1!r}"
    how = ["--runtime", "litert", "--threads", "1", "--backend", "opencv", "--out", str(out)]
    assert cli(["track", str(clip[0]), "--box", box, *how]) == 0
    assert len(images_of(out / "annotated.mp4")) == COUNT
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_vid1_every_frame_once_in_order_with_its_time_and_size(rows: list[dict]) -> None:
    assert [row["index"] for row in rows] == list(range(COUNT))
    assert [row["pts_ms"] for row in rows] == pytest.approx([1000 / FPS * i for i in range(COUNT)], abs=0.01)
    assert {tuple(row["size_hw"]) for row in rows} == {SIZE_HW}


def test_vid1_values_equal_the_api_frame_by_frame(rows: list[dict], clip: tuple[Path, tuple[float, ...]]) -> None:
    images = images_of(clip[0])
    assert len(images) == COUNT
    for row, image, track in zip(rows, images, by_hand(clip, images), strict=True):
        expected = frame_row(Frame(image, row["index"], row["pts_ms"], row["duration_ms"], "clip.avi"), track)
        assert row["track"] == expected["track"]


def test_vid1_swapped_colours_would_be_found(rows: list[dict], clip: tuple[Path, tuple[float, ...]]) -> None:
    swapped = by_hand(clip, [np.ascontiguousarray(image[..., ::-1]) for image in images_of(clip[0])])
    assert [row["track"]["confidence"] for row in rows[1:]] != [round(t.confidence, 4) for t in swapped[1:]]


def test_vid1_the_stream_equals_the_run(rows: list[dict], clip: tuple[Path, tuple[float, ...]]) -> None:
    tracker = vk.load("siambox_light", runtime="litert", threads=1)
    seen = list(vk.stream(clip[0], tracker, xyxy=clip[1], backend="opencv"))
    assert [frame.index for frame, _ in seen] == list(range(COUNT))
    assert [frame_row(frame, track)["track"] for frame, track in seen] == [row["track"] for row in rows]
