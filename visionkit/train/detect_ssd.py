"""What a training of an SSD needs: targets of views, the loss, and boxes out of the network's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from visionkit.geometry.assign import BACKGROUND, assign_anchors
from visionkit.geometry.box_codec import encode_boxes
from visionkit.geometry.ssd_rule import SSDRule
from visionkit.tasks.detect_network import RawDetections
from visionkit.tasks.ssd import decode_ssd
from visionkit.train.detect_augment import DetectView
from visionkit.train.detect_loss import SSDLoss, foreground_accuracy

__all__ = ["SSDLearner", "SSDTargets"]

Floats = npt.NDArray[np.float32]
MATCH = 0.5  # intersection over union from which a default box stands for an object
INSIDE = 0.5  # share of a default box inside of an ignored one from which it does not count


class SSDTargets:
    """Targets float32 (A, 5) of a view: label (0 background, -1 does not count) and deltas of each default box.

    A default box stands for the object that it overlaps most, from half on; each object's best one for it in any case
    (Liu et al., SSD, ECCV 2016, section 2.2).
    """

    def __init__(self, rule: SSDRule) -> None:
        self.anchors, self._weights = rule.anchors(), rule.weights

    def __call__(self, view: DetectView, rng: np.random.Generator) -> Floats:
        """The targets; nothing is drawn."""
        out = np.zeros((len(self.anchors), 5), np.float32)
        real = ~view.ignored
        boxes = view.xyxy[real].astype(np.float32)
        matched = assign_anchors(self.anchors, boxes, high=MATCH, low=MATCH, allow_low_quality=False, claim=True)
        there = np.flatnonzero(matched != BACKGROUND)
        if view.ignored.any():
            covered = _covered(self.anchors, view.xyxy[view.ignored].astype(np.float32)) >= INSIDE
            out[covered, 0] = -1
        out[there, 0] = view.class_id[real][matched[there]] + 1
        out[there, 1:] = encode_boxes(boxes[matched[there]], self.anchors[there], self._weights)
        return out


def _covered(anchors: Floats, boxes: Floats) -> Floats:
    """The largest share (A,) of each anchor that lies in one of the boxes (N, 4)."""
    a, b = anchors[:, None], boxes[None]
    sides = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0)
    share: Floats = (sides.prod(axis=-1) / (anchors[:, 2:] - anchors[:, :2]).prod(axis=-1)[:, None]).max(axis=1)
    return share


class SSDLearner:
    """A network of `visionkit.nets` whose outputs are `class_logits` and `box_deltas`, as a training sees it.

    Attributes:
        network: the network; `joined` the same with one output (B, A, L + 4), which the loss takes.
    """

    def __init__(self, network: keras.Model, arguments: Mapping[str, Any]) -> None:
        self.network = network
        outputs = [network.output["class_logits"], network.output["box_deltas"]]
        joined = keras.layers.Concatenate(axis=-1, name="joined", dtype="float32")(outputs)
        self.joined = keras.Model(network.input, joined, name="joined")
        self.rule = SSDRule.of_network(arguments)
        self.targets = SSDTargets(self.rule)
        self.loss = SSDLoss()
        self.accuracy = keras.metrics.MeanMetricWrapper(foreground_accuracy, name="accuracy")

    def packed(self, images: Floats, targets: Floats) -> tuple[Floats, Floats]:
        """What `joined` takes, and what the loss takes beside its answer."""
        return images, targets

    def answer(
        self, predict: Callable[[Any], Any], images: Floats, targets: Floats, *, conf: float, max_det: int
    ) -> tuple[list[RawDetections], float]:
        """Boxes of each input, and the loss."""
        raw = np.asarray(predict(images), np.float32)
        loss = float(keras.ops.convert_to_numpy(self.loss(targets, raw)))
        anchors = self.targets.anchors
        found = [decode_ssd(one[:, :-4], one[:, -4:], anchors, self.rule, conf=conf, max_det=max_det) for one in raw]
        return found, loss
