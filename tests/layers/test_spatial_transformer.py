"""The spatial transformer against scipy, OpenCV and differences: rows STN-1 to STN-5 and their wrong variants."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.layers.transformer_cases import (
    BORDERS,
    CONTROL,
    TRANSFORMS,
    generic_theta,
    gradient_errors,
    gradients,
    grid,
    places,
    reference,
)
from visionkit.geometry.homography import index_homography, theta_to_homography
from visionkit.geometry.thin_plate import control_grid, thin_plate_basis
from visionkit.geometry.transformer import identity_theta, theta_size, transform_points
from visionkit.layers import IdentityTheta, SpatialTransformer

RNG = np.random.default_rng(0)
IMAGES = RNG.random((3, 37, 50, 2), dtype=np.float32)
OUT = (23, 31)
every_transform = pytest.mark.parametrize("transform", TRANSFORMS)
every_rule = pytest.mark.parametrize(("align_corners", "border"), [(a, b) for a in (False, True) for b in BORDERS])


def sampled(images: np.ndarray, thetas: np.ndarray, out_hw, transform: str = "affine", **options) -> np.ndarray:
    layer = SpatialTransformer(out_hw, transform, control=CONTROL, **options)
    return np.asarray(layer([images, np.asarray(thetas, np.float32)]))


def turned(degrees: float, zoom: float, x: float = 0.0, y: float = 0.0) -> list[float]:
    c, s = zoom * np.cos(np.deg2rad(degrees)), zoom * np.sin(np.deg2rad(degrees))
    return [c, -s, x, s, c, y]


# STN-1


@every_transform
@every_rule
def test_the_identity_is_the_input_to_the_bit(transform, align_corners, border):
    thetas = np.tile(identity_theta(transform, CONTROL), (3, 1))
    out = sampled(IMAGES, thetas, (37, 50), transform, align_corners=align_corners, border=border)
    assert np.abs(out - IMAGES).max() == 0


def test_scaling_by_one_less_than_the_last_index_is_not_the_identity():
    """The fault of a well-known implementation: x = (x + 1) (max_x - 1) / 2 with max_x = W - 1 already."""
    xy = (grid((37, 50), True) + 1) * (np.array([50, 37]) - 2) / 2
    x0, y0 = np.floor(xy).astype(int).T
    fx, fy = (xy - np.floor(xy)).T[..., None]
    image = IMAGES[0]
    top = image[y0, x0] * (1 - fx) + image[y0, x0 + 1] * fx
    bottom = image[y0 + 1, x0] * (1 - fx) + image[y0 + 1, x0 + 1] * fx
    assert np.abs((top * (1 - fy) + bottom * fy).reshape(image.shape) - image).max() > 0.277


# STN-2


@every_rule
@pytest.mark.parametrize("zoom", [0.5, 2.0])
def test_turned_zoomed_and_shifted_as_scipy_has_it(zoom, align_corners, border):
    thetas = np.array([turned(45, zoom), turned(45, zoom, 0.3, -0.2), turned(-20, zoom, -0.1, 0.4)], np.float32)
    options = {"align_corners": align_corners, "border": border}
    out = sampled(IMAGES, thetas, (37, 50), **options)
    assert np.abs(out - reference(IMAGES, thetas, (37, 50), **options)).max() < 1e-5


@every_transform
@every_rule
def test_every_transform_as_scipy_has_it_at_another_size(transform, align_corners, border):
    thetas = generic_theta(transform, batch=3, spread=0.4 if transform != "projective" else 0.2)
    options = {"align_corners": align_corners, "border": border}
    out = sampled(IMAGES, thetas, OUT, transform, **options)
    wanted = reference(IMAGES, thetas, OUT, transform, **options)
    assert out.shape == (3, *OUT, 2)
    assert np.abs(out - wanted).max() < 1e-5


def test_variants_that_are_wrong_are_far_away():
    theta = np.array([turned(30, 1.2, 0.3, -0.2)], np.float32)
    image, out = IMAGES[:1], sampled(IMAGES[:1], theta, (37, 50))
    matrix = np.vstack([theta.reshape(2, 3), [0, 0, 1]])
    inverse = np.linalg.inv(matrix)[:2].reshape(1, 6)
    swapped = theta[:, [4, 3, 5, 1, 0, 2]]
    for wrong in (inverse, swapped):
        assert np.abs(out - reference(image, wrong, (37, 50))).max() > 0.3
    assert np.abs(out - reference(image, theta, (37, 50), border="clamp")).max() > 0.3
    assert np.abs(out - reference(image, theta, (37, 50), align_corners=True)).max() > 0.01


def test_warp_affine_and_warp_perspective_of_opencv():
    theta = np.array([turned(30, 0.8, 0.2, -0.1)], np.float32)
    tilted = np.array([[*theta[0], 0.1, -0.15]], np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = np.repeat(IMAGES[:1, ..., :1], 3, axis=-1)  # OpenCV 5 is exact for 1, 3 and 4 channels
    for align_corners in (False, True):
        matrices = [
            index_homography(theta_to_homography(t[0], (37, 50), OUT, align_corners=align_corners))
            for t in (theta, tilted)
        ]
        affine = cv2.warpAffine(image[0], matrices[0][:2], OUT[::-1], flags=flags)
        perspective = cv2.warpPerspective(image[0], matrices[1], OUT[::-1], flags=flags)
        for found, thetas, transform in ((affine, theta, "affine"), (perspective, tilted, "projective")):
            out = sampled(image, thetas, OUT, transform, align_corners=align_corners)
            assert np.abs(out[0] - found).max() < 1e-5, (transform, align_corners)


# STN-3


@every_transform
@every_rule
def test_gradients_to_theta_and_to_the_image_are_those_of_differences(transform, align_corners, border):
    errors = gradient_errors(transform, align_corners, border)
    assert errors["theta"] < 1e-3, errors
    assert errors["image"] < 1e-4, errors


def test_the_affine_transform_of_keras_has_no_gradient_to_theta():
    numbers = tf.constant([[1.0, 0.1, 2, 0.1, 1, 1, 0, 0]])
    with tf.GradientTape() as tape:
        tape.watch(numbers)
        out = keras.ops.image.affine_transform(tf.constant(IMAGES[:1]), numbers, interpolation="bilinear")
    assert tape.gradient(out, numbers) is None


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_gradients_on_other_backends(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"NOT TESTED: {backend} is not installed, so its gradients are not compared with differences")
    command = [sys.executable, "-m", "tests.layers.transformer_cases"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, env={**os.environ, "KERAS_BACKEND": backend}, cwd=root, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    for case, errors in json.loads(done.stdout.splitlines()[-1]).items():
        assert errors["theta"] < 1e-3, (case, errors)
        assert errors["image"] < 1e-4, (case, errors)
        assert errors["output"] < 1e-5, (case, errors)


def test_gradients_of_the_smoothed_one_are_the_mean_over_its_points():
    """Four thetas, shifted to the four points of each pixel, make the same sum as one smoothed layer."""
    image, weights = IMAGES[:1], RNG.normal(size=(1, 5, 6, 2)).astype(np.float32)
    theta = np.array([turned(20, 0.7, 0.1, 0.1)], np.float32)
    found = gradients(SpatialTransformer((5, 6), antialias=2), image, theta, weights)
    wanted = [0.0, 0.0]
    for dy in (-0.5 / 5, 0.5 / 5):
        for dx in (-0.5 / 6, 0.5 / 6):
            # theta (x + d) = theta x + A d: the shift moves by A d, and what it gets counts for A as well
            move = np.array([[0, 0, dx * theta[0, 0] + dy * theta[0, 1], 0, 0, dx * theta[0, 3] + dy * theta[0, 4]]])
            to_image, to_theta = gradients(
                SpatialTransformer((5, 6)), image, (theta + move).astype(np.float32), weights / 4
            )
            to_theta = to_theta + np.outer(to_theta[0, [2, 5]], [dx, dy, 0]).reshape(1, 6)
            wanted = [wanted[0] + to_image, wanted[1] + to_theta]
    np.testing.assert_allclose(found[0], wanted[0], atol=1e-4)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-3, atol=1e-2)


# STN-4


def test_each_image_has_its_own_theta():
    thetas = generic_theta("affine", batch=3, spread=0.5)
    together = sampled(IMAGES, thetas, OUT)
    for k in range(3):
        np.testing.assert_allclose(together[k : k + 1], sampled(IMAGES[k : k + 1], thetas[k : k + 1], OUT), atol=1e-6)
    assert np.abs(together - sampled(IMAGES, np.tile(thetas[:1], (3, 1)), OUT)).max() > 0.3


def test_outside_is_zero_or_the_edge_and_far_away_is_no_trouble():
    ones = np.ones((1, 6, 8, 1), np.float32)
    away = np.array([[1, 0, 5, 0, 1, 0]], np.float32)
    assert sampled(ones, away, (6, 8)).max() == 0
    assert sampled(ones, away, (6, 8), border="clamp").min() == 1
    far = np.array([[1e30, 0, -1e30, 0, 1e30, 3e38]], np.float32)
    for border in BORDERS:
        assert np.isfinite(sampled(ones, far, (6, 8), border=border)).all()


def test_a_single_pixel_sees_the_middle():
    image = np.arange(5, dtype=np.float32).reshape(1, 1, 5, 1).repeat(3, axis=1)
    for align_corners in (False, True):
        out = sampled(image, [identity_theta("affine")], (1, 1), align_corners=align_corners)
        assert out.ravel() == pytest.approx([2.0])


def test_smoothing_is_the_mean_of_each_pixels_area():
    thetas = np.tile(identity_theta("affine"), (2, 1))
    images = RNG.random((2, 24, 40, 3), dtype=np.float32)
    area = images.reshape(2, 6, 4, 10, 4, 3).mean(axis=(2, 4))
    for antialias in (True, 4):
        assert np.abs(sampled(images, thetas, (6, 10), antialias=antialias) - area).max() < 1e-6
    stripes = np.zeros((1, 24, 40, 1), np.float32)
    stripes[:, :, ::2] = 1  # finer than a quarter of the pixels can show: grey is right, a pattern is not
    shift = np.array([[0.9, 0, 0.01, 0, 0.9, 0]], np.float32)
    assert np.ptp(sampled(stripes, shift, (6, 10), antialias=8)) < 0.15
    assert np.ptp(sampled(stripes, shift, (6, 10))) > 0.5


# STN-5


def test_control_points_go_to_their_places_exactly():
    theta = generic_theta("tps", 1, spread=0.3)[0]
    found = transform_points(theta, control_grid(CONTROL), "tps", CONTROL)
    np.testing.assert_allclose(found, theta.reshape(-1, 2), atol=1e-12)
    # the same through the layer: with corners aligned, an output of 3 x 4 pixels is the control points themselves
    y, x = np.mgrid[:37, :50].astype(np.float32)
    ramp = np.dstack([x, y])[None]
    out = sampled(ramp, theta[None] * 0.7, CONTROL, "tps", align_corners=True)
    wanted = (theta.reshape(-1, 2) * 0.7 + 1) * [49 / 2, 36 / 2]
    np.testing.assert_allclose(out.reshape(-1, 2), wanted, atol=1e-4)


def test_a_spline_of_affine_places_is_affine():
    affine = np.array(turned(30, 0.6, 0.1, -0.2), np.float32)
    moved = transform_points(affine, control_grid(CONTROL), "affine").astype(np.float32).ravel()
    out = sampled(IMAGES[:1], [moved], OUT, "tps")
    assert np.abs(out - sampled(IMAGES[:1], [affine], OUT)).max() < 1e-4


def test_the_spline_bends_as_the_paper_says():
    """One point above a square lifted by 1: the fifth of five points, solved by hand with r^2 log r^2."""
    knots = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1], [0, 0]], np.float64)
    lifted = thin_plate_basis([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], knots) @ [0, 0, 0, 0, 1]
    # by symmetry f = a + w U(0) + v (U of the corners), v = -w / 4; a from f(corner) = 0
    u = lambda s: s * np.log(s) if s else 0.0  # noqa: E731
    at = lambda x, y: u(x * x + y * y) - sum(u((x - a) ** 2 + (y - b) ** 2) for a in (-1, 1) for b in (-1, 1)) / 4  # noqa: E731
    w = 1 / (at(0, 0) - at(1, 1))
    np.testing.assert_allclose(lifted, [1, w * (at(1, 0) - at(1, 1)), w * (at(0, 1) - at(1, 1))], atol=1e-12)


# exports, types, arguments


@pytest.fixture(scope="module")
def model() -> keras.Model:
    image = keras.Input((19, 26, 2), name="image")
    thetas = {t: keras.Input((theta_size(t, CONTROL),), name=t) for t in TRANSFORMS}
    outputs = {
        f"{t}_{border}_{int(antialias)}": SpatialTransformer(
            (9, 12), t, border=border, antialias=antialias, align_corners=antialias, control=CONTROL
        )([image, theta])
        for t, theta in thetas.items()
        for border, antialias in (("zero", False), ("clamp", True))
    }
    return keras.Model({"image": image, **thetas}, outputs)


def given(batch: int) -> dict[str, np.ndarray]:
    images = np.random.default_rng(batch).random((batch, 19, 26, 2), dtype=np.float32)
    return {"image": images, **{t: generic_theta(t, batch) for t in TRANSFORMS}}


def close(found, expected) -> None:
    assert len(expected) == 2 * len(TRANSFORMS)
    for key, value in expected.items():
        np.testing.assert_allclose(np.asarray(found[key]), np.asarray(value), atol=1e-5, err_msg=key)


def test_a_keras_file_and_a_saved_model_give_the_same(model, tmp_path):
    model.save(tmp_path / "m.keras")
    close(keras.saving.load_model(tmp_path / "m.keras")(given(2)), model(given(2)))
    model.export(tmp_path / "m", verbose=False)
    serve = tf.saved_model.load(str(tmp_path / "m")).signatures["serving_default"]
    for batch in (1, 3):
        close(serve(**{key: tf.constant(value) for key, value in given(batch).items()}), model(given(batch)))


def test_litert_with_its_own_operations_alone(model, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    model.export(tmp_path / "m", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "m"))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    runner = Interpreter(model_content=converter.convert()).get_signature_runner()
    close(runner(**given(1)), model(given(1)))


def test_xla_and_open_sizes_give_the_same():
    theta = generic_theta("projective", 2)
    image = keras.Input((None, None, 2)), keras.Input((8,))
    layer = SpatialTransformer(OUT, "projective", antialias=2)
    network = keras.Model(image, layer(image))
    assert network.output_shape == (None, *OUT, 2)
    compiled = tf.function(lambda x, t: layer([x, t]), jit_compile=True)
    wanted = np.asarray(layer([IMAGES[:2], theta]))
    for found in (network([IMAGES[:2], theta]), network.predict_on_batch([IMAGES[:2], theta])):
        np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-5)
    np.testing.assert_allclose(compiled(IMAGES[:2], theta), wanted, atol=1e-5)


def test_half_precision_keeps_its_places_exact():
    image = np.arange(4000, dtype=np.float32).reshape(1, 1, 4000, 1).repeat(2, axis=1) / 4000
    layer = SpatialTransformer((2, 4000), dtype="mixed_float16")
    out = layer([image.astype(np.float16), identity_theta("affine")[None]])
    assert out.dtype == "float16"
    assert np.abs(np.asarray(out, np.float32) - image).max() < 1e-3


def test_pictures_of_bytes_are_taken():
    image = (IMAGES[:1] * 255).astype(np.uint8)
    assert np.abs(sampled(image, [identity_theta("affine")], (37, 50)) - image).max() == 0


def test_the_bias_that_begins_at_the_identity():
    bias = IdentityTheta("tps", (2, 3))
    np.testing.assert_array_equal(np.asarray(bias((12,))), identity_theta("tps", (2, 3)))
    np.testing.assert_array_equal(np.asarray(IdentityTheta("attention")((6,))), [1, 0, 0, 1, 0, 0])
    again = keras.initializers.deserialize(keras.initializers.serialize(bias))
    np.testing.assert_array_equal(np.asarray(again((12,))), np.asarray(bias((12,))))
    with pytest.raises(ValueError, match="multiple of"):
        bias((13,))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"output_hw": 0}, "`output_hw` must be"),
        ({"output_hw": 4, "transform": "shear"}, "transform='shear'"),
        ({"output_hw": 4, "border": "wrap"}, "border='wrap'"),
        ({"output_hw": 4, "antialias": 65}, "antialias=65"),
        ({"output_hw": 4, "transform": "tps", "control": (1, 4)}, "control=\\(1, 4\\)"),
    ],
)
def test_bad_arguments_are_told_by_value(arguments, words):
    with pytest.raises(ValueError, match=words):
        SpatialTransformer(**arguments)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([(2, 5, 5, 1), (2, 8)], r"theta of affine must be \(B, 6\)"),
        ([(2, 5, 5), (2, 6)], "must be .image"),
        ([(None, None, None, 1), (None, 6)], "integer for an open"),
    ],
)
def test_bad_shapes_are_told(shapes, words):
    with pytest.raises(ValueError, match=words):
        SpatialTransformer(3, antialias=True)([keras.KerasTensor(shape) for shape in shapes])


def test_places_of_the_reference_are_those_of_the_formula():
    # pixel = ((x + 1) W - 1) / 2: the first of 4 pixels over 8 lies between the first two
    found = places(identity_theta("affine"), (6, 8), (3, 4), "affine", False)
    np.testing.assert_allclose(found[0], [0.5, 0.5])
    np.testing.assert_allclose(places(identity_theta("affine"), (6, 8), (3, 4), "affine", True)[-1], [7, 5])
