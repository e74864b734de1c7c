"""QNT-1 and QNT-4: rounding to eight bits, and gradients as if there were none."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.compress.fake_quant_cases import (
    HIGH,
    LOW,
    gradients,
    report,
    rounded_activations,
    rounded_weights,
    samples,
)
from visionkit.compress.fake_quant import (
    FakeQuant,
    affine_levels,
    fake_quantize,
    fake_quantize_weights,
    quantize_weights,
)
from visionkit.compress.quant_layers import QuantConv2D, QuantConv2DTranspose, QuantDense, QuantDepthwiseConv2D

EPS = np.finfo(np.float32).eps
AXES = {"conv": (0, 1, 2), "depthwise": (0, 1), "transposed": (0, 1, 3), "dense": (0,)}


def kernel_of(kind: str) -> np.ndarray:
    """A kernel whose output channels are of very unequal size, one of them zero."""
    shape = {"conv": (3, 2, 4, 5), "depthwise": (3, 2, 5, 2), "transposed": (2, 3, 5, 4), "dense": (7, 5)}[kind]
    kernel = np.random.default_rng(3).normal(size=shape)
    channels = [axis for axis in range(kernel.ndim) if axis not in AXES[kind]]
    size = np.logspace(-3, 1, kernel.shape[channels[0]])
    size[2] = 0
    view = [1] * kernel.ndim
    view[channels[0]] = -1
    return (kernel * size.reshape(view)).astype(np.float32)


# QNT-1


@pytest.mark.parametrize("kind", AXES)
def test_weights_are_the_formula_s_and_off_by_half_a_scale_at_most(kind: str) -> None:
    kernel, axes = kernel_of(kind), AXES[kind]
    levels, scales = quantize_weights(kernel, axes)
    found = np.asarray(fake_quantize_weights(kernel, axes))
    assert np.array_equal(found, levels.astype(np.float32) * scales)
    wanted = rounded_weights(kernel, axes)
    assert np.abs(found - wanted).max() <= 2 * EPS * np.abs(kernel).max()
    assert (np.abs(found - kernel) <= scales * (0.5 + 127 * EPS)).all()
    largest = np.abs(levels.astype(int)).max(axis=axes)
    assert levels.dtype == np.int8
    assert levels.min() >= -127
    assert set(largest.ravel()) <= {0, 127}
    assert (largest == 0).any()


def test_one_scale_for_the_whole_kernel_is_known_wrong() -> None:
    kernel = kernel_of("conv")
    scales = quantize_weights(kernel, AXES["conv"])[1]
    wrong = np.asarray(fake_quantize_weights(kernel, (0, 1, 2, 3)))
    assert not (np.abs(wrong - kernel) <= scales * (0.5 + 127 * EPS)).all()
    assert np.abs(wrong[..., 0]).max() == 0 < np.abs(kernel[..., 0]).max()  # the smallest channel is gone


def test_a_kernel_s_largest_weight_is_exact() -> None:
    """So that the converter, which takes each channel's scale from it, finds the same levels."""
    kernel = kernel_of("conv")
    levels, scales = quantize_weights(kernel, AXES["conv"])
    again = quantize_weights(levels.astype(np.float32) * scales, AXES["conv"])
    assert np.array_equal(again[0], levels)
    np.testing.assert_allclose(again[1], scales, rtol=2 * EPS)


# QNT-4


@pytest.mark.parametrize(("low", "high"), [(LOW, HIGH), (0.0, 6.0), (-1.0, 0.0), (0.7, 2.0), (-3.0, -1.0)])
def test_activations_are_quantized_and_dequantized_exactly(low: float, high: float) -> None:
    x = samples()
    scale, zero = (float(value) for value in affine_levels(np.float32(low), np.float32(high)))
    found = np.asarray(fake_quantize(x, np.float32(low), np.float32(high)))
    level = np.clip(np.round(x / np.float32(scale)) + np.float32(zero), -128, 127)
    assert np.array_equal(found, (level - np.float32(zero)) * np.float32(scale))
    assert np.abs(found - rounded_activations(x, low, high)[0]).max() <= 4 * EPS * max(abs(low), abs(high))
    assert fake_quantize(np.zeros(1, np.float32), np.float32(low), np.float32(high))[0] == 0
    assert len(np.unique(found)) <= 256


def test_a_worked_range() -> None:
    """-1 … 3: scale 4 / 255 = 0.0157, zero point round(-128 + 63.75) = -64; 0.5 is level 31.875 -> 32 above zero."""
    scale, zero = affine_levels(np.float32(-1), np.float32(3))
    assert float(scale) == pytest.approx(4 / 255)
    assert float(zero) == -64
    assert float(fake_quantize(np.float32(0.5), -1.0, 3.0)) == pytest.approx(32 * 4 / 255)
    assert float(fake_quantize(np.float32(9.0), -1.0, 3.0)) == pytest.approx(191 * 4 / 255)  # (127 + 64) levels


def test_the_gradient_is_one_inside_and_zero_outside() -> None:
    x = samples()
    inside = rounded_activations(x, LOW, HIGH)[1]
    assert inside.any()
    assert not inside.all()
    (found,) = gradients(lambda t: fake_quantize(t, LOW, HIGH), x)
    assert np.array_equal(found, inside.astype(np.float32))
    (even,) = gradients(lambda t: fake_quantize_weights(t, (0, 1, 2)), kernel_of("conv"))
    assert np.array_equal(even, np.ones_like(even))


def test_rounding_without_letting_gradients_through_is_known_wrong() -> None:
    scale, zero = affine_levels(LOW, HIGH)
    (found,) = gradients(lambda t: (keras.ops.round(t / scale) + zero - zero) * scale, samples())
    assert not found.any()
    (open_,) = gradients(lambda t: t + keras.ops.stop_gradient(fake_quantize(t, LOW, HIGH) - t), samples())
    assert open_.all()  # nor is what passes gradients outside of the range, too


def test_the_limits_get_the_gradient_of_what_they_cut_off() -> None:
    x = samples()
    scale, zero = affine_levels(np.float32(LOW), np.float32(HIGH))
    below = (x < float((-128 - zero) * scale)).sum()
    above = (x > float((127 - zero) * scale)).sum()
    limits = np.float32(LOW), np.float32(HIGH)
    _, low, high = gradients(fake_quantize, x, *map(np.asarray, limits))
    assert (float(low), float(high)) == (below, above)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"NOT TESTED: {backend} is not installed, so its rounding is not compared with NumPy")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.compress.fake_quant_cases"],
        env={**os.environ, "KERAS_BACKEND": backend},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    check(json.loads(done.stdout.splitlines()[-1]))


def test_this_backend() -> None:
    check(report())


def check(found: dict[str, float]) -> None:
    assert found["activations"] < 1e-6
    assert found["weights"] < 1e-6
    assert found["slope"] == 0
    assert found["even"] == 0
    assert found["learnt"] > 0.2


# The layer


def test_a_range_is_the_first_batch_s_then_a_moving_mean() -> None:
    layer = FakeQuant(momentum=0.75)
    first, second = np.array([[-1.0, 3.0]], np.float32), np.array([[-2.0, 7.0]], np.float32)
    assert np.array_equal(np.asarray(layer(first)), first)
    assert layer.range() is None
    layer(first, training=True)
    assert layer.range() == (-1.0, 3.0)
    layer(second)  # inference changes nothing
    layer(second, training=True)
    assert layer.range() == (-1.25, 4.0)  # -1 + (1 - 0.75) (-2 + 1), 3 + 0.25 * 4
    layer.moving.assign(0.0)
    layer(100 * second, training=True)
    assert layer.range() == (-1.25, 4.0)


def test_tensors_of_one_scale_share_the_widest_range() -> None:
    layer = FakeQuant(sites=2)
    layer(np.array([[-1.0, 0.5]], np.float32), training=True)
    layer(np.array([[0.0, 5.0]], np.float32), site=1, training=True)
    assert layer.range() == (-1.0, 5.0)
    layer(np.array([[-9.0, 9.0]], np.float32), site=-1, training=True)  # to be rounded only
    assert layer.range() == (-1.0, 5.0)


def test_a_fixed_range_has_no_variables_and_a_learnt_one_trains() -> None:
    fixed = FakeQuant(fixed=(0.0, 1.0))
    x = np.array([[-1.0, 0.4, 2.0]], np.float32)
    np.testing.assert_allclose(np.asarray(fixed(x, training=True)), [[0.0, 102 / 255, 1.0]], rtol=1e-6)
    assert not fixed.weights
    learnt = FakeQuant(learned=True)
    learnt.calibrating = True
    learnt(x)
    assert [weight.name for weight in learnt.trainable_weights] == ["low", "high"]
    assert learnt.range() == (-1.0, 2.0)


@pytest.mark.parametrize("wrong", [{"sites": 0}, {"fixed": (1.0, 2.0)}, {"fixed": (0.0,)}, {"momentum": 1.0}])
def test_wrong_arguments_of_the_layer(wrong: dict[str, object]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        FakeQuant(**wrong)


@pytest.mark.parametrize(
    ("twin", "options"),
    [
        (QuantConv2D, {"filters": 5, "kernel_size": (3, 2), "strides": 2, "padding": "same"}),
        (QuantConv2D, {"filters": 6, "kernel_size": 3, "groups": 2, "dilation_rate": 2}),
        (QuantDepthwiseConv2D, {"kernel_size": 3, "depth_multiplier": 2}),
        (QuantConv2DTranspose, {"filters": 5, "kernel_size": (2, 3), "strides": 2}),
        (QuantDense, {"units": 7}),
    ],
)
def test_a_twin_is_its_parent_on_rounded_weights(twin: type, options: dict[str, object]) -> None:
    x = np.random.default_rng(4).normal(size=(2, 9, 8, 4)).astype(np.float32)
    layer, parent = twin(**options), twin.__bases__[1](**options)
    layer.build(x.shape)
    parent.build(x.shape)
    layer.bias.assign(np.arange(layer.bias.shape[0]))
    parent.set_weights([layer.rounded(), layer.get_weights()[1]])
    np.testing.assert_allclose(np.asarray(layer(x)), np.asarray(parent(x)), atol=1e-5)
    parent.set_weights(layer.get_weights())
    assert np.abs(np.asarray(layer(x)) - np.asarray(parent(x))).max() > 1e-4
    again = twin.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
