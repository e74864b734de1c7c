"""Detectors made by hand, and small cards of real ones, for tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from visionkit.errors import ModelError
from visionkit.tasks import DetectOptions, Detector, InputRule
from visionkit.tasks.detect_network import DetectNetwork, RawDetections

LABELS = ("red", "green", "blue")


class MadeEngine:
    """An engine that finds what `function` says of an input float32 (h, w, 3) RGB: boxes, scores, classes, masks."""

    runtime, precision, threads = "made", "float32", 1

    def __init__(self, function):
        self.function, self.calls, self.seen = function, 0, []

    def __call__(self, inputs, valid_hw, limits):
        self.calls += 1
        found = []
        for image, valid in zip(inputs, valid_hw, strict=True):
            self.seen.append((image.shape[:2], tuple(valid)))
            boxes, scores, classes, masks = self.function(image)
            boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
            scores, classes = np.asarray(scores, np.float32), np.asarray(classes, np.int64)
            keep = ~(scores < limits.conf)  # a NaN stays
            keep = np.flatnonzero(keep)[np.argsort(-scores[keep], kind="stable")][: limits.max_det]
            masks = None if masks is None else np.asarray(masks, np.float32)[keep]
            found.append(RawDetections(boxes[keep], scores[keep], classes[keep], masks))
        return found

    def close(self):
        pass


def squares(image, masks=False):
    """The pure red, green and blue blobs of an input, levels 0 to 255, each with the probability of its fullness."""
    boxes, scores, classes, grids = [], [], [], []
    for channel in range(3):
        level = image[..., channel] - np.delete(image, channel, axis=2).max(axis=2)
        count, _, stats, _ = cv2.connectedComponentsWithStats((level > 100).astype(np.uint8))
        for x, y, w, h, area in stats[1:count]:
            if area >= 4:
                boxes.append([x, y, x + w, y + h])
                scores.append(0.999 * area / (w * h))
                classes.append(channel + 1)
                grids.append(np.tri(28))
    return boxes, scores, classes, np.array(grids).reshape(-1, 28, 28) if masks else None


def made_detector(
    function=squares, *, size_hw=(96, 128), resize="stretch", labels=LABELS, batch=1, instances=1, **options
):
    """A detector over `function`, levels 0 to 255 in; its engines are in `made`."""
    made = []

    def compile_size(size, known):
        engines = [MadeEngine(function) for _ in range(instances)]
        made.extend(engines)
        return engines

    rule = InputRule.preset("raw", size_hw, resize=resize)
    detector = Detector(DetectNetwork(compile_size, batch=batch), rule, DetectOptions(**options), labels=labels)
    detector.made = made
    detector.model = {"name": "made", "sha256": "0" * 64}
    return detector


def scene(size_hw, blobs):
    """An image with rectangles: (colour, x1, y1, x2, y2)."""
    bgr = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0)}
    image = np.full((*size_hw, 3), 90, np.uint8)
    for color, x1, y1, x2, y2 in blobs:
        image[max(0, y1) : max(0, y2), max(0, x1) : max(0, x2)] = bgr[color]
    return image


def failing(when, kind="raise"):
    """`squares` that fails on the inputs of which `when` is true."""

    def function(image):
        found = squares(image)
        if not when(image):
            return found
        if kind == "raise":
            raise ModelError("model-failed", "made to fail")
        return [[0, 0, 9, 9]], [float("nan")], [1], None

    return function


def write_detect_card(
    folder: Path,
    *,
    labels: Sequence[str] = ("car", "bus", "dog"),
    size_hw: tuple[int, int] = (96, 128),
    extra: str = "",
) -> Path:
    """Write `folder/card.toml` and random weights of a tiny SSDLite; returns the folder."""
    from visionkit.runtime.quiet import import_keras

    keras = import_keras()
    from visionkit import nets

    keras.utils.set_random_seed(5)
    args = {"backbone": "small", "width_multiplier": 0.25, "extras": [32, 32]}
    model = nets.ssdlite(**args, classes=len(labels) + 1, size_hw=size_hw)
    for layer in model.layers:  # spread the answers: a head begins near zero
        if layer.name.startswith("head.classification_head") and layer.name.endswith(".1") and layer.weights:
            kernel, *rest = layer.get_weights()
            layer.set_weights([40 * kernel, *rest])
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "tiny.weights.h5"
    model.save_weights(weights)
    lines = ['task = "detect"', 'network = "ssdlite"', 'licence = "Apache-2.0"']
    lines += [f"labels = {json.dumps(list(labels))}", extra, "[args]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in args.items()]
    lines += ["[input]", f"size_hw = {list(size_hw)}", 'resize = "stretch"', 'preset = "tf"']
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    lines += ["[[weights]]", f'file = "{weights.name}"', f'sha256 = "{sha256}"', 'format = "visionkit"']
    (folder / "card.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
