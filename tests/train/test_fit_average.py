"""A running mean of the weights: measured and kept in their place, while the weights themselves learn on."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from visionkit.train.fit import FitOptions, FitResult, fit

SHARE = 0.9


class Line:
    """Batches of y = 3 x, one number each."""

    steps_per_epoch = 5

    def stream(self, first):
        step = first
        while True:
            x = np.random.default_rng(step).normal(size=(4, 1)).astype(np.float32)
            yield x, 3 * x
            step += 1


class Seen:
    """A goal that writes down the weight it is asked to measure."""

    loss = "mse"

    def __init__(self, network):
        self.network, self.weights = network, []
        self.accuracy = keras.metrics.MeanAbsoluteError(name="accuracy")

    def scores(self, predict):
        self.weights.append(float(np.asarray(predict(np.ones((1, 1), np.float32)))[0, 0]))
        return {"val_loss": abs(3 - self.weights[-1])}

    def rank(self, row):
        return (-row["val_loss"],)


def trained(out: Path, average: float, stop: int = 0) -> tuple[Seen, FitResult, float, list[float]]:
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    inputs = keras.Input((1,))
    network = keras.Model(inputs, layer(inputs))
    goal, steps = Seen(network), []

    def should_stop() -> bool:
        steps.append(float(np.asarray(layer.kernel)[0, 0]))
        return len(steps) == stop

    options = FitOptions(epochs=3, learning_rate=0.1, weight_decay=0.0, warmup=0, average=average)
    result = fit(network, Line(), goal, out=out, options=options, should_stop=should_stop)
    return goal, result, float(np.asarray(layer.kernel)[0, 0]), steps


def test_the_mean_is_measured_and_the_weights_learn_on(tmp_path: Path) -> None:
    plain = trained(tmp_path / "plain", 0.0)
    goal, _, kept, steps = trained(tmp_path / "mean", SHARE)
    assert steps == plain[3]  # learning is not changed by what is measured
    mean, means = steps[0], []  # the first step begins the mean
    for weight in steps:
        mean = SHARE * mean + (1 - SHARE) * weight
        means.append(mean)
    assert goal.weights == pytest.approx(means[4::5], abs=1e-5)
    assert plain[0].weights == pytest.approx(steps[4::5], abs=1e-6)
    assert abs(goal.weights[0] - steps[4]) > 0.05  # it lags behind
    assert kept == pytest.approx(max(means[4::5]), abs=1e-5)  # the best epoch's mean is what is left


def test_an_interrupted_training_goes_on_with_its_mean(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", SHARE)
    first = trained(tmp_path / "parts", SHARE, stop=7)
    assert first[1].ended == "interrupted"
    second = trained(tmp_path / "parts", SHARE)
    assert first[0].weights + second[0].weights == pytest.approx(whole[0].weights, abs=1e-6)
