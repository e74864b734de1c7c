"""A detector of what moves: the background of a clip subtracted; fake, but plausible on real video."""

from __future__ import annotations

import cv2
import numpy as np

from tests.tasks.made_detect import MadeEngine
from visionkit.io import open_source
from visionkit.tasks import DetectOptions, Detector, InputRule
from visionkit.tasks.detect_network import DetectNetwork


def background_of(clip, every=10, size_hw=None):
    """The median of some frames, float32 (H, W, 3) RGB."""
    with open_source(clip, stride=every) as frames:
        images = [frame.image for frame in frames]
    median = np.median(np.stack(images[:60]), axis=0).astype(np.float32)
    if size_hw is not None:
        median = cv2.resize(median, size_hw[::-1])
    return np.ascontiguousarray(median[..., ::-1])


def moving_detector(clip, *, masks=False, least=400, batch=1, **options):
    """A detector of moving things as `car` (large) and `bus` (larger), surer the fuller its box is."""
    with open_source(clip) as frames:
        size_hw = next(iter(frames)).image.shape[:2]
    background = background_of(clip)

    def function(image):
        difference = image - background
        difference = np.abs(difference - np.median(difference[::8, ::8], axis=(0, 1))).max(axis=2)  # of the exposure
        moving = cv2.morphologyEx((difference > 38).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
        moving = cv2.morphologyEx(moving, cv2.MORPH_CLOSE, np.ones((15, 15), np.uint8))
        count, ids, stats, _ = cv2.connectedComponentsWithStats(moving)
        boxes, scores, classes, grids = [], [], [], []
        for number in range(1, count):
            x, y, w, h, area = stats[number]
            if area < least:
                continue
            boxes.append([x, y, x + w, y + h])
            scores.append(min(0.98, area / (w * h)))
            classes.append(2 if area > 30 * least else 1)
            part = (ids[y : y + h, x : x + w] == number).astype(np.float32)
            grids.append(cv2.resize(part, (28, 28), interpolation=cv2.INTER_AREA))
        return boxes, scores, classes, np.array(grids).reshape(-1, 28, 28) if masks else None

    rule = InputRule.preset("raw", size_hw)
    network = DetectNetwork(lambda size, known: [MadeEngine(function)], batch=batch)
    detector = Detector(network, rule, DetectOptions(**options), labels=("car", "bus"))
    detector.model = {"name": "moving", "sha256": "0" * 64}
    return detector
