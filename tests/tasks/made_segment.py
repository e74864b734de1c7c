"""Segmentation networks made by hand, and small cards of real ones, for tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from visionkit.runtime.base import Runner, Signature, TensorSpec
from visionkit.tasks import InputRule, Segmenter, SegmentOptions
from visionkit.tasks.segment_network import SegmentNetwork

F32 = np.dtype(np.float32)
COLORS = ("grey", "red", "green", "blue")
STRIDE = 8


class Made(Runner):
    """A network (1, h, w, 3) -> (1, h / 8, w / 8, L) of one function of the input; remembers what it was given."""

    def __init__(self, function, size_hw, classes=4):
        spec = TensorSpec("image", (1, *size_hw, 3), F32)
        height, width = (-(-side // STRIDE) for side in size_hw)
        super().__init__(
            "made", Signature((spec,), (TensorSpec("logits", (1, height, width, classes), F32),)), threads=1
        )
        self.function, self.inputs_seen = function, []

    def _run(self, feed):
        self.inputs_seen.append(feed[0].copy())
        return [np.asarray(self.function(feed[0]), np.float32)]


def by_color(inputs, stride=STRIDE):
    """Logits by the mean colour of each cell: grey where no channel stands out."""
    image = inputs[0]
    size = (-(-image.shape[1] // stride), -(-image.shape[0] // stride))
    mean = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA) / 255  # (h, w, 3) RGB
    return np.dstack([np.full(mean.shape[:2], 0.25), 2 * mean - mean.sum(axis=2, keepdims=True)])[None] * 8


def made_segmenter(function=by_color, *, size_hw=(64, 64), resize="shortest_side", labels=COLORS, classes=4, **options):
    """A segmenter over `function`, levels 0 to 255 in; `runners` of its network by size are in `made`."""
    made = {}

    def compile_size(size, known):
        made[size] = Made(function, size, classes)
        return [made[size]]

    rule = InputRule.preset("raw", size_hw, resize=resize)
    segmenter = Segmenter(SegmentNetwork(compile_size), rule, SegmentOptions(**options), labels=labels)
    segmenter.made = made
    return segmenter


def halves(size_hw, left="red", right="green", at=None):
    """An image whose left part is of one colour and whose right part of another."""
    bgr = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0), "grey": (90, 90, 90)}
    image = np.empty((*size_hw, 3), np.uint8)
    at = size_hw[1] // 2 if at is None else at
    image[:, :at], image[:, at:] = bgr[left], bgr[right]
    return image


def write_segment_card(
    folder: Path,
    *,
    labels: Sequence[str] = ("background", "sand", "sea"),
    size_hw: tuple[int, int] = (64, 64),
    resize: str = "shortest_side",
    extra: str = "",
) -> Path:
    """Write `folder/card.toml` and random weights of a tiny U-shaped network; returns the folder."""
    from visionkit.runtime.quiet import import_keras

    keras = import_keras()
    from visionkit import nets

    keras.utils.set_random_seed(5)
    args = {"width": 4, "depth": 2, "max_width": 8}
    model = nets.unet(**args, classes=len(labels), size_hw=size_hw)
    for layer in model.layers:  # spread the answers: a head begins near zero
        if layer.name in ("logits", "logits_low") and layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([6 * kernel, bias])
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "tiny.weights.h5"
    model.save_weights(weights)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    lines = ['task = "segment"', 'network = "unet"', 'licence = "Apache-2.0"']
    lines += [f"labels = {json.dumps(list(labels))}", extra, "[args]"]
    lines += [f"{key} = {value}" for key, value in args.items()]
    lines += ["[input]", f"size_hw = {list(size_hw)}", f'resize = "{resize}"', 'preset = "torch"']
    lines += ["[[weights]]", f'file = "{weights.name}"', f'sha256 = "{sha256}"', 'format = "visionkit"']
    (folder / "card.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
