"""Memory of a long run that detects, with masks, numbers, counts, drawing and every format: flat over 2,000 frames."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from tests.tasks.made_detect import made_detector, scene, squares
from visionkit.draw import DetectionDrawer
from visionkit.io import VideoWriter
from visionkit.pipeline import COUNTS, DetectStage, Writing, run
from visionkit.tasks import CountPlan
from visionkit.tasks.association import ByteAssociator

pytestmark = pytest.mark.faults

SIZE_HW = (144, 256)
FRAMES = 2000
MIB = 1 << 20


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.timeout(1500)
def test_memory_is_flat_over_2000_frames_with_masks(tmp_path):
    clip = tmp_path / "clip.mp4"
    with VideoWriter(clip, size_hw=SIZE_HW, fps=25) as writer:
        for index in range(FRAMES):  # ever new objects, one after the other
            left = 4 * index % 220
            blobs = [
                ("red", left, 20, left + 30, 60),
                ("green", 10, 80, 60, 130),
                ("blue", 240 - left, 90, 255 - left, 120),
            ]
            writer.write(scene(SIZE_HW, blobs), 40.0 * index, 40.0)
    plan = CountPlan(lines=(((128, 0), (128, 144)),), zones=(((20, 20), (200, 20), (200, 140), (20, 140)),))
    detector = made_detector(lambda image: squares(image, masks=True), size_hw=SIZE_HW, instances=2)
    stage = DetectStage(detector, associate=ByteAssociator(), count=plan)
    drawer, levels = DetectionDrawer(lines=plan.lines, zones=plan.zones), []

    def draw(item):
        drawer(item.frame.image, item.results["detect"], stage.class_names, item.results[COUNTS])

    def watch(item):
        detector.made[0].seen.clear()
        detector.made[1].seen.clear()
        if item.frame.index % 100 == 99:
            levels.append(resident())
        return True

    writing = Writing(out=tmp_path / "out", formats=("csv", "coco", "mot"))
    result = run(clip, [stage], writing=writing, draw=draw, watch=watch)
    assert result.counts["rows"] == FRAMES
    levels = np.array(levels) / MIB
    growth = np.polyfit(np.arange(5, len(levels)), levels[5:], 1)[0] * 10  # MiB for 1,000 frames, warmed up
    assert growth < 6, levels.round(1).tolist()
