"""Exported models quantized after training: what is in the file, what it says, and what leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from visionkit.compress.calibration import Calibration, choose_calibration
from visionkit.compress.operations import float_islands, float_operations, list_operations
from visionkit.compress.ptq import quantize_artifact
from visionkit.errors import ModelError, OutputError, UsageError
from visionkit.runtime.litert import open_litert
from visionkit.tasks.load_classify import load_classifier
from visionkit.weights.artifact import Artifact, attach, describe_artifact, model_bytes, read_artifact

INT8 = ("int8", "int8-io")


def hands(count: int, seed: int = 0) -> list[np.ndarray]:
    """Pictures uint8 (H, W, 3) BGR of a skin-coloured shape before a bright wall."""
    import cv2

    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        image = np.full((110, 100, 3), random.integers(160, 235, 3), np.float64)
        centre = tuple(int(n) for n in random.integers(35, 65, 2))
        cv2.ellipse(image, centre, (18, 26), float(random.integers(180)), 0, 360, (120, 150, 205), -1)
        for _ in range(int(random.integers(1, 6))):
            tip = tuple(int(n) for n in random.integers(5, 95, 2))
            cv2.line(image, centre, tip, (115, 145, 200), 9)
        found.append(np.clip(image + random.normal(0, 6, image.shape), 0, 255).astype(np.uint8))
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    from visionkit.export import export_model

    path = tmp_path_factory.mktemp("float") / "digits.tflite"
    export_model("sign_digits", path, format="litert", probes=hands(2, seed=9))
    return path


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return Calibration(tuple(hands(32)), trusted=True)


@pytest.fixture(scope="module")
def made(source, calibration, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    found = {}

    def quantized(kind: str) -> Artifact:
        if kind not in found:
            found[kind] = quantize_artifact(source, folder / f"{kind}.tflite", kind=kind, calibration=calibration)
        return found[kind]

    return quantized


@pytest.mark.parametrize(("kind", "most"), [("float16", 0.55), ("dynamic", 0.30), ("int8", 0.30), ("int8-io", 0.30)])
def test_a_quantized_classifier_is_smaller_and_answers_alike(made, source, kind, most):
    artifact = made(kind)
    assert artifact.path.stat().st_size <= most * source.stat().st_size
    images = hands(24, seed=5)
    wanted, found = (load_classifier(path, topk=10) for path in (source, artifact.path))
    scores = [
        [dict(zip(one.class_id.tolist(), one.confidence.tolist(), strict=True)) for one in task(images)]
        for task in (wanted, found)
    ]
    worst = max(abs(a[k] - b[k]) for a, b in zip(*scores, strict=True) for k in a)
    assert worst < {"float16": 2e-3, "dynamic": 0.05}.get(kind, 0.12)
    assert worst > 0
    alike = [max(a, key=a.get) == max(b, key=b.get) for a, b in zip(*scores, strict=True)]
    assert np.mean(alike) >= 0.9


@pytest.mark.parametrize("kind", INT8)
def test_the_network_is_of_integers_in_every_signature(made, kind):
    rows = list_operations(model_bytes(made(kind).path))
    assert float_islands(rows) == []
    kinds = {
        name: {row.kind for row in float_operations([row for row in rows if row.signature == name])}
        for name in {row.signature for row in rows}
    }
    assert kinds == {
        "raw": set(),
        "embed": {"CAST", "SUB", "MUL"},
        "serving_default": {"CAST", "SUB", "MUL", "SOFTMAX"},
    }


def test_integer_ends_are_there_when_asked_for(made):
    for kind, dtype in (("int8", np.float32), ("int8-io", np.int8)):
        with open_litert(model_bytes(made(kind).path), threads=1, key="raw") as runner:
            specs = [*runner.inputs.values(), *runner.outputs.values()]
        assert {spec.dtype for spec in specs} == {np.dtype(dtype)}


@pytest.mark.parametrize("kind", ["float16", *INT8])
def test_serving_and_raw_say_the_same(made, kind):
    """`serving_default` holds the very network of `raw`: the softmax of its logits."""
    from visionkit.runtime.steps import float_face

    content = model_bytes(made(kind).path)
    image = made(kind).probes()["image_0"]
    levels = image.astype(np.float32)
    mean, std = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])
    with open_litert(content, threads=1) as serving, float_face(open_litert(content, threads=1, key="raw")) as raw:
        probabilities = serving(image=image[None])["probabilities"]
        logits = raw(image=((levels - mean) / std)[None])["logits"]
    shares = np.exp(logits - logits.max())
    np.testing.assert_allclose(probabilities, shares / shares.sum(), atol=2e-3)


def test_the_description_says_how_it_was_made(made, source, calibration):
    artifact, old = made("int8"), read_artifact(source)
    assert (artifact.kind, artifact.parts, artifact.card.labels) == ("int8", old.parts, old.card.labels)
    told = artifact.made["quantization"]
    assert told["float_sha256"] == old.sha256
    assert told["calibration"] == {"count": 32, "sha256": calibration.sha256}
    assert (told["dropped"], told["float_islands"], told["kept_float"]) == ({}, [], [])
    assert artifact.made["source"] == "sign_digits"
    assert artifact.card.metrics == ()  # they are those of the float model
    json.dumps(dict(artifact.made))


@pytest.mark.parametrize("kind", ["dynamic", *INT8])
def test_its_probes_are_its_own_answers(made, source, kind):
    artifact = made(kind)
    probes = artifact.probes()
    assert {
        "image_0",
        "raw/raw/image/0",
        "raw/raw/logits/0",
        "raw/embed/embedding/0",
        "serving/probabilities/0",
    } == set(probes)
    with open_litert(model_bytes(artifact.path), threads=1, key="raw") as runner:
        np.testing.assert_array_equal(runner(image=probes["raw/raw/image/0"])["logits"], probes["raw/raw/logits/0"])
    assert not np.array_equal(
        probes["serving/probabilities/0"], read_artifact(source).probes()["serving/probabilities/0"]
    )


def test_a_layer_may_stay_in_float(source, calibration, tmp_path):
    artifact = quantize_artifact(
        source, tmp_path / "kept.tflite", kind="int8", calibration=calibration, keep_float=["conv1", "logits"]
    )
    rows = list_operations(model_bytes(artifact.path), "serving_default")
    assert {row.layer for row in float_operations(rows) if row.layer} >= {"conv1"}
    assert artifact.made["quantization"]["kept_float"] == ["conv1", "logits"]
    assert artifact.made["quantization"]["float_islands"] == []


def test_a_set_normalised_twice_is_refused(source, tmp_path):
    from visionkit.tasks.input_rule import InputRule

    rule = InputRule.preset("torch", (96, 96), resize="shortest_side")
    mean, std = np.float32(rule.mean), np.float32(rule.std)
    twice = Calibration(inputs=tuple((rule(image) - mean) / std for image in hands(16)))
    with pytest.raises(UsageError, match="normalised twice") as caught:
        quantize_artifact(source, tmp_path / "bad.tflite", kind="int8", calibration=twice)
    assert caught.value.slug == "calibration-normalised-twice"
    assert list(tmp_path.iterdir()) == []


def test_red_for_blue_is_refused(source, tmp_path, shared):
    given = choose_calibration(shared / "data/classification/sign_digits", count=128)
    swapped = Calibration(tuple(np.ascontiguousarray(image[..., ::-1]) for image in given.images))
    with pytest.raises(UsageError, match="BGR for RGB") as caught:
        quantize_artifact(source, tmp_path / "bad.tflite", kind="int8", calibration=swapped)
    assert caught.value.slug == "calibration-channel-order"
    assert list(tmp_path.iterdir()) == []


def test_nothing_remains_of_one_that_fails(source, calibration, tmp_path, monkeypatch):
    """D16: whatever happens after the file was written, there is none under its name; then it can be made."""
    target = tmp_path / "digits.tflite"

    def broken(*_args, **_how):
        raise ModelError("export-differs", "planted")

    with monkeypatch.context() as patch:
        patch.setattr("visionkit.export.check.check_artifact", broken)
        with pytest.raises(ModelError, match="planted"):
            quantize_artifact(source, target, kind="dynamic")
    assert list(tmp_path.iterdir()) == []
    quantize_artifact(source, target, kind="dynamic")
    with pytest.raises(OutputError) as caught:
        quantize_artifact(source, target, kind="dynamic")
    assert caught.value.slug == "exists"
    assert quantize_artifact(source, target, kind="float16", overwrite=True).kind == "float16"


def test_what_cannot_be_quantized_is_told(source, made, tmp_path):
    target = tmp_path / "other.tflite"
    bare = tmp_path / "bare.tflite"
    bare.write_bytes(model_bytes(source))
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(model_bytes(source))
    old = read_artifact(source)
    described = describe_artifact(old.card, kind="float32", parts=old.parts, made={"select_tf_ops": ["FlexErf"]})
    attach(foreign, described, {})
    for given, options, error, slug in (
        (source, {"kind": "int4"}, UsageError, "kind-unknown"),
        (source, {"kind": "int8", "engine": "best"}, UsageError, "engine-unknown"),
        (source, {"kind": "int8"}, UsageError, "calibration-missing"),
        (source, {"kind": "dynamic", "keep_float": ["conv9"]}, UsageError, "layer-unknown"),
        (bare, {"kind": "dynamic"}, ModelError, "artifact-missing"),
        (foreign, {"kind": "dynamic"}, ModelError, "model-unfit"),
        (made("int8").path, {"kind": "dynamic"}, ModelError, "model-unfit"),
    ):
        with pytest.raises(error) as caught:
            quantize_artifact(given, target, **options)
        assert caught.value.slug == slug
    assert not target.exists()
