"""CRF-1, CRF-4: the CRF layer against the exact mean field, its gradients, and the mistakes it must not make."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from visionkit.crf import CRFParams, mean_field, mean_field_exact, unary_from_labels
from visionkit.layers.dense_crf import DenseCRF
from visionkit.layers.gaussian_filters import AllPairs
from visionkit.layers.permutohedral import Permutohedral

# theta_alpha, theta_beta, theta_gamma, bilateral_weight, gaussian_weight as they are used out there
SETTINGS: list[dict[str, Any]] = [
    {},
    {"theta_alpha": 50.0, "theta_beta": 5.0, "bilateral_weight": 5.0},
    {"theta_alpha": 67.0, "theta_beta": 5.0, "theta_gamma": 1.0, "bilateral_weight": 4.0},
    {"theta_alpha": 30.0, "theta_gamma": 1.0, "gaussian_weight": 1.0},
    {"theta_alpha": 10.0, "bilateral_weight": 5.0},
]
OTHER: list[dict[str, Any]] = [
    {"normalization": "after"},
    {"normalization": "before"},
    {"normalization": "none", "self_term": False, "bilateral_weight": 0.02, "gaussian_weight": 0.2},
    {"self_term": False},
    {"bilateral_weight": 0.0},
    {"gaussian_weight": 0.0},
    {"theta_alpha": (20.0, 40.0), "theta_beta": (10.0, 20.0, 30.0), "theta_gamma": (2.0, 1.0)},
    {"compat": [[0.0, 1.0, 2.0], [1.0, 0.0, 0.5], [0.3, 1.0, 0.0]]},
]


def scene(height: int = 32, width: int = 32, seed: int = 0, noise: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Costs (H, W, 3) of labels of which a quarter is wrong, and the image (H, W, 3) of three regions."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    labels = (x > width * 0.55 + 4 * np.sin(y / 5)).astype(int)
    labels[(x - width * 0.4) ** 2 + (y - height * 0.5) ** 2 < (height * 0.25) ** 2] = 2
    colours = np.array([[60, 80, 90], [150, 140, 60], [90, 60, 170]])[labels]
    image = np.clip(colours + random.normal(0, noise, colours.shape), 0, 255).astype(np.uint8)
    noisy = np.where(random.random(labels.shape) < 0.25, random.integers(0, 3, labels.shape), labels)
    return unary_from_labels(noisy, 3, 0.7), image


def marginals(unary: np.ndarray, image: np.ndarray, iterations: int = 5, **settings: Any) -> np.ndarray:
    layer = DenseCRF(iterations, output="marginals", **settings)
    return np.asarray(layer([-unary[None], image[None]]))[0]


@pytest.mark.parametrize("settings", SETTINGS + OTHER)
def test_crf1_exact_equals_the_reference(settings: dict[str, Any]) -> None:
    unary, image = scene(17, 23, noise=12)
    for iterations in (1, 10):
        wanted = mean_field_exact(unary, image, CRFParams(iterations=iterations, **settings))
        found = marginals(unary, image, iterations, method="exact", **settings)
        assert np.abs(found - wanted).max() < 1e-4


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("iterations", [1, 5, 10])
def test_crf1_lattice_is_near_the_reference(settings: dict[str, Any], iterations: int) -> None:
    unary, image = scene()
    wanted = mean_field_exact(unary, image, CRFParams(iterations=iterations, **settings))
    found = marginals(unary, image, iterations, method="lattice", **settings)
    assert np.abs(found - wanted).max() < 0.08
    assert (found.argmax(-1) == wanted.argmax(-1)).mean() >= 0.99


@pytest.mark.parametrize("settings", [*SETTINGS[:2], *OTHER, {**OTHER[2], "self_term": True}])
def test_the_lattice_is_that_of_the_fast_engine(settings: dict[str, Any]) -> None:
    """What differs is how far the Gaussian reaches, 5 or 3.5 widths."""
    unary, image = scene(33, 41, noise=12)
    for iterations in (1, 5):
        fast = mean_field(unary, image, CRFParams(iterations=iterations, **settings))
        found = marginals(unary, image, iterations, method="lattice", **settings)
        assert np.abs(found - fast).max() < 5e-3
        assert (found.argmax(-1) == fast.argmax(-1)).mean() > 0.998


@pytest.mark.parametrize("settings", [OTHER[2], OTHER[3]])
def test_lattice_without_the_self_term_is_near_the_reference(settings: dict[str, Any]) -> None:
    unary, image = scene(noise=12)
    wanted = mean_field_exact(unary, image, CRFParams(iterations=1, **settings))
    found = marginals(unary, image, 1, method="lattice", **settings)
    assert np.abs(found - wanted).max() < 0.2  # with a diagonal of 0.5 to 0.8 taken for 1: 0.5
    assert (found.argmax(-1) == wanted.argmax(-1)).mean() >= 0.99


@pytest.mark.parametrize(
    "wrong", [{"self_term": False}, {"normalization": "none"}, {"bilateral_weight": 0.0}, {"normalization": "after"}]
)
def test_crf1_a_wrong_variant_would_be_found(wrong: dict[str, Any]) -> None:
    unary, image = scene(17, 23, noise=12)
    wanted = mean_field_exact(unary, image, CRFParams(iterations=1, bilateral_weight=5.0))
    found = marginals(unary, image, 1, method="exact", **{"bilateral_weight": 5.0, **wrong})
    assert np.abs(found - wanted).max() > 0.03


def test_crf4_no_kernels_give_the_unary_back() -> None:
    unary, image = scene(8, 9)
    logits = np.asarray(DenseCRF(3, bilateral_weight=0, gaussian_weight=0)([-unary[None], image[None]]))[0]
    assert np.allclose(logits, -unary, atol=1e-6)
    assert np.allclose(np.asarray(DenseCRF(0)([-unary[None], image[None]]))[0], -unary)


@pytest.mark.parametrize("method", ["exact", "lattice"])
def test_crf4_permuted_labels_permute_the_marginals(method: str) -> None:
    unary, image = scene(14, 19)
    order = [2, 0, 1]
    compat = np.array(OTHER[-1]["compat"])
    plain = marginals(unary, image, 3, method=method, compat=compat)
    other = marginals(unary[..., order], image, 3, method=method, compat=compat[np.ix_(order, order)])
    assert np.allclose(other, plain[..., order], atol=1e-4)
    assert np.allclose(plain.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("method", ["exact", "lattice"])
def test_samples_of_a_batch_do_not_meet(method: str) -> None:
    pairs = [scene(15, 20, seed, noise=12) for seed in range(3)]
    layer = DenseCRF(3, method=method)
    logits, images = -np.stack([u for u, _ in pairs]), np.stack([i for _, i in pairs])
    together = np.asarray(layer([logits, images]))
    for b in range(3):
        alone = np.asarray(layer([logits[b : b + 1], images[b : b + 1].astype(np.float32)]))
        assert np.allclose(alone[0], together[b], atol=1e-3)
    assert np.abs(np.asarray(layer([logits, images[[1, 2, 0]]])) - together).max() > 0.1


def test_lattice_on_any_number_of_channels_and_labels() -> None:
    random = np.random.default_rng(0)
    image = random.integers(90, 110, (1, 12, 13, 5)).astype(np.uint8)
    logits = random.normal(size=(1, 12, 13, 7)).astype(np.float32)
    found = np.asarray(ops.softmax(DenseCRF(1, method="lattice")([logits, image])))[0]
    wanted = mean_field_exact(-logits[0], image[0], CRFParams(iterations=1))
    assert np.abs(found - wanted).max() < 0.15


def test_lattice_is_linear_and_its_own_diagonal_is_one() -> None:
    random = np.random.default_rng(1)
    features = (random.normal(size=(1, 60, 4)) * 0.7).astype(np.float32)
    eye = np.eye(60, dtype=np.float32)[None]
    kernel = np.asarray(Permutohedral(features)(eye))[0]
    values = random.normal(size=(1, 60, 3)).astype(np.float32)
    assert np.allclose(np.asarray(Permutohedral(features)(values))[0], kernel @ values[0], atol=1e-4)
    unit = np.asarray(Permutohedral(features, unit_diagonal=True)(eye))[0]
    assert 0.3 < np.diag(kernel).mean() < 0.9
    # not exactly: the way from corner to corner is lost where a vertex between them is not occupied
    assert np.abs(np.diag(unit).mean() - 1) < 0.1


def test_slabs_of_all_pairs_equal_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(2).normal(size=(2, 50, 3)).astype(np.float32)
    values = np.random.default_rng(3).normal(size=(2, 50, 4)).astype(np.float32)
    whole = np.asarray(AllPairs(tf.constant(features))(values))
    monkeypatch.setattr("visionkit.layers.gaussian_filters.KEPT_VALUES", 350)  # 7 rows at a time
    assert np.allclose(np.asarray(AllPairs(tf.constant(features))(values)), whole, atol=1e-5)


@pytest.mark.parametrize("method", ["exact", "lattice"])
def test_gradients_equal_finite_differences(method: str) -> None:
    unary, image = scene(6, 7, noise=12)
    layer = DenseCRF(2, method=method, per_label=True, bilateral_weight=0.8, gaussian_weight=0.5)
    logits = tf.constant(-unary[None])
    layer.build([(None, 6, 7, 3), (None, 6, 7, 3)])
    weights = np.random.default_rng(0).normal(size=(1, 6, 7, 3)).astype(np.float32)
    places = [v.value for v in layer.trainable_variables]
    assert [tuple(v.shape) for v in places] == [(3,), (3,), (3, 3)]

    def loss(x: Any) -> Any:
        return tf.reduce_sum(tf.nn.softmax(layer([x, image[None]])) * weights)

    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(logits)
    found = tape.gradient(value, [logits, *places])
    step = 1e-2
    for index in [(0, 0, 0, 1), (0, 3, 4, 0), (0, 5, 6, 2)]:
        bump = np.zeros(logits.shape, np.float32)
        bump[index] = step
        slope = float(loss(logits + bump) - loss(logits - bump)) / (2 * step)
        assert np.isclose(found[0].numpy()[index], slope, atol=2e-3, rtol=0.02)
    for place, gradient in zip(places, found[1:], strict=True):
        before = place.numpy()
        for index in list(np.ndindex(*before.shape))[::2]:
            values = []
            for sign in (1, -1):
                bumped = before.copy()
                bumped[index] += sign * step
                place.assign(bumped)
                values.append(float(loss(logits)))
            place.assign(before)
            assert np.isclose(gradient.numpy()[index], (values[0] - values[1]) / (2 * step), atol=3e-3, rtol=0.02)


def test_kernels_and_compatibility_learn_in_a_model() -> None:
    keras.utils.set_random_seed(0)
    pairs = [scene(20, 24, seed, noise=8) for seed in range(4)]
    logits, images = -np.stack([u for u, _ in pairs]), np.stack([i for _, i in pairs])
    truth = np.stack([marginals(u, i, method="exact").argmax(-1) for u, i in pairs])
    inputs = [keras.Input((20, 24, 3)), keras.Input((20, 24, 3), dtype="uint8")]
    layer = DenseCRF(1, bilateral_weight=0.3, gaussian_weight=0.3, method="lattice")
    model = keras.Model(inputs, layer(inputs))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.1), loss)
    assert not model.jit_compile  # XLA knows no sizes that are found while it runs
    before = [v.numpy() for v in layer.trainable_variables]
    history = model.fit([logits, images], truth, epochs=12, batch_size=2, verbose=0).history["loss"]
    assert history[-1] < 0.3 * history[0]
    for old, new in zip(before, layer.trainable_variables, strict=True):
        assert np.abs(old - new.numpy()).max() > 0.05


def test_open_sizes_in_a_traced_graph() -> None:
    layer = DenseCRF(1)
    layer.build([(None, None, None, 3), (None, None, None, 3)])
    specs = [tf.TensorSpec((None, None, None, 3)), tf.TensorSpec((None, None, None, 3), tf.uint8)]
    traced = tf.function(lambda logits, image: layer([logits, image]), input_signature=specs)
    plain = DenseCRF(1, method="lattice")
    for batch, height, width in ((2, 33, 40), (1, 21, 9)):
        pairs = [scene(height, width, seed) for seed in range(batch)]
        logits, images = -np.stack([u for u, _ in pairs]), np.stack([i for _, i in pairs])
        assert np.allclose(traced(logits, images).numpy(), np.asarray(plain([logits, images])), atol=1e-3)
    assert traced.experimental_get_tracing_count() == 1


def test_shape_and_config_round_trip() -> None:
    layer = DenseCRF(
        3, theta_alpha=(4, 5), theta_beta=[7, 8, 9], compat=np.ones((3, 3)), per_label=True, normalization="after"
    )
    config = json.loads(json.dumps(layer.get_config()))
    again = DenseCRF.from_config(config)
    assert again.get_config() == layer.get_config()
    shapes = [(None, 6, 7, 3), (None, 6, 7, 3)]
    assert again.compute_output_shape(shapes) == (None, 6, 7, 3)
    tensors = [keras.Input(shape[1:]) for shape in shapes]
    assert again(tensors).shape == (None, 6, 7, 3)
    assert np.array_equal(np.asarray(again.compatibility), np.ones((3, 3)))


def test_half_precision_models_keep_the_crf_whole() -> None:
    unary, image = scene(9, 8)
    half = np.asarray(DenseCRF(2)([ops.cast(-unary[None], "float16"), image[None]]))
    assert half.dtype == np.float32
    assert np.allclose(half, np.asarray(DenseCRF(2)([-unary[None], image[None]])), atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"iterations": -1}, "iterations=-1"),
        ({"iterations": True}, "iterations=True"),
        ({"theta_alpha": 0}, "`theta_alpha`.*theta_alpha=0"),
        ({"theta_beta": "wide"}, "`theta_beta`"),
        ({"theta_gamma": []}, "`theta_gamma`"),
        ({"bilateral_weight": -1}, "`bilateral_weight`"),
        ({"gaussian_weight": float("nan")}, "`gaussian_weight`"),
        ({"compat": [[1, 2]]}, "`compat`"),
        ({"normalization": "both"}, "normalization='both'"),
        ({"method": "fft"}, "method='fft'"),
        ({"output": "labels"}, "output='labels'"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DenseCRF(**arguments)


@pytest.mark.parametrize(
    ("arguments", "logits", "image", "says"),
    [
        ({}, (1, 4, 5, 3), (1, 5, 4, 3), "one size"),
        ({}, (2, 4, 5, 3), (1, 4, 5, 3), "one size"),
        ({}, (1, 4, 5), (1, 4, 5, 3), r"\(B, H, W, L\)"),
        ({}, (1, 4, 5, None), (1, 4, 5, 3), "L and C known"),
        ({"compat": np.eye(4)}, (1, 4, 5, 3), (1, 4, 5, 3), "`compat` is 4 x 4"),
        ({"theta_beta": (1, 2)}, (1, 4, 5, 3), (1, 4, 5, 3), "`theta_beta` must be one number or 3"),
        ({"theta_alpha": (1, 2, 3)}, (1, 4, 5, 3), (1, 4, 5, 3), "`theta_alpha` must be one number or 2"),
    ],
)
def test_inputs_that_do_not_fit_are_named(arguments: dict[str, Any], logits: Any, image: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DenseCRF(**arguments).build([logits, image])


def test_a_saved_model_is_found_again_in_a_fresh_process(tmp_path: Path) -> None:
    inputs = [keras.Input((12, 14, 3)), keras.Input((12, 14, 3), dtype="uint8")]
    keras.Model(inputs, DenseCRF(1, theta_alpha=(3, 4))(inputs)).save(tmp_path / "crf.keras")
    code = (
        "import sys; from visionkit.runtime.files import load_keras_file as load; print(load(sys.argv[1]).layers[-1])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "crf.keras")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert "DenseCRF" in run.stdout, run.stderr[-2000:]
