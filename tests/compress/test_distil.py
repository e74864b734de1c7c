"""`visionkit.compress.distil`: the loss by hand, and a pupil that learns what only its teacher knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from visionkit.compress.distil import distillation_loss, taught
from visionkit.errors import ModelError
from visionkit.train.fit import FitOptions, fit


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_papers(smoothing: float) -> None:
    random = np.random.default_rng(0)
    logits, teacher = random.normal(size=(2, 5, 3)) * 3
    labels = np.eye(3)[[0, 2, 1, 1, 0]]
    found = distillation_loss(
        np.concatenate([labels, teacher], axis=1).astype(np.float32),
        logits.astype(np.float32),
        temperature=4.0,
        share=0.7,
        smoothing=smoothing,
    )
    smooth = labels * (1 - smoothing) + smoothing / 3
    hard = -(smooth * np.log(softmax(logits))).sum(axis=1)
    soft = -(softmax(teacher / 4) * np.log(softmax(logits / 4))).sum(axis=1)
    np.testing.assert_allclose(np.asarray(found), 0.7 * 16 * soft + 0.3 * hard, rtol=1e-5)
    without_square = 0.7 * soft + 0.3 * hard  # the forgotten T^2
    assert np.abs(np.asarray(found) - without_square).min() > 1


class Toy:
    """Batches of small images whose labels are noise; what is true stands in the images' mean."""

    steps_per_epoch = 20

    def __init__(self) -> None:
        self.labels = np.array([0, 1] * 16)
        means = np.where(self.labels == 1, 0.5, -0.5)[:, None, None, None]
        self.images = (means + np.random.default_rng(9).normal(0, 0.3, (32, 4, 6, 3))).astype(np.float32)

    def stream(self, first: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number in range(first, 10**6):
            random = np.random.default_rng(number)
            means = random.choice([-0.5, 0.5], 16)[:, None, None, None]
            images = (means + random.normal(0, 0.3, (16, 4, 6, 3))).astype(np.float32)
            yield images, np.eye(2, dtype=np.float32)[random.integers(0, 2, 16)]

    def logits(self, predict) -> np.ndarray:
        return np.asarray(predict(self.images))


def network() -> keras.Model:
    image = keras.Input((4, 6, 3), name="image")
    flat = keras.layers.Flatten()(image)
    return keras.Model(image, keras.layers.Dense(2, name="logits")(flat))


def teacher_of(classes: int = 2) -> keras.Model:
    model = network()
    kernel = np.zeros((72, 2), np.float32)
    kernel[:, 0], kernel[:, 1] = -0.2, 0.2  # says whether the mean is above 0
    model.layers[-1].set_weights([kernel, np.zeros(2, np.float32)])
    if classes != 2:
        image = keras.Input((4, 6, 3))
        return keras.Model(image, keras.layers.Dense(classes)(keras.layers.Flatten()(image)))
    return model


def test_a_pupil_learns_from_a_teacher_what_the_labels_do_not_say(tmp_path: Path) -> None:
    options = FitOptions(epochs=2, learning_rate=0.01, smoothing=0.0, seed=0)
    data = Toy()
    alone = fit(network(), data, data, out=tmp_path / "alone", options=options)
    batches, goal = taught(data, data, teacher_of(), options, share=0.9)
    with_teacher = fit(network(), batches, goal, out=tmp_path / "taught", options=options)
    assert with_teacher.best is not None
    assert alone.best is not None
    assert with_teacher.best["val_accuracy"] == 1.0
    assert alone.history[-1]["val_accuracy"] < 0.9


def test_a_teacher_of_other_classes_is_refused() -> None:
    data = Toy()
    batches, _ = taught(data, data, teacher_of(3), FitOptions())
    with pytest.raises(ModelError, match=r"\(16, 3\) where the classes are \(16, 2\)"):
        next(batches.stream(0))
    with pytest.raises(ValueError, match="temperature"):
        taught(data, data, teacher_of(), FitOptions(), temperature=0)
