"""Local response normalisation against a loop (CNV-5), in both readings of alpha."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from visionkit.layers.normalization import LocalResponseNormalization
from visionkit.runtime import compile_model

# activations as large as AlexNet's, or alpha = 1e-4 would hardly show
X = np.random.default_rng(0).normal(0, 100, (2, 3, 4, 13)).astype(np.float32)


def by_loop(x: np.ndarray, size: int, weight: float, beta: float = 0.75, k: float = 2.0) -> np.ndarray:
    y = np.zeros(x.shape)
    channels = x.shape[-1]
    for c in range(channels):
        first, last = max(0, c - size // 2), min(channels - 1, c + (size - 1) // 2)
        energy = sum(x[..., j].astype(np.float64) ** 2 for j in range(first, last + 1))
        y[..., c] = x[..., c] / (k + weight * energy) ** beta
    return y


def test_the_papers_formula_equals_the_loop() -> None:
    want = by_loop(X, 5, 1e-4)
    got = LocalResponseNormalization(5, 1e-4, 0.75, 2.0)(X)
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


def test_the_window_taken_for_a_radius_fails() -> None:
    want = by_loop(X, 5, 1e-4)
    import tensorflow as tf

    right = tf.nn.local_response_normalization(X, 2, 2.0, 1e-4, 0.75)
    wrong = tf.nn.local_response_normalization(X, 5, 2.0, 1e-4, 0.75)
    assert np.abs(right - want).max() < 1e-5 * np.abs(want).max()
    assert np.abs(wrong - want).max() > 0.4


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 15])
def test_torchs_reading_divides_alpha_by_the_window(size: int) -> None:
    want = by_loop(X, size, 1e-2 / size)
    got = LocalResponseNormalization(size, 1e-2, divide_by_size=True)(X)
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()
    if size > 1:
        paper = LocalResponseNormalization(size, 1e-2)(X)
        assert np.abs(paper - want).max() > 0.1 * np.abs(want).max()


def test_it_runs_in_litert_and_with_open_sizes(tmp_path: Path) -> None:
    image = keras.Input(X.shape[1:], name="image")
    model = keras.Model(image, LocalResponseNormalization(name="lrn")(image))
    want = keras.ops.convert_to_numpy(model(X[:1]))
    with compile_model(model, runtime="litert", cache_dir=tmp_path) as runner:
        assert np.allclose(runner(image=X[:1])["lrn"], want, rtol=1e-5)
    open_image = keras.Input((None, None, 13))
    open_model = keras.Model(open_image, LocalResponseNormalization()(open_image))
    assert np.allclose(open_model.predict(X[:1], verbose=0), want, rtol=1e-5)


def test_it_survives_its_config() -> None:
    layer = LocalResponseNormalization(3, 1e-3, 0.5, 1.0, divide_by_size=True)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    assert np.array_equal(again(X), layer(X))


@pytest.mark.parametrize(
    ("arguments", "says"), [({"size": 0}, "size=0"), ({"size": 2.5}, "size=2.5"), ({"k": 0.0}, "k=0.0")]
)
def test_it_names_a_bad_argument(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        LocalResponseNormalization(**arguments)


def test_it_refuses_what_is_no_map() -> None:
    with pytest.raises(ValueError, match=r"\(2, 5\)"):
        LocalResponseNormalization()(np.zeros((2, 5), np.float32))
