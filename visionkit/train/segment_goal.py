"""What a segmentation network learns: a class for each pixel that is not void; the best epoch has the best mean IU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from visionkit.geometry.label_maps import class_iou, confusion_counts, mean_of_there
from visionkit.tasks.input_rule import InputRule
from visionkit.train.mask_folders import VOID, MaskSample
from visionkit.train.mask_images import SegmentMaterial

__all__ = ["PixelLoss", "SegmentGoal", "pixel_accuracy"]

Logits = npt.NDArray[np.float32]


class PixelLoss(keras.losses.Loss):
    """Softmax cross-entropy of each pixel, its mean weighted by the pixel's class; void pixels do not count.

    Args:
        weights: float32 (L,) of the classes.
    """

    def __init__(self, weights: npt.ArrayLike, name: str = "pixel_loss") -> None:
        super().__init__(name=name)
        self.weights = np.asarray(weights, np.float32)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of class numbers (B, H, W), 255 where void, and logits (B, H, W, L)."""
        counted, labels = _counted(y_true)
        y_pred = ops.cast(y_pred, "float32")
        losses = ops.logsumexp(y_pred, axis=-1) - ops.sum(y_pred * ops.one_hot(labels, y_pred.shape[-1]), axis=-1)
        weights = ops.cast(counted, "float32") * ops.take(ops.convert_to_tensor(self.weights), labels)
        return ops.sum(weights * losses) / ops.maximum(ops.sum(weights), 1e-6)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"weights": self.weights.tolist(), "name": self.name}


def pixel_accuracy(y_true: Any, y_pred: Any) -> Any:
    """Fraction of the pixels that are not void whose largest logit (B, H, W, L) is that of their class (B, H, W)."""
    counted, labels = _counted(y_true)
    right = ops.cast(ops.equal(ops.cast(ops.argmax(y_pred, axis=-1), "int32"), labels), "float32")
    mask = ops.cast(counted, "float32")
    return ops.sum(mask * right) / ops.maximum(ops.sum(mask), 1.0)


def _counted(y_true: Any) -> tuple[Any, Any]:
    labels = ops.cast(y_true, "int32")
    counted = ops.not_equal(labels, VOID)
    return counted, ops.where(counted, labels, 0)


class SegmentGoal:
    """The goal of a segmentation training.

    Args:
        network: the one that learns; its weights go to `viewer`, the same network for whole images, to be measured.
        samples: that choose the epoch, each seen whole, as inference sees it.
    """

    def __init__(
        self,
        network: keras.Model,
        viewer: keras.Model,
        material: SegmentMaterial,
        samples: Sequence[MaskSample],
        *,
        rule: InputRule,
        weights: npt.NDArray[np.float32],
    ) -> None:
        self.loss = PixelLoss(weights)
        self.accuracy = keras.metrics.MeanMetricWrapper(pixel_accuracy, name="accuracy")
        self.samples = list(samples)
        self.rule = rule
        self._network, self._viewer, self._material = network, viewer, material
        self._classes = len(weights)

    def scores(self, predict: Callable[[Any], Any]) -> dict[str, float]:
        """Mean cross-entropy over pixels (all classes alike), pixel accuracy and mean IU of all samples together."""
        self._viewer.set_weights(self._network.get_weights())
        counts = np.zeros((self._classes, self._classes), np.int64)
        loss = 0.0
        for sample in self.samples:
            logits, truth = self.logits(sample)
            counts += confusion_counts(truth, logits.argmax(axis=-1), self._classes, ignore=VOID)
            loss += _cross_entropy(logits, truth)
        total = max(1, int(counts.sum()))
        mean = mean_of_there(class_iou(counts))
        return {
            "val_loss": min(loss / total, 3.4e38) if np.isfinite(loss) else 3.4e38,
            "val_accuracy": float(np.trace(counts)) / total,
            "val_mean_iu": 0.0 if np.isnan(mean) else mean,
        }

    def rank(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """Mean IU, then the lower loss."""
        return row["val_mean_iu"], -row["val_loss"]

    def logits(self, sample: MaskSample) -> tuple[Logits, npt.NDArray[np.uint8]]:
        """What the viewer answers of a sample, float32 (h, w, L) at the rule's size, and its mask there, uint8 (h, w).

        Where the rule puts bars beside the image the mask is void.
        """
        image, mask = self._material(sample)
        logits = np.asarray(self._viewer.predict_on_batch(self.rule(image)[None])[0], np.float32)
        return logits, _placed(mask, self.rule)


def _placed(mask: npt.NDArray[np.uint8], rule: InputRule) -> npt.NDArray[np.uint8]:
    """A mask as the rule places its image: the nearest pixel of each, void where there is none."""
    x1, y1, x2, y2 = rule.window((mask.shape[0], mask.shape[1]))
    height, width = rule.size_hw
    # pixel i of the input has its centre at i + 0.5, and lies there in the image
    columns = np.floor(x1 + (np.arange(width) + 0.5) * (x2 - x1) / width).astype(np.int64)
    rows = np.floor(y1 + (np.arange(height) + 0.5) * (y2 - y1) / height).astype(np.int64)
    inside = ((rows >= 0) & (rows < mask.shape[0]))[:, None] & ((columns >= 0) & (columns < mask.shape[1]))
    picked = mask[rows.clip(0, mask.shape[0] - 1)][:, columns.clip(0, mask.shape[1] - 1)]
    return np.where(inside, picked, np.uint8(VOID))


def _cross_entropy(logits: Logits, truth: npt.NDArray[np.uint8]) -> float:
    """The sum over the pixels that are not void."""
    counted = truth != VOID
    rows, labels = logits[counted].astype(np.float64), truth[counted]
    shifted = rows - rows.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]).sum())
