"""The losses of detectors, as their papers have them; on `keras.ops`, for any backend.

Girshick, Fast R-CNN, ICCV 2015, section 2.3; Ren et al., Faster R-CNN, NIPS 2015, section 3.1.2; Liu et al., SSD, ECCV
2016, section 2.2; He et al., Mask R-CNN, ICCV 2017, section 3.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["SSDLoss", "box_loss", "class_loss", "foreground_accuracy", "mask_loss", "objectness_loss", "smooth_l1"]

IGNORED = -1  # a label that is neither an object's nor the background's
NEGATIVES = 3.0  # to one positive


def smooth_l1(x: Any, beta: float = 1.0) -> Any:
    """0.5 x^2 / beta where |x| < beta, else |x| - 0.5 beta (Fast R-CNN, equation 3, with beta 1)."""
    size = ops.abs(x)
    return ops.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta)


def cross_entropy(logits: Any, labels: Any) -> Any:
    """-log softmax of the labels int (...,) in logits (..., L)."""
    logits = ops.cast(logits, "float32")
    picked = ops.sum(logits * ops.one_hot(labels, logits.shape[-1], dtype="float32"), axis=-1)
    return ops.logsumexp(logits, axis=-1) - picked


def class_loss(logits: Any, labels: Any) -> Any:
    """The second stage's: mean cross-entropy over samples (N, L) whose label int (N,) is not -1."""
    counted = ops.cast(ops.not_equal(labels, IGNORED), "float32")
    losses = cross_entropy(logits, ops.maximum(labels, 0))
    return ops.sum(counted * losses) / ops.maximum(ops.sum(counted), 1.0)


def objectness_loss(logits: Any, labels: Any) -> Any:
    """The first stage's: mean binary cross-entropy of logits (N,) with labels 1, 0, and -1 which does not count."""
    counted = ops.cast(ops.not_equal(labels, IGNORED), "float32")
    logits, truth = ops.cast(logits, "float32"), ops.cast(ops.equal(labels, 1), "float32")
    losses = ops.maximum(logits, 0.0) - logits * truth + ops.log1p(ops.exp(-ops.abs(logits)))
    return ops.sum(counted * losses) / ops.maximum(ops.sum(counted), 1.0)


def box_loss(deltas: Any, targets: Any, positive: Any, count: Any, *, beta: float = 1.0) -> Any:
    """Smooth L1 summed over the four numbers of the positives, over `count`: the samples or the anchors of a batch.

    Args:
        deltas: (N, 4), of each sample those of its true class; `targets` likewise.
        positive: bool (N,).
    """
    each = ops.sum(smooth_l1(ops.cast(deltas, "float32") - ops.cast(targets, "float32"), beta), axis=-1)
    return ops.sum(ops.where(positive, each, 0.0)) / ops.maximum(ops.cast(count, "float32"), 1.0)


def mask_loss(logits: Any, targets: Any, labels: Any) -> Any:
    """Mean binary cross-entropy over the pixels of the true class's mask, of positives only; one sigmoid a class.

    Args:
        logits: (N, m, m, L); `targets` (N, m, m), 0 or 1.
        labels: int (N,); 0 is background and -1 nothing, neither has a mask.
    """
    positive = ops.cast(ops.greater(labels, 0), "float32")
    chosen = ops.one_hot(ops.maximum(labels, 0), logits.shape[-1], dtype="float32")
    own = ops.sum(ops.cast(logits, "float32") * chosen[:, None, None, :], axis=-1)  # (N, m, m)
    targets = ops.cast(targets, "float32")
    losses = ops.maximum(own, 0.0) - own * targets + ops.log1p(ops.exp(-ops.abs(own)))
    each = ops.mean(losses, axis=(1, 2))
    return ops.sum(positive * each) / ops.maximum(ops.sum(positive), 1.0)


class SSDLoss(keras.losses.Loss):
    """SSD's: cross-entropy of positives and three times as many hardest negatives, and smooth L1 of positives.

    Both are sums over the batch divided by the number of its positives, as in torchvision.

    Args:
        negatives: of each image for one positive of it.
    """

    def __init__(self, negatives: float = NEGATIVES, name: str = "ssd_loss") -> None:
        super().__init__(name=name, reduction="sum")
        self.negatives = negatives

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of targets (B, A, 5), label and four deltas, and answers (B, A, L + 4), logits and four deltas.

        A label is 0 for background and -1 for what does not count.
        """
        labels = ops.cast(y_true[..., 0], "int32")
        answers = ops.cast(y_pred, "float32")
        positive = ops.greater(labels, 0)
        count = ops.maximum(ops.sum(ops.cast(positive, "float32")), 1.0)
        losses = cross_entropy(answers[..., :-4], ops.maximum(labels, 0))
        hard = hardest_negatives(ops.stop_gradient(losses), labels, self.negatives)
        counted = ops.cast(ops.logical_or(positive, hard), "float32")
        classes = ops.sum(counted * losses) / count
        return classes + box_loss(answers[..., -4:], y_true[..., 1:], positive, count)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"negatives": self.negatives, "name": self.name}


def hardest_negatives(losses: Any, labels: Any, ratio: float) -> Any:
    """Which background boxes (B, A) have the largest losses: of each image at most `ratio` times its positives."""
    wanted = ratio * ops.sum(ops.cast(ops.greater(labels, 0), "float32"), axis=1, keepdims=True)
    of_background = ops.where(ops.equal(labels, 0), losses, -1.0)  # a cross-entropy is never negative
    rank = ops.argsort(ops.argsort(-of_background, axis=1), axis=1)
    return ops.logical_and(ops.cast(rank, "float32") < wanted, ops.equal(labels, 0))


def foreground_accuracy(y_true: Any, y_pred: Any) -> Any:
    """Fraction of the boxes with an object whose largest logit is their class's; shapes as `SSDLoss.call`."""
    labels = ops.cast(y_true[..., 0], "int32")
    positive = ops.cast(ops.greater(labels, 0), "float32")
    right = ops.cast(ops.equal(ops.cast(ops.argmax(y_pred[..., :-4], axis=-1), "int32"), labels), "float32")
    return ops.sum(positive * right) / ops.maximum(ops.sum(positive), 1.0)
