"""CLS-1: the networks' activations, layer by layer, against an independent NumPy forward pass with the same weights."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from tests.nets.numpy_forward import Weights, activations, max_pool, mean_pool, randomize, relu, worst
from visionkit import nets

TOLERANCE = 1e-4
WRONG = 1e-2  # what a wrong variant exceeds


def image(height: int, width: int, channels: int = 3, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(batch, height, width, channels)).astype(np.float32)


def compare(model: keras.Model, x: np.ndarray, want: dict[str, np.ndarray]) -> float:
    return worst(activations(model, x, list(want)), want)


def test_vgg16_trunk() -> None:
    model = randomize(nets.vgg16(classes=None, size_hw=(32, 45)))
    weights, want = Weights(model), {}
    x = picture = image(32, 45, batch=1)
    for stage, first in enumerate(((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)), 1):
        for index in first:
            x = weights.conv(f"features.{index}", x, padding=1)
            want[f"features.{index}"] = x
            x = relu(x)
        want[f"pool{stage}"] = x = max_pool(x, 2, 2)
    assert x.shape == (1, 1, 1, 512)
    assert compare(model, picture, want) < TOLERANCE


def lenet_forward(model: keras.Model, x: np.ndarray, squash: Callable[[np.ndarray], np.ndarray]) -> dict:
    weights, want = Weights(model), {}
    for name, pool in (("c1", "s2"), ("c3", "s4"), ("c5", None)):
        want[name] = x = squash(weights.conv(name, x))
        if pool:
            want[pool] = x = mean_pool(x, 2, 2)
    want["f6"] = x = squash(weights.dense("f6", x.reshape(len(x), -1)))
    want["logits"] = weights.dense("logits", x)
    return want


def test_lenet5_whole() -> None:
    model, x = randomize(nets.lenet5(size_hw=(32, 36))), image(32, 36, 1)
    assert compare(model, x, lenet_forward(model, x, np.tanh)) < TOLERANCE
    assert compare(model, x, lenet_forward(model, x, relu)) > WRONG


def alexnet_forward(weights: Weights, x: np.ndarray, *, size: int = 5, interleaved: bool = False) -> dict:
    want = {}
    for number, stride, padding, groups, norm, pool in (
        (1, 4, 0, 1, True, True),
        (2, 1, 2, 2, True, True),
        (3, 1, 1, 1, False, False),
        (4, 1, 1, 2, False, False),
        (5, 1, 1, 2, False, True),
    ):
        name = f"conv{number}"
        if groups == 2 and interleaved:  # channels 0 2 4 ... and 1 3 5 ... for 0 1 2 ... and the upper half
            x = np.concatenate([x[..., 0::2], x[..., 1::2]], -1)
        x = relu(weights.conv(name, x, stride=stride, padding=padding, groups=groups))
        want[f"{name}.relu"] = x
        if norm:
            reach = size // 2
            squares = np.pad(x**2, ((0, 0), (0, 0), (0, 0), (reach, reach)))
            energy = sum(squares[..., i : i + x.shape[-1]] for i in range(size))
            want[f"{name}.lrn"] = x = x / (2 + 1e-4 * energy) ** 0.75
        if pool:
            want[f"{name}.pool"] = x = max_pool(x, 3, 2)
    return want


def test_alexnet_2012_trunk_with_its_groups() -> None:
    model = randomize(nets.alexnet_2012(classes=None, size_hw=(67, 85)))
    x = 100 * image(67, 85)  # large enough for the local normalisation to matter
    weights = Weights(model)
    assert compare(model, x, alexnet_forward(weights, x)) < TOLERANCE
    assert compare(model, x, alexnet_forward(weights, x, interleaved=True)) > WRONG
    assert compare(model, x, alexnet_forward(weights, x, size=11)) > WRONG  # 5 taken for the radius


CHAINS = ((("branch1", 1),), (("branch2.0", 1), ("branch2.1", 3)), (("branch3.0", 1), ("branch3.1", 3)))
GOOGLENET = ("3a", "3b", "maxpool3", "4a", "4b", "4c", "4d", "4e", "maxpool4", "5a", "5b")


def googlenet_forward(model: keras.Model, x: np.ndarray, *, epsilon: float = 1e-3, ceil: bool = True) -> dict:
    weights, want = Weights(model), {}

    def unit(name: str, x: np.ndarray, kernel: int, stride: int = 1) -> np.ndarray:
        y = weights.conv(f"{name}.conv", x, stride=stride, padding=kernel // 2)
        want[f"{name}.bn.relu"] = relu(weights.norm(f"{name}.bn", y, epsilon))
        return want[f"{name}.bn.relu"]

    x = max_pool(unit("conv1", x, 7, 2), 3, 2, ceil=ceil)
    want["maxpool2"] = x = max_pool(unit("conv3", unit("conv2", x, 1), 3), 3, 2, ceil=ceil)
    for name in GOOGLENET:
        if name.startswith("maxpool"):
            want[name] = x = max_pool(x, 3 if name == "maxpool3" else 2, 2, ceil=ceil)
            continue
        ends = []
        for chain in CHAINS:
            y = x
            for branch, kernel in chain:
                y = unit(f"inception{name}.{branch}", y, kernel)
            ends.append(y)
        ends.append(unit(f"inception{name}.branch4.1", max_pool(x, 3, 1, 1), 1))
        want[f"inception{name}.concat"] = x = np.concatenate(ends, -1)
    want["logits"] = weights.dense("logits", x.mean((1, 2)))
    return want


def test_googlenet_whole() -> None:
    model, x = randomize(nets.googlenet(classes=7, size_hw=(48, 70))), image(48, 70)
    want = googlenet_forward(model, x)
    assert want["maxpool4"].shape == (2, 2, 2, 832)
    assert compare(model, x, want) < TOLERANCE
    assert compare(model, x, googlenet_forward(model, x, epsilon=1e-5)) > WRONG
    with pytest.raises(ValueError, match="by NumPy"):
        compare(model, x, googlenet_forward(model, x, ceil=False))


def inception_forward(model: keras.Model, x: np.ndarray, *, epsilon: float = 1e-3, count_pad: bool = True) -> dict:
    """The stem and one block of each kind that has its own rule: A, B, C with 1x7 and 7x1."""
    weights, want = Weights(model), {}

    def unit(name: str, x: np.ndarray, stride: int = 1, *, valid: bool = False) -> np.ndarray:
        kernel = weights.of(f"{name}.conv")[0].shape[:2]
        padding = (0, 0) if valid else ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2)
        y = weights.conv(f"{name}.conv", x, stride=stride, padding=padding)
        want[f"{name}.bn.relu"] = relu(weights.norm(f"{name}.bn", y, epsilon))
        return want[f"{name}.bn.relu"]

    def chain(block: str, x: np.ndarray, *names: str) -> np.ndarray:
        for name in names:
            x = unit(f"{block}.{name}", x)
        return x

    def mean(x: np.ndarray) -> np.ndarray:
        y = mean_pool(x, 3, 1, 1)
        return y if count_pad else y / mean_pool(np.ones_like(x), 3, 1, 1)

    x = unit("Conv2d_1a_3x3", x, 2, valid=True)
    x = max_pool(unit("Conv2d_2b_3x3", unit("Conv2d_2a_3x3", x, valid=True)), 3, 2)
    x = max_pool(unit("Conv2d_4a_3x3", unit("Conv2d_3b_1x1", x), valid=True), 3, 2)
    for block in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        ends = [
            chain(block, x, "branch1x1"),
            chain(block, x, "branch5x5_1", "branch5x5_2"),
            chain(block, x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
            chain(block, mean(x), "branch_pool"),
        ]
        want[f"{block}.concat"] = x = np.concatenate(ends, -1)
    double = unit("Mixed_6a.branch3x3dbl_3", chain("Mixed_6a", x, "branch3x3dbl_1", "branch3x3dbl_2"), 2, valid=True)
    x = np.concatenate([unit("Mixed_6a.branch3x3", x, 2, valid=True), double, max_pool(x, 3, 2)], -1)
    want["Mixed_6a.concat"] = x
    ends = [
        chain("Mixed_6b", x, "branch1x1"),
        chain("Mixed_6b", x, *[f"branch7x7_{i}" for i in (1, 2, 3)]),
        chain("Mixed_6b", x, *[f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)]),
        chain("Mixed_6b", mean(x), "branch_pool"),
    ]
    want["Mixed_6b.concat"] = np.concatenate(ends, -1)
    return want


def test_inception_v3_blocks() -> None:
    model, x = randomize(nets.inception_v3(classes=None, size_hw=(75, 92))), image(75, 92, batch=1)
    want = inception_forward(model, x)
    assert want["Mixed_6b.concat"].shape == (1, 3, 4, 768)
    assert compare(model, x, want) < TOLERANCE
    assert compare(model, x, inception_forward(model, x, count_pad=False)) > WRONG
    assert compare(model, x, inception_forward(model, x, epsilon=1e-5)) > WRONG


def test_keras_applications_reading_leaves_the_padding_out() -> None:
    model = randomize(nets.inception_v3(classes=None, size_hw=(75, 92), count_include_pad=False))
    x = image(75, 92, batch=1)
    assert compare(model, x, inception_forward(model, x, count_pad=False)) < TOLERANCE
