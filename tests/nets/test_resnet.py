"""ResNet: published parameters, sizes, layouts, and its blocks against NumPy (CLS-1) and TensorFlow alone (CLS-3)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.nets.numpy_forward import Weights, activations, max_pool, randomize, relu, worst
from tests.nets.synthetic import calibrate
from tests.nets.test_classic import LOADER
from visionkit import nets

TOLERANCE = 1e-4
WRONG = 1e-2  # what a wrong variant exceeds


def image(height: int, width: int, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(batch, height, width, 3)).astype(np.float32)


def tiny(block: str = "bottleneck", **options: Any) -> keras.Model:
    """Two stages, two blocks in the second, so that there are all three kinds of shortcut."""
    given = {"depths": (1, 2), "width": 4, "classes": 5, "size_hw": (37, 50)} | options
    return nets.resnet(block=block, **given)


@pytest.mark.parametrize(
    ("name", "torchvision", "keras_layout"),
    [
        ("resnet18", 11_689_512, None),
        ("resnet34", 21_797_672, None),
        ("resnet50", 25_557_032, 25_636_712),
        ("resnet101", 44_549_160, 44_707_176),
        ("resnet152", 60_192_808, 60_419_944),
    ],
)
def test_parameters_are_the_published_ones(name: str, torchvision: int, keras_layout: int | None) -> None:
    # moving statistics are parameters in Keras's count and none in torch's
    assert sum(int(np.prod(w.shape)) for w in getattr(nets, name)().trainable_weights) == torchvision
    if keras_layout:
        assert getattr(nets, name)(layout="keras").count_params() == keras_layout


def test_maps_have_the_papers_sizes() -> None:
    model = nets.resnet50()
    sizes = [model.get_layer(f"layer{stage}.0.relu").output.shape[1:] for stage in (1, 2, 3, 4)]
    assert sizes == [(56, 56, 256), (28, 28, 512), (14, 14, 1024), (7, 7, 2048)]
    assert nets.resnet18(classes=None, size_hw=(161, 193)).output_shape == (None, 6, 7, 512)


def residual_forward(
    model: keras.Model, x: np.ndarray, *, block: str = "bottleneck", first: bool = False, epsilon: float = 1e-5
) -> dict[str, np.ndarray]:
    """`tiny` in NumPy; `first`: the stride is in the first 1x1."""
    weights, want = Weights(model), {}

    def unit(x: np.ndarray, conv: str, norm: str, **options: Any) -> np.ndarray:
        want[norm] = weights.norm(norm, weights.conv(conv, x, **options), epsilon)
        return want[norm]

    x = max_pool(relu(unit(x, "conv1", "bn1", stride=2, padding=3)), 3, 2, 1)
    for name, stride in (("layer1.0", 1), ("layer2.0", 2), ("layer2.1", 1)):
        if block == "basic":
            strides = {1: {"stride": stride, "padding": 1}, 2: {"padding": 1}}
        else:
            strides = {
                1: {"stride": stride if first else 1},
                2: {"stride": 1 if first else stride, "padding": 1},
                3: {},
            }
        y = x
        for number, options in strides.items():
            y = unit(y, f"{name}.conv{number}", f"{name}.bn{number}", **options)
            y = relu(y) if number < len(strides) else y
        if stride > 1 or x.shape[-1] != y.shape[-1]:
            x = unit(x, f"{name}.downsample.0", f"{name}.downsample.1", stride=stride)
        want[f"{name}.relu"] = x = relu(x + y)
    want["logits"] = weights.dense("logits", x.mean((1, 2)))
    return want


def compare(model: keras.Model, x: np.ndarray, want: dict[str, np.ndarray]) -> float:
    return worst(activations(model, x, list(want)), want)


@pytest.mark.parametrize(
    ("options", "forward"),
    [
        ({"block": "basic"}, {"block": "basic"}),
        ({"layout": "v1.5"}, {}),
        ({"layout": "paper"}, {"first": True}),
        ({"layout": "keras"}, {"first": True, "epsilon": 1.001e-5}),
    ],
    ids=["basic", "v1.5", "paper", "keras"],
)
def test_cls1_blocks_are_numpys(options: dict[str, Any], forward: dict[str, Any]) -> None:
    model, x = randomize(tiny(**options)), image(37, 50)
    assert compare(model, x, residual_forward(model, x, **forward)) < TOLERANCE


def test_cls1_wrong_variants_would_be_found() -> None:
    model, x = randomize(tiny()), image(37, 50)
    for wrong in ({"first": True}, {"epsilon": 1e-3}):
        assert compare(model, x, {"logits": residual_forward(model, x, **wrong)["logits"]}) > WRONG


def test_the_stem_for_small_pictures_keeps_their_size() -> None:
    model = tiny("basic", stem="small", size_hw=(32, 36))
    assert model.get_layer("conv1").output.shape[1:] == (32, 36, 4)
    assert model.get_layer("layer2.1.relu").output.shape[1:] == (16, 18, 8)


def test_heads_and_open_sizes() -> None:
    model = randomize(tiny(classes={"colour": 4, "make": 2}, size_hw=None))
    answers = model(image(37, 50), training=False)
    assert {name: tuple(answer.shape) for name, answer in answers.items()} == {"colour": (2, 4), "make": (2, 2)}
    fixed = randomize(tiny())
    open_sized = tiny(size_hw=None)
    open_sized.set_weights(fixed.get_weights())
    assert np.allclose(open_sized(image(37, 50), training=False), fixed(image(37, 50), training=False), atol=1e-5)


def test_weights_survive_a_file(tmp_path: Path) -> None:
    model, again = randomize(tiny()), tiny()
    model.save_weights(tmp_path / "a.weights.h5")
    again.load_weights(tmp_path / "a.weights.h5")
    assert np.array_equal(again(image(37, 50), training=False), model(image(37, 50), training=False))


EXPORTS: dict[str, Callable[[], keras.Model]] = {
    "resnet": tiny,
    "resnet_basic": lambda: tiny("basic", stem="small"),
    "mobilenet_v2": lambda: nets.mobilenet_v2(classes=5, size_hw=(65, 43), width_multiplier=0.25),
    "mobilenet_v3_large": lambda: nets.mobilenet_v3_large(classes=5, size_hw=(65, 43), width_multiplier=0.25),
    "mobilenet_v3_small": lambda: nets.mobilenet_v3_small(classes=5, size_hw=(65, 43), width_multiplier=0.25),
}


@pytest.mark.parametrize(
    "names",
    [
        ("resnet", "resnet_basic"),
        pytest.param(("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"), marks=pytest.mark.slow),  # exports
    ],
)
def test_cls3_saved_models_run_in_tensorflow_alone(names: tuple[str, ...], tmp_path: Path) -> None:
    wanted = {}
    for name in names:
        model = EXPORTS[name]()
        x = image(*model.input_shape[1:3])
        calibrate(randomize(model), x)
        model.export(str(tmp_path / name), format="tf_saved_model", verbose=False)
        np.save(tmp_path / name / "image.npy", x)
        wanted[name] = model.predict(x, verbose=0)  # traced as well: eager sums in another order
    folders = json.dumps([str(tmp_path / name) for name in wanted])
    done = subprocess.run([sys.executable, "-c", LOADER, folders], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, want in wanted.items():
        (got,) = np.load(tmp_path / name / "answers.npz").values()
        assert np.abs(got - want).max() < 1e-5 * max(1.0, np.abs(want).max()), name


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: nets.resnet(block="wide"), "`block` must be one of basic, bottleneck. Received: block='wide'"),
        (lambda: nets.resnet(stem="large"), "imagenet, small. Received: stem='large'"),
        (lambda: nets.resnet50(layout="caffe"), "v1.5, paper, keras. Received: layout='caffe'"),
        (lambda: nets.resnet(block="basic", layout="paper"), "Basic blocks have one layout"),
        (lambda: nets.resnet(depths=()), r"depths=\(\)"),
        (lambda: nets.resnet(depths=(2, 0)), r"depths=\(2, 0\)"),
        (lambda: nets.resnet(width=0), "width=0"),
        (lambda: nets.resnet18(size_hw=(0, 224)), "resnet18"),
        (lambda: nets.resnet18(classes=-1), "classes=-1"),
    ],
)
def test_networks_name_a_bad_argument(make: Callable[[], keras.Model], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
