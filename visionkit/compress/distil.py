"""Knowledge distillation: a network learns a teacher's answers beside the labels.

Hinton, Vinyals, Dean, Distilling the knowledge in a neural network, 2015, section 2: of softened answers
softmax(z / T), the cross-entropy with the teacher's, times T^2 so that its gradients keep their size when T changes
(section 2.1), weighed against the cross-entropy with the labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from visionkit.errors import ModelError
from visionkit.train.fit import Batches, ClassGoal, FitOptions, Goal, Held, Predict

__all__ = ["distillation_loss", "taught"]

Floats = npt.NDArray[np.float32]

TEMPERATURE = 4.0
SHARE = 0.7  # of the teacher in the loss


def taught(
    batches: Batches,
    held: Held,
    teacher: keras.Model,
    options: FitOptions,
    *,
    temperature: float = TEMPERATURE,
    share: float = SHARE,
) -> tuple[Batches, Goal]:
    """Batches and goal of a training in which `teacher` says what to answer, for `visionkit.train.fit.fit`.

    The teacher sees the same changed views as the pupil. The epoch is chosen by labels alone, as without a teacher.

    Args:
        batches: images float32 (B, H, W, 3) and classes one-hot float32 (B, L).
        held: samples that choose the epoch.
        teacher: from such images to logits (B, L).
        options: of the training, for its label smoothing.
        temperature: T, above 0.
        share: of the teacher in the loss, from 0 to 1.

    Raises:
        ModelError: `model-unfit`; the teacher knows another number of classes.
    """
    if not temperature > 0 or not 0 <= share <= 1:
        raise ValueError(
            "`temperature` must be above 0 and `share` from 0 to 1. "
            f"Received: temperature={temperature}, share={share}."
        )
    return _Taught(batches, teacher), _TaughtGoal(held, options.smoothing, temperature, share)


def distillation_loss(targets: Any, logits: Any, *, temperature: float, share: float, smoothing: float = 0.0) -> Any:
    """The loss (B,) of logits (B, L).

    `share` T^2 H(softmax(v / T), softmax(z / T)) + (1 - `share`) H(y, softmax(z)), with H the cross-entropy.

    Args:
        targets: float32 (B, 2 L): y, one-hot, and v, the teacher's logits.
        smoothing: of y.
    """
    labels, teacher = ops.split(ops.convert_to_tensor(targets), 2, axis=-1)
    soft = ops.softmax(teacher / temperature)
    softened = ops.log_softmax(logits / temperature)
    taught_loss = -(temperature**2) * ops.sum(soft * softened, axis=-1)
    hard = keras.losses.categorical_crossentropy(labels, logits, from_logits=True, label_smoothing=smoothing)
    return share * taught_loss + (1 - share) * hard


class _Taught:
    """Batches whose classes are followed by the teacher's logits."""

    def __init__(self, batches: Batches, teacher: keras.Model) -> None:
        self._batches, self._teacher = batches, teacher
        self.steps_per_epoch = batches.steps_per_epoch

    def stream(self, first: int) -> Iterator[tuple[Floats, Floats]]:
        inner = self._batches.stream(first)
        try:
            for images, labels in inner:
                logits = np.asarray(self._teacher.predict_on_batch(images), np.float32)
                if logits.shape != labels.shape:
                    raise ModelError(
                        "model-unfit", f"The teacher answers {logits.shape} where the classes are {labels.shape}."
                    )
                yield images, np.concatenate([labels, logits], axis=-1)
        finally:
            if hasattr(inner, "close"):
                inner.close()


class _TaughtGoal:
    """One class an image, learnt from labels and a teacher."""

    def __init__(self, held: Held, smoothing: float, temperature: float, share: float) -> None:
        self._inner = ClassGoal(held, smoothing)
        self._how = {"temperature": temperature, "share": share, "smoothing": smoothing}

    def loss(self, targets: Any, logits: Any) -> Any:
        return distillation_loss(targets, logits, **self._how)

    def accuracy(self, targets: Any, logits: Any) -> Any:
        labels, _ = ops.split(ops.convert_to_tensor(targets), 2, axis=-1)
        return keras.metrics.categorical_accuracy(labels, logits)

    def scores(self, predict: Predict) -> dict[str, float]:
        return self._inner.scores(predict)

    def rank(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        return self._inner.rank(row)
