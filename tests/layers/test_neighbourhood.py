"""NeighbourhoodAverage2D against a loop, on open sizes, saved and loaded, and through LiteRT."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from visionkit.layers.neighbourhood import NeighbourhoodAverage2D
from visionkit.runtime import compile_model

X = np.random.default_rng(0).normal(size=(2, 7, 10, 3)).astype(np.float32)


def looped(x, size_hw):
    result = np.empty_like(x)
    (height, width), (rows, columns) = x.shape[1:3], size_hw
    for i in range(height):
        for j in range(width):
            top = min(max(i - rows // 2, 0), height - rows)
            left = min(max(j - columns // 2, 0), width - columns)
            result[:, i, j] = x[:, top : top + rows, left : left + columns].mean(axis=(1, 2))
    return result


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 4), (4, 3), (7, 10), (7, 1), (2, 9)])
def test_means_of_windows_that_are_moved_inside(size_hw):
    assert np.abs(np.asarray(NeighbourhoodAverage2D(size_hw)(X)) - looped(X, size_hw)).max() < 1e-6


def test_on_a_map_of_its_size_it_is_the_global_mean():
    found = np.asarray(NeighbourhoodAverage2D((7, 10))(X))
    assert np.abs(found - X.mean(axis=(1, 2), keepdims=True)).max() < 1e-6


def test_open_sizes_saved_loaded_and_in_litert(tmp_path):
    image = keras.Input((None, None, 3))
    keras.Model(image, NeighbourhoodAverage2D((3, 4), name="mean")(image)).save(tmp_path / "net.keras")
    model = keras.saving.load_model(tmp_path / "net.keras")
    assert model.output_shape == (None, None, None, 3)
    assert np.abs(model.predict_on_batch(X) - looped(X, (3, 4))).max() < 1e-6
    fixed = keras.Input((7, 10, 3), name="x")
    with compile_model(keras.Model(fixed, model(fixed)), runtime="litert", threads=1, cache_dir=tmp_path) as runner:
        assert np.abs(next(iter(runner(x=X[:1]).values())) - looped(X[:1], (3, 4))).max() < 1e-6


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: NeighbourhoodAverage2D(0), "`size_hw`"),
        (lambda: NeighbourhoodAverage2D((8, 3))(X), r"no smaller than the window. Received: shape=\(2, 7, 10, 3\)"),
        (lambda: NeighbourhoodAverage2D(3)(X[0]), "must be"),
    ],
)
def test_bad_arguments_are_told_by_value(make, words):
    with pytest.raises(ValueError, match=words):
        make()
