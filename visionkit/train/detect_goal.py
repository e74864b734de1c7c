"""What chooses the epoch of a detector's training: the mean average precision of held images, seen whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from visionkit.geometry.average_precision import PrecisionRecall, average_precision, class_curves
from visionkit.structures import Detections
from visionkit.tasks.detect_network import RawDetections
from visionkit.tasks.input_rule import InputRule
from visionkit.train.detect_augment import DetectView
from visionkit.train.detection_folders import DetectionSample
from visionkit.train.detection_images import DetectMaterial, Targets

__all__ = ["DetectGoal", "Learner", "whole_view"]

Floats = npt.NDArray[np.float32]
CONFIDENCE, MOST = 0.02, 200  # of answers that are measured


class Learner(Protocol):
    """A detector as a training sees it."""

    network: Any
    joined: Any
    loss: Any
    accuracy: Any

    @property
    def targets(self) -> Targets:
        """What `joined` should answer to a view."""

    def packed(self, images: Floats, targets: Floats) -> tuple[Any, Any]:
        """What `joined` takes, and what the loss takes beside its answer."""

    def answer(
        self, predict: Callable[[Any], Any], images: Floats, targets: Floats, *, conf: float, max_det: int
    ) -> tuple[list[RawDetections], float]:
        """Boxes of each input, and the loss; `predict` runs `joined`."""


class DetectGoal:
    """The goal of a detector's training.

    Args:
        samples: that choose the epoch, each seen whole, as inference sees it.
        classes: how many, without background.
        batch: images in one call of the network.
    """

    def __init__(
        self,
        learner: Learner,
        material: DetectMaterial,
        samples: Sequence[DetectionSample],
        *,
        rule: InputRule,
        classes: int,
        batch: int = 8,
    ) -> None:
        self.loss, self.accuracy = learner.loss, learner.accuracy
        self.samples, self.rule, self.classes = list(samples), rule, classes
        self._learner, self._material, self._batch = learner, material, batch

    def scores(self, predict: Callable[[Any], Any]) -> dict[str, float]:
        """The loss without augmentation, and the mean over classes of AP at an overlap of 0.5 (all points)."""
        answers, losses = self._all(predict)
        found = [average_precision(curve) for curve in self.curves(answers)]
        there = [value for value in found if not np.isnan(value)]
        loss = sum(losses) / max(1, len(self.samples))
        return {
            "val_loss": loss if np.isfinite(loss) else 3.4e38,
            "val_map50": float(np.mean(there)) if there else 0.0,
        }

    def rank(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """Mean AP, then the lower loss."""
        return row["val_map50"], -row["val_loss"]

    def answers(self, predict: Callable[[Any], Any]) -> list[Detections]:
        """What is found in each sample."""
        return self._all(predict)[0]

    def curves(self, answers: Sequence[Detections], *, threshold: float = 0.5) -> list[PrecisionRecall]:
        """Precision over recall of each class."""
        return class_curves(
            [(one.xyxy, one.confidence, one.class_id) for one in answers],
            [(sample.xyxy, sample.class_id, sample.difficult | sample.crowd) for sample in self.samples],
            self.classes,
            threshold=threshold,
        )

    def _all(self, predict: Callable[[Any], Any]) -> tuple[list[Detections], list[float]]:
        """Answers, and the losses of batches times their sizes."""
        answers: list[Detections] = []
        losses = []
        rng = np.random.default_rng(0)
        for start in range(0, len(self.samples), self._batch):
            chosen = self.samples[start : start + self._batch]
            images = self.rule.batch([self._material(sample) for sample in chosen])
            views = [whole_view(self._material.view(sample), self.rule) for sample in chosen]
            targets = np.stack([self._learner.targets(view, rng) for view in views])
            raw, loss = self._learner.answer(predict, images, targets, conf=CONFIDENCE, max_det=MOST)
            answers += [placed(one, self.rule, sample.size_hw) for one, sample in zip(raw, chosen, strict=True)]
            losses.append(loss * len(chosen))
        return answers, losses


def placed(raw: RawDetections, rule: InputRule, size_hw: tuple[int, int]) -> Detections:
    """Boxes of the input as boxes of the image, cut to it; background is no class any more."""
    x1, y1, x2, y2 = rule.window(size_hw)
    scale = np.array([(x2 - x1) / rule.size_hw[1], (y2 - y1) / rule.size_hw[0]] * 2)
    boxes = raw.xyxy * scale + np.array([x1, y1] * 2)
    boxes = np.clip(boxes, 0, np.array([size_hw[1], size_hw[0]] * 2))
    return Detections(boxes, raw.scores, raw.classes - 1)


def whole_view(view: DetectView, rule: InputRule) -> DetectView:
    """An image and its boxes as the rule places them in the network's input."""
    x1, y1, x2, y2 = rule.window((view.image.shape[0], view.image.shape[1]))
    scale = np.array([rule.size_hw[1] / (x2 - x1), rule.size_hw[0] / (y2 - y1)] * 2)
    boxes = (view.xyxy - np.array([x1, y1] * 2)) * scale
    return DetectView(view.image, boxes, view.class_id, view.ignored)
