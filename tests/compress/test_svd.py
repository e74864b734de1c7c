"""DET-11: a fully connected layer as two, by truncated SVD."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from visionkit.compress import dense_savings, truncate_dense

RANDOM = np.random.RandomState(5)


def network() -> keras.Model:
    """Two fully connected layers, of which the second is called twice, wide and tall."""
    keras.utils.set_random_seed(3)
    image = keras.Input((3, 5, 4), name="image")
    x = keras.layers.Flatten()(image)
    x = keras.layers.Dense(24, activation="relu", name="fc6")(x)
    twice = keras.layers.Dense(24, bias_initializer="normal", name="fc7")
    x = twice(keras.layers.BatchNormalization()(twice(x)))
    return keras.Model(image, {"logits": keras.layers.Dense(40, name="logits")(x)}, name="net")


def answers(model: keras.Model) -> np.ndarray:
    image = np.random.RandomState(1).standard_normal((7, 3, 5, 4)).astype(np.float32)
    return np.asarray(model(image, training=False)["logits"])


def test_full_rank_is_exact_for_tall_square_and_wide_kernels() -> None:
    model = network()
    small = truncate_dense(model, {"fc6": 24, "fc7": 24, "logits": 24})
    assert np.abs(answers(small) - answers(model)).max() < 1e-5 * np.abs(answers(model)).max()
    assert [layer.name for layer in small.layers if "svd" in layer.name] == ["fc6.svd", "fc7.svd", "logits.svd"]


def test_the_model_given_stays_as_it_is() -> None:
    model = network()
    before = answers(model)
    assert np.abs(answers(truncate_dense(model, {"fc6": 2})) - before).max() > 1e-2
    assert np.array_equal(answers(model), before)


@pytest.mark.parametrize("shape", [(60, 24), (24, 60)])
def test_the_error_is_the_singular_values_left_out(shape: tuple[int, int]) -> None:
    kernel = RANDOM.standard_normal(shape).astype(np.float32)
    model = keras.Sequential([keras.Input(shape[:1]), keras.layers.Dense(shape[1], name="fc")])
    model.layers[0].set_weights([kernel, np.ones(shape[1], np.float32)])
    small = truncate_dense(model, {"fc": 7})
    product = np.asarray(small.get_layer("fc.svd").kernel) @ np.asarray(small.get_layer("fc").kernel)
    tail = np.linalg.svd(kernel.astype(np.float64), compute_uv=False)[7:]
    assert np.linalg.norm(kernel - product) == pytest.approx(np.sqrt((tail**2).sum()), rel=1e-5)
    assert np.linalg.norm(kernel - product, 2) == pytest.approx(tail[0], rel=1e-5)
    lost = dense_savings(model, {"fc": 7})["fc"].error
    assert lost == pytest.approx(np.linalg.norm(kernel - product) / np.linalg.norm(kernel), rel=1e-5)
    # known wrong: the first columns in the place of the first singular vectors
    assert np.linalg.norm(kernel[:, 7:]) > 1.2 * np.linalg.norm(kernel - product)


def test_counts_of_the_paper() -> None:
    """Fast R-CNN 3.1, without a kernel of 400 MB: t (u + v)."""
    for u, v, rank, before, after in (
        (25088, 4096, 1024, 102_760_448, 29_884_416),
        (4096, 4096, 256, 16_777_216, 2_097_152),
    ):
        model = keras.Sequential([keras.Input((u // 64,)), keras.layers.Dense(v // 64, name="fc")])
        found = dense_savings(model, {"fc": rank // 64})["fc"]
        assert (found.before * 64 * 64, found.after * 64 * 64) == (before, after)
        small = truncate_dense(model, {"fc": rank // 64})
        assert small.count_params() == found.after + v // 64


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ({"fc6": 0}, "fc6 must be an integer from 1 to 24"),
        ({"fc6": 25}, "from 1 to 24. Received: 25"),
        ({"fc9": 3}, "must name Dense layers of the model: fc6, fc7, logits. Received: 'fc9'"),
        ({"batch_normalization": 3}, "must name Dense layers"),
    ],
)
def test_what_cannot_be_cut_is_refused(ranks: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        truncate_dense(network(), ranks)
