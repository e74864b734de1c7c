"""Torchvision's checkpoints give torchvision's outputs, in Keras and in LiteRT.

The references hold what torchvision computed from checkpoints of noise, which are written here as PyTorch writes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.nets.synthetic import Reference, normalized
from tests.weights.torch_files import write_checkpoint
from visionkit import nets
from visionkit.errors import ModelError
from visionkit.runtime import compile_model
from visionkit.weights.torch_zip import read_checkpoint
from visionkit.weights.torchvision import FAMILIES, load_torchvision

# Of the standard deviation of a reference's logits. Sums in float32 take a third of it in the deepest network:
# PyTorch's own Inception-v3 in float64 is 3e-5 from the reference.
TOLERANCE = 1e-4
NETWORKS = (
    "alexnet",
    "googlenet",
    "inception_v3",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "resnet18",
    "resnet50",
    "vgg16",
)
# In LiteRT they are among the slow tests: of four test_references.py has smaller ones there at each run.
KERAS = tuple(name for name in NETWORKS if name != "mobilenet_v3_large")


def scaled(image: np.ndarray) -> np.ndarray:
    """Images as GoogLeNet and Inception-v3 see them: torchvision turns ImageNet's normalisation into [-1, 1] inside."""
    return image.astype(np.float32) / 127.5 - 1


def preprocessing(name: str) -> Callable[[np.ndarray], np.ndarray]:
    return scaled if name in ("googlenet", "inception_v3") else normalized


def error(found: object, expected: np.ndarray) -> float:
    """The largest difference, in standard deviations of what was expected."""
    return float(np.abs(np.asarray(found) - expected).max() / expected.std())


def checkpoint(reference: Reference, path: Path) -> dict[str, np.ndarray]:
    """The reference's tensors, through a file as PyTorch writes it."""
    write_checkpoint(path, reference.state())
    state = read_checkpoint(path)
    path.unlink()  # still mapped
    return state


@pytest.fixture
def parity(shared: Path) -> Path:
    return shared / "parity"


def loaded(name: str, reference: Reference, state: dict[str, np.ndarray]) -> keras.Model:
    ((image, _),) = reference.cases()
    model: keras.Model = getattr(nets, name)(size_hw=image.shape[1:3])
    load_torchvision(model, name, state)
    return model


def keras_error(name: str, model: keras.Model, reference: Reference) -> float:
    ((image, logits),) = reference.cases()
    return error(model(preprocessing(name)(image), training=False), logits)


def litert_error(name: str, model: keras.Model, reference: Reference, cache: Path) -> float:
    """Of the two images, run one at a time."""
    ((image, logits),) = reference.cases()
    x = preprocessing(name)(image)
    with compile_model(model, runtime="litert", cache_dir=cache) as runner:
        found = [runner(image=x[i : i + 1])["logits"] for i in range(len(x))]
    return error(np.concatenate(found), logits)


@pytest.mark.parametrize("name", ["mobilenet_v3_large"])
def test_logits_are_torchvisions(name: str, parity: Path, tmp_path: Path) -> None:
    reference = Reference.read(parity, name)
    model = loaded(name, reference, checkpoint(reference, tmp_path / f"{name}.pth"))
    assert keras_error(name, model, reference) < TOLERANCE
    assert litert_error(name, model, reference, tmp_path) < TOLERANCE


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "vgg16")) for name in KERAS])
def test_networks_logits_are_torchvisions_in_keras(name: str, parity: Path, tmp_path: Path) -> None:
    reference = Reference.read(parity, name)
    model = loaded(name, reference, checkpoint(reference, tmp_path / f"{name}.pth"))
    assert keras_error(name, model, reference) < TOLERANCE


@pytest.mark.slow  # TensorFlow's converter takes a minute or more, and 5 GB for VGG-16
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", KERAS)
def test_networks_logits_are_torchvisions_in_litert(name: str, parity: Path, tmp_path: Path) -> None:
    reference = Reference.read(parity, name)
    model = loaded(name, reference, reference.state())
    assert litert_error(name, model, reference, tmp_path) < TOLERANCE


def test_every_classifier_of_the_folder_is_tried(parity: Path) -> None:
    known = {path.stem for path in parity.glob("*.json") if path.stem in FAMILIES}
    others = ("fcn", "deeplab", "lraspp", "fasterrcnn", "maskrcnn", "ssd")
    assert {name for name in known if not name.startswith(others)} == {*NETWORKS}


# Known-wrong variants: each must be refused, and its error must be far above the tolerance.


def test_a_map_flattened_in_torchs_order_would_be_found(parity: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = Reference.read(parity, "alexnet")
    naive = dataclasses.replace(FAMILIES["alexnet"], flattened={})
    monkeypatch.setattr("visionkit.weights.torchvision.FAMILIES", {"alexnet": naive})
    assert keras_error("alexnet", loaded("alexnet", reference, reference.state()), reference) > 1


def test_the_wrong_epsilon_is_refused_and_would_be_found(parity: Path) -> None:
    reference = Reference.read(parity, "mobilenet_v3_small")
    state = reference.state()
    model = loaded("mobilenet_v3_small", reference, state)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.epsilon = 1e-5
    assert keras_error("mobilenet_v3_small", model, reference) > 0.01
    with pytest.raises(ModelError, match=r"features\.0\.1 has epsilon 1e-05, expected 0\.001"):
        load_torchvision(model, "mobilenet_v3_small", state)


def test_the_stride_in_the_1x1_is_refused_and_would_be_found(parity: Path) -> None:
    reference = Reference.read(parity, "resnet50")
    state = reference.state()
    paper = nets.resnet50(layout="paper")
    paper.set_weights(loaded("resnet50", reference, state).get_weights())
    assert keras_error("resnet50", paper, reference) > 0.1
    with pytest.raises(ModelError, match=r"layer2\.0\.conv1 has stride \(2, 2\), expected \(1, 1\)"):
        load_torchvision(paper, "resnet50", state)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_imagenets_normalisation_in_its_place_would_be_found(name: str, parity: Path) -> None:
    reference = Reference.read(parity, name)
    ((image, logits),) = reference.cases()
    assert error(loaded(name, reference, reference.state())(normalized(image), training=False), logits) > 1
