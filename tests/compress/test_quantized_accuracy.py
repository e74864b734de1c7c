"""What quantization costs on real data: QNT-2 on scikit-learn's digits, the bundled classifier and detector.

Slow: one trains for half a minute, the others export, quantize and evaluate.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.compress.networks import answers, as_tflite, decibels, fed
from visionkit.compress import ai_edge
from visionkit.compress.calibration import choose_calibration
from visionkit.compress.graft import integer_ends
from visionkit.compress.operations import float_operations, list_operations
from visionkit.compress.ptq import quantize_artifact
from visionkit.compress.quantize_network import quantize_network
from visionkit.runtime.quiet import import_keras
from visionkit.weights.artifact import model_bytes

pytestmark = pytest.mark.slow  # half a minute of training, exports and evaluations: two minutes in all

ROOT = Path(__file__).resolve().parents[2]


def depthwise_net():
    keras = import_keras()
    layers = keras.layers
    keras.utils.set_random_seed(0)
    image = x = keras.Input((16, 16, 1), name="image")
    for width, strides in ((16, 1), (32, 2), (64, 2)):
        x = layers.DepthwiseConv2D(3, padding="same", strides=strides, use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.Conv2D(width, 1, use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU(max_value=6.0)(x)
    return keras.Model(image, layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def digits():
    """Images float32 (1797, 16, 16, 1) with mean 0 and deviation 1, and classes; the last 400 are not learnt from."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.kron(data.images, np.ones((1, 2, 2)))[..., None]
    order = np.random.default_rng(0).permutation(len(images))
    images = ((images - images.mean()) / images.std()).astype(np.float32)
    return images[order], data.target[order]


@pytest.fixture(scope="module")
def trained(digits):
    keras = import_keras()
    images, classes = digits
    model = depthwise_net()
    model.compile(
        optimizer=keras.optimizers.Adam(3e-3), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(images[:-400], classes[:-400], epochs=14, batch_size=64, verbose=0)
    return model, as_tflite(model)


def test_qnt_2_every_kind_is_near_enough(trained, digits):
    model, content = trained
    images, classes = digits
    calibration = fed([image[None] for image in images[:200]])
    tests = [image[None] for image in images[-400:]]
    expected = np.asarray(model.predict_on_batch(images[-400:]))
    assert (expected.argmax(-1) == classes[-400:]).mean() > 0.9
    assert np.abs(answers(content, tests) - expected).max() < 1e-4

    def found(kind: str, **how) -> tuple[float, float]:
        made = answers(quantize_network(content, calibration, kind=kind, **how).content, tests)
        return decibels(expected, made), float((made.argmax(-1) == expected.argmax(-1)).mean())

    assert found("float16")[0] > 50
    assert found("dynamic")[0] > 35
    noise, alike = found("int8")
    assert noise > 25
    assert alike >= 0.98
    ends = answers(integer_ends(quantize_network(content, calibration, kind="int8").content), tests)
    assert decibels(expected, ends) > 25
    assert (ends.argmax(-1) == expected.argmax(-1)).mean() >= 0.98
    if ai_edge.available():
        assert found("int16x8")[0] >= noise


def test_qnt_2_wrong_calibrations_fail_the_bar(trained, digits):
    """Ranges of noise instead of images, and of images that were not normalised as the network's inputs are."""
    model, content = trained
    images, _ = digits
    tests = [image[None] for image in images[-400:]]
    expected = np.asarray(model.predict_on_batch(images[-400:]))
    random = np.random.default_rng(0)
    wrong = {
        "no images": [random.uniform(0, 0.01, (1, 16, 16, 1)).astype(np.float32) for _ in range(50)],
        "divided by 255": [image[None] / 255 for image in images[:200]],
        "levels": [(image[None] * 6 + 5) * 16 for image in images[:200]],
    }
    for name, inputs in wrong.items():
        made = quantize_network(content, fed(inputs), kind="int8").content
        assert decibels(expected, answers(made, tests)) < 25, name


# real models


def test_the_sign_classifier_loses_nothing_to_speak_of(shared, tmp_path):
    """The issue's bars: within 1.0 point of float on the 240 images held back, and 0.30 of its size."""
    from visionkit.export import export_model
    from visionkit.io.images import read_image
    from visionkit.tasks.load_classify import load_classifier

    data = shared / "data" / "classification" / "sign_digits"
    split = json.loads((ROOT / "models" / "sign_digits" / "split.json").read_text())
    source = tmp_path / "float.tflite"
    export_model("sign_digits", source, format="litert")
    calibration = choose_calibration([data / name for name in split["train"]])
    images = [read_image(data / name) for name in split["test"]]
    truth = [int(name.partition("/")[0]) for name in split["test"]]

    def share(path: Path) -> float:
        task = load_classifier(path)
        return float(np.mean([int(one.class_id[0]) == wanted for one, wanted in zip(task(images), truth, strict=True)]))

    whole = share(source)
    assert whole > 0.99
    for kind in ("int8", "int8-io", "dynamic"):
        made = quantize_artifact(source, tmp_path / f"{kind}.tflite", kind=kind, calibration=calibration)
        assert share(made.path) >= whole - 0.01
        assert made.path.stat().st_size <= 0.30 * source.stat().st_size


def test_mobilenet_v2_is_small_and_of_integers(shared, tmp_path, monkeypatch):
    """The issue's bar: at most 4.2 MB with all its signatures, and only integer operations."""
    from tests.export.test_every_card import at_random
    from visionkit.export import export_model

    weights = tmp_path / "random.weights.h5"
    weights.write_bytes(b"random")
    monkeypatch.setattr("visionkit.weights.obtain", lambda *_, **__: weights)
    monkeypatch.setattr("visionkit.weights.load_weights", at_random)
    source = tmp_path / "float.tflite"
    export_model("mobilenet_v2", source, format="litert")
    calibration = choose_calibration(shared / "data" / "coco128_train" / "images", count=24, trusted=True)
    made = quantize_artifact(source, tmp_path / "int8.tflite", kind="int8-io", calibration=calibration)
    assert made.path.stat().st_size <= 4_200_000
    rows = list_operations(model_bytes(made.path), "raw")
    assert len(rows) > 60
    assert float_operations(rows) == []
    assert {kind for row in rows for kind in row.outputs} == {"int8"}


def test_the_cell_detector_stays_within_two_points(shared, tmp_path):
    """The issue's bar on BCCD: mAP50 of int8 within 2 points of float; ranges are measured on the training part."""
    from click.testing import CliRunner

    from visionkit.cli.eval_detect import detect
    from visionkit.export import export_model

    data = shared / "data" / "detection" / "bccd"
    names = (data / "ImageSets" / "Main" / "train.txt").read_text().split()
    calibration = choose_calibration([data / "JPEGImages" / f"{name}.jpg" for name in names])
    source = tmp_path / "float.tflite"
    export_model("bccd_cells", source, format="litert")
    made = quantize_artifact(source, tmp_path / "int8.tflite", kind="int8", calibration=calibration)
    assert made.made["quantization"]["float_islands"] == []
    found = []
    for path in (source, made.path):
        told = CliRunner().invoke(detect, ["--model", str(path), "--data", str(data), "--part", "test", "--json"])
        assert told.exit_code == 0, told.output
        found.append(json.loads(told.stdout)["map50"])
    assert found[0] > 0.90
    assert found[1] >= found[0] - 0.02
