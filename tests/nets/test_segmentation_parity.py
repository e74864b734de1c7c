"""Torchvision's segmentation checkpoints give torchvision's outputs, in Keras and in LiteRT.

The references' own rounding is above 1e-4 of the deviation in three of the four: computed in float64, by PyTorch or
here, the same networks are `ROUNDING` away from them (and 1e-8 from each other). So each is proved twice: in float64
it is as far from the reference as PyTorch's float64 is, and in float32 within twice that, or 1e-4.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.nets.synthetic import Reference, normalized
from tests.nets.test_parity import checkpoint, error
from visionkit import nets
from visionkit.runtime import compile_model
from visionkit.weights.torchvision import load_torchvision

# largest difference of PyTorch's float64 `logits_low` from the reference, in standard deviations
ROUNDING = {
    "deeplabv3_mobilenet_v3_large": 1.268e-4,
    "deeplabv3_resnet50": 8.934e-4,
    "fcn_resnet50": 2.768e-4,
    "lraspp_mobilenet_v3_large": 2.473e-5,
}
NAMES = tuple(ROUNDING)


def tolerance(name: str) -> float:
    return max(1e-4, 2 * ROUNDING[name])


@pytest.fixture
def double() -> Iterator[None]:
    """Networks that are built meanwhile compute in float64."""
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


def image_of(reference: Reference) -> np.ndarray:
    return normalized(reference.arrays["image"])


def nhwc(reference: Reference, name: str) -> np.ndarray:
    return reference.arrays[name].transpose(0, 2, 3, 1)


def loaded(name: str, state: dict[str, np.ndarray], size_hw: tuple[int, int] | None, **options: bool) -> keras.Model:
    model: keras.Model = getattr(nets, name)(size_hw=size_hw, **options)
    load_torchvision(model, name, state)
    return model


def check(name: str, logits: np.ndarray, reference: Reference) -> None:
    """Scores and labels at the image's size."""
    assert error(logits[:, ::4, ::4], nhwc(reference, "logits")) < tolerance(name)
    _check_labels(logits, reference.arrays["labels"], tolerance(name))


@pytest.mark.parametrize("name", NAMES)
def test_scores_and_labels_are_torchvisions(name: str, shared: Path, tmp_path: Path) -> None:
    reference = Reference.read(shared / "parity", name)
    x = image_of(reference)
    model = loaded(name, checkpoint(reference, tmp_path / f"{name}.pth"), x.shape[1:3])
    both = keras.Model(model.inputs[0], [model.get_layer("logits_low").output, model.output])
    low, logits = (np.asarray(value) for value in both(x, training=False))
    assert error(low, nhwc(reference, "logits_low")) < tolerance(name)
    check(name, logits, reference)


LIGHT = "lraspp_mobilenet_v3_large"  # whose conversion takes seconds
HEAVY = [pytest.param(name, marks=pytest.mark.slow) for name in sorted({*NAMES} - {LIGHT})]


@pytest.mark.parametrize("name", [LIGHT, *HEAVY])
def test_litert_gives_torchvisions_scores_and_labels(name: str, shared: Path, tmp_path: Path) -> None:
    """Slow ones: TensorFlow's converter takes half a minute for a ResNet."""
    reference = Reference.read(shared / "parity", name)
    x = image_of(reference)
    model = loaded(name, reference.state(), x.shape[1:3])
    with compile_model(model, runtime="litert", cache_dir=tmp_path) as runner:
        check(name, runner(image=x)["logits"], reference)


def _check_labels(logits: np.ndarray, labels: np.ndarray, within: float) -> None:
    """Where another label wins, the two were as good as equal."""
    differing = logits.argmax(-1) != labels
    assert differing.mean() < 1e-3
    best = logits[differing].max(-1)
    wanted = np.take_along_axis(logits[differing], labels[differing][:, None].astype(int), -1)[:, 0]
    assert (best - wanted <= 2 * within * logits.std()).all()


@pytest.mark.parametrize("name", NAMES)
def test_in_float64_all_that_is_left_is_the_references_rounding(name: str, shared: Path, double: None) -> None:
    """At an open size, so that both ways to build a network are proved."""
    reference = Reference.read(shared / "parity", name)
    model = loaded(name, reference.state(), None, resize=False)
    found = np.asarray(model(image_of(reference).astype("float64"), training=False))
    assert error(found, nhwc(reference, "logits_low")) == pytest.approx(ROUNDING[name], rel=0.01)


def test_every_segmentation_network_of_the_folder_is_tried(shared: Path) -> None:
    found = {path.stem for path in (shared / "parity").glob("*.npz") if "logits_low" in np.load(path).files}
    assert found == {*NAMES}


# Known-wrong variants: each error must be far above the tolerance.


def test_the_wrong_rule_of_dilation_would_be_found(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first block of a stage dilated like the others."""
    resnet = importlib.import_module("visionkit.nets.resnet")  # the package has the function of that name
    build = resnet._bottleneck

    def eager(x, channels, stride, name, rules, dilation=1):  # type: ignore[no-untyped-def]
        wrong = {"backbone.layer3.0": 2, "backbone.layer4.0": 4}.get(name, dilation)
        return build(x, channels, stride, name, rules, wrong)

    monkeypatch.setattr(resnet, "_bottleneck", eager)
    reference = Reference.read(shared / "parity", "fcn_resnet50")
    x = image_of(reference)
    wrong = loaded("fcn_resnet50", reference.state(), x.shape[1:3], resize=False)
    assert error(wrong(x, training=False), nhwc(reference, "logits_low")) > 0.1


def test_aligned_corners_would_be_found(shared: Path) -> None:
    reference = Reference.read(shared / "parity", "lraspp_mobilenet_v3_large")
    low, expected = nhwc(reference, "logits_low").astype("float64"), nhwc(reference, "logits")
    height, width = reference.arrays["image"].shape[1:3]

    def resized(corners: bool) -> np.ndarray:
        x = low
        for axis, size in ((1, height), (2, width)):
            count = x.shape[axis]
            place = np.linspace(0, count - 1, size) if corners else (np.arange(size) + 0.5) * count / size - 0.5
            place = np.clip(place, 0, count - 1)
            first = np.minimum(place.astype(int), count - 2)
            share = (place - first).reshape([-1 if i == axis else 1 for i in range(4)])
            x = x.take(first, axis) * (1 - share) + x.take(first + 1, axis) * share
        return x[:, ::4, ::4]

    assert error(resized(corners=False), expected) < 1e-5
    assert error(resized(corners=True), expected) > 0.1


def test_the_backbones_epsilon_in_the_head_would_be_found(shared: Path) -> None:
    reference = Reference.read(shared / "parity", "deeplabv3_mobilenet_v3_large")
    x = image_of(reference)
    model = loaded("deeplabv3_mobilenet_v3_large", reference.state(), x.shape[1:3], resize=False)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and layer.name.startswith("classifier"):
            layer.epsilon = 1e-3
    assert error(model(x, training=False), nhwc(reference, "logits_low")) > 0.01
