"""Row STN-6: fully connected layers on crooked digits, with and without a transformer before them. scikit-learn's data.

The digits are 8 x 8 pixels, enlarged to 28 and put on a canvas of 42: turned by up to 45 degrees, scaled by 0.7 to 1.2,
shifted anywhere (RTS). Six of each of 1,300 digits are learnt from, two of each of the other 497 measured on.
"""

from __future__ import annotations

import cv2
import keras
import numpy as np
import pytest

from visionkit.nets import st_fcn

LEARNT, COPIES, EPOCHS, SIDE, DIGIT = 1300, 6, 15, 42, 28


def crooked(digits: np.ndarray, copies: int, seed: int) -> np.ndarray:
    """Each digit (8, 8) distorted `copies` times: (N * copies, 42, 42, 1), 0 to 1."""
    rng = np.random.default_rng(seed)
    out = np.zeros((len(digits) * copies, SIDE, SIDE, 1), np.float32)
    for k, digit in enumerate(np.repeat(digits, copies, axis=0)):
        large = cv2.resize(digit.astype(np.float32) / 16, (DIGIT, DIGIT), interpolation=cv2.INTER_LINEAR)
        angle, scale = np.deg2rad(rng.uniform(-45, 45)), rng.uniform(0.7, 1.2)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        room = max(0.0, (SIDE - DIGIT * scale) / 2)
        place = (SIDE - 1) / 2 + rng.uniform(-room, room, 2)
        matrix = np.column_stack([turn, place - turn @ np.full(2, (DIGIT - 1) / 2)])
        out[k, ..., 0] = cv2.warpAffine(large, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
    return out


def error(transform: str) -> float:
    """Share of wrong answers on the digits that were held back."""
    datasets = pytest.importorskip("sklearn.datasets", reason="NOT TESTED: STN-6 needs scikit-learn's digits")
    digits = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    learnt, held = order[:LEARNT], order[LEARNT:]
    x, y = crooked(digits.images[learnt], COPIES, 1), np.repeat(digits.target[learnt], COPIES)
    x_held, y_held = crooked(digits.images[held], 2, 2), np.repeat(digits.target[held], 2)
    keras.utils.set_random_seed(0)
    network = st_fcn(transform=transform, units=(128, 128))
    steps = EPOCHS * (len(x) // 64)
    network.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, steps, alpha=0.02)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    network.fit(x, y, batch_size=64, epochs=EPOCHS, verbose=0)
    return float((network.predict(x_held, batch_size=256, verbose=0).argmax(axis=1) != y_held).mean())


@pytest.mark.slow  # two trainings, about three minutes
@pytest.mark.timeout(1800)
def test_a_transformer_before_fully_connected_layers_leaves_a_third_of_the_errors():
    without, straightened = error("none"), error("affine")
    assert straightened <= 0.06, (without, straightened)
    assert straightened <= without / 3, (without, straightened)
