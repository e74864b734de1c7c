"""Classifiers as files: what is in them, that they say what the task says, and that a wrong one gets no name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tests.export.unsaturated import LABELS, pictures, small_card
from visionkit.errors import ModelError, OutputError, UsageError
from visionkit.export import check, export_model, formats, plan, plan_classify, rule_graph
from visionkit.export.asking import Question, ask_alone
from visionkit.runtime.keras_net import KerasRunner
from visionkit.tasks import load_classifier
from visionkit.tasks.classify import Classifier
from visionkit.tasks.load_classify import card_network, card_rule
from visionkit.weights import Card, load_card
from visionkit.weights.artifact import model_bytes, read_artifact

SUFFIXES = {"savedmodel": "", "litert": ".tflite", "keras": ".keras", "onnx": ".onnx", "openvino": ".xml"}
END_TO_END = 1e-4
SLOW = pytest.mark.slow  # an export of 5 s each, of which one runs always


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small classifier of an odd size, with weights."""
    return small_card(tmp_path_factory.mktemp("cards") / "tiny", resize="shortest_side")[0].folder


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory) -> Callable[[str], Path]:
    """It in a format, written when it is first asked for."""
    place = tmp_path_factory.mktemp("made")

    @functools.cache
    def written(kind: str) -> Path:
        if missing := formats.FORMATS[kind].missing:
            pytest.skip(f"{kind} needs {', '.join(missing)}")
        return export_model(folder, place / f"tiny{SUFFIXES[kind]}", format=kind).path

    return written


def task_says(card: Card, images: list[np.ndarray]) -> np.ndarray:
    """Probabilities (N, L) of the Keras task."""
    rule = card_rule(card)
    task = Classifier(KerasRunner(card_network(card, rule).model(), threads=1), rule)
    return np.stack([next(iter(task.infer(rule(image)[None]).values()))[0] for image in images])


def rgb(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[None, ..., ::-1])


def test_a_saved_model_takes_images_of_any_size(folder, made):
    served = tf.saved_model.load(str(made("savedmodel"))).signatures["serving_default"]
    images = pictures()
    expected = task_says(load_card(folder), images)
    assert np.ptp(expected, axis=0).max() > 0.05  # the images differ to the network
    for image, wanted in zip(images, expected, strict=True):
        found = served(image=tf.constant(rgb(image)))["probabilities"].numpy()
        assert np.abs(found[0] - wanted).max() < END_TO_END


def test_a_saved_model_takes_several_images(folder, made):
    loaded = tf.saved_model.load(str(made("savedmodel")))
    images = pictures([(50, 70)] * 3)
    batch = tf.constant(np.concatenate([rgb(image) for image in images]))
    expected = task_says(load_card(folder), images)
    found = loaded.signatures["serving_default"](image=batch)["probabilities"].numpy()
    assert found.shape == (3, len(LABELS))
    assert np.abs(found - expected).max() < END_TO_END
    assert loaded.signatures["raw"](image=tf.zeros((3, 40, 56, 3)))["logits"].shape == (3, len(LABELS))
    assert loaded.signatures["embed"](image=batch)["embedding"].shape[0] == 3


def test_a_tflite_says_the_same_of_images_of_its_size(folder, made):
    card = load_card(folder)
    interpreter = Interpreter(str(made("litert")))
    interpreter.allocate_tensors()
    # Whoever knows of no signatures gets `serving_default`: it is the main graph.
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert inputs["dtype"] == np.uint8
    assert tuple(inputs["shape"]) == (1, 40, 56, 3)
    images = pictures()
    for image, wanted in zip(images, task_says(card, images), strict=True):
        interpreter.set_tensor(inputs["index"], rgb(card_rule(card).pixels(image)))
        interpreter.invoke()
        assert np.abs(interpreter.get_tensor(outputs["index"])[0] - wanted).max() < END_TO_END


def test_signatures_of_a_tflite_share_their_weights(made):
    content = model_bytes(made("litert"))
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    assert {signature.signatureKey for signature in model.signatureDefs} == {b"serving_default", b"raw", b"embed"}
    assert len(model.subgraphs) == 3
    large = [bytes(buffer.data) for buffer in model.buffers if buffer.data is not None and len(buffer.data) > 64]
    assert len(large) == len(set(large))
    kernels = sum(len(data) for data in large)
    assert len(content) < kernels + 60_000  # 3 graphs of operations, no second copy of the weights


@pytest.mark.parametrize("kind", ["litert", pytest.param("savedmodel", marks=SLOW), pytest.param("keras", marks=SLOW)])
def test_visionkit_runs_the_artifact_as_the_card(kind, folder, made):
    images = pictures()
    ours = load_classifier(folder, runtime="keras", topk=5)(images)
    options: dict[str, Any] = {"trust": True} if kind == "savedmodel" else {}
    theirs = load_classifier(made(kind), topk=5, **options)(images)
    for first, second in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(first.class_id, second.class_id)
        np.testing.assert_allclose(first.confidence, second.confidence, atol=END_TO_END)


@pytest.mark.parametrize("kind", SUFFIXES)
def test_the_description_travels_in_the_artifact(kind, made):
    artifact = read_artifact(made(kind))
    assert artifact is not None
    assert (artifact.format, artifact.kind, artifact.card.task) == (kind, "float32", "classify")
    assert artifact.card.labels == LABELS
    assert artifact.card.weights == ()
    assert dict(artifact.parts) == ({} if kind in ("onnx", "openvino") else {"": "raw"})
    probes = artifact.probes()
    assert probes["image_0"].dtype == np.uint8
    assert probes["serving/probabilities/0"].sum() == pytest.approx(1, abs=1e-5)
    assert ("raw/raw/image/0" in probes) == (kind not in ("onnx", "openvino"))
    assert artifact.made["runtime"].split()[0] == formats.FORMATS[kind].packages[-1]


def test_only_what_belongs_there_is_left(folder, tmp_path):
    export_model(folder, tmp_path / "tiny.tflite", format="litert")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.tflite"]


RULES = {
    "letterbox": {"resize": "letterbox"},
    "caffe, letterbox": {"resize": "letterbox", "preset": "caffe"},
    "short side and crop": {"resize": "shortest_side", "resize_size": 62},
    "grey": {"preset": "tf", "network": "lenet5", "size_hw": [32, 32], "args": {"channels": 1}},
}


@pytest.mark.parametrize("rule", ["grey", *(pytest.param(rule, marks=SLOW) for rule in RULES if rule != "grey")])
def test_every_input_rule_is_inside(rule, tmp_path):
    """`export_model` itself compares: of two probes, the answers are those of the task within 1e-4."""
    card, _ = small_card(tmp_path / "card", **RULES[rule])
    images = pictures([(60, 40), (130, 260)])
    for kind, suffix in (("savedmodel", ""), ("litert", ".tflite")):
        artifact = export_model(card, tmp_path / f"odd{suffix}", format=kind, probes=images)
        assert artifact.made["checked"]["serving_default"]["probabilities"] < END_TO_END


def test_heads_have_a_result_each(tmp_path):
    card, _ = small_card(tmp_path / "card", heads={"colour": ("a", "b", "c"), "sign": ("d", "e")})
    export_model(card, tmp_path / "heads.tflite", format="litert")
    interpreter = Interpreter(str(tmp_path / "heads.tflite"))
    runner = interpreter.get_signature_runner("serving_default")
    assert set(runner.get_output_details()) == {"probabilities_colour", "probabilities_sign"}
    assert set(interpreter.get_signature_runner("raw").get_output_details()) == {"colour", "sign"}


def test_one_logit_stands_for_two_classes(tmp_path):
    args = {"depths": [1], "width": 8, "stem": "small", "classes": 1}
    card, _ = small_card(tmp_path / "card", labels=(), args=args)
    export_model(card, tmp_path / "one.tflite", format="litert")
    served = Interpreter(str(tmp_path / "one.tflite")).get_signature_runner("serving_default")
    found = served(image=rgb(pictures([(40, 56)])[0]))["probabilities"]
    assert found.shape == (1, 2)
    assert found.sum() == pytest.approx(1)


def test_another_size_and_batch(folder, tmp_path):
    artifact = export_model(folder, tmp_path / "two.tflite", format="litert", size_hw=(48, 64), batch=2)
    assert artifact.card.input["size_hw"] == [48, 64]
    runner = Interpreter(str(artifact.path)).get_signature_runner("serving_default")
    assert tuple(runner.get_input_details()["image"]["shape"]) == (2, 48, 64, 3)


def twice(self, pixels):
    normalize = ORIGINAL
    return normalize(self, normalize(self, pixels))


def swapped(self, pixels):
    return ORIGINAL(self, self.tf.reverse(pixels, axis=[-1]))


ORIGINAL = rule_graph.RuleGraph.normalize


@pytest.mark.parametrize("planted", [twice, swapped], ids=["normalised twice", "BGR for RGB"])
@pytest.mark.parametrize("kind", ["litert", pytest.param("savedmodel", marks=SLOW), pytest.param("onnx", marks=SLOW)])
def test_a_wrong_artifact_gets_no_name(kind, planted, folder, tmp_path, monkeypatch):
    if formats.FORMATS[kind].missing:
        pytest.skip(f"{kind} cannot be written here")
    monkeypatch.setattr(rule_graph.RuleGraph, "normalize", planted)
    with pytest.raises(ModelError, match=r"'probabilities' of its signature 'serving_default' differs") as caught:
        export_model(folder, tmp_path / f"wrong{SUFFIXES[kind]}", format=kind)
    assert caught.value.slug == "export-differs"
    assert list(tmp_path.iterdir()) == []


def test_wrong_weights_are_seen_in_raw(folder, tmp_path, monkeypatch):
    real = formats.write_saved_model

    def other(place, functions, variables):
        variables = list(variables)
        kernel = next(variable for variable in variables if len(variable.shape) == 4)
        before = kernel.numpy()
        kernel.assign(before * 1.001)
        real(place, functions, variables)
        kernel.assign(before)

    monkeypatch.setattr(formats, "write_saved_model", other)
    with pytest.raises(ModelError, match="differs from Keras"):
        export_model(folder, tmp_path / "wrong.tflite", format="litert")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_its_runtime_refuses_gets_no_name(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "convert_saved_model", lambda *args, **kwargs: b"\0\0\0\0TFL3" + bytes(64))
    with pytest.raises(ModelError, match="by its own runtime, alone") as caught:
        export_model(folder, tmp_path / "bad.tflite", format="litert")
    assert caught.value.slug == "export-differs"
    assert list(tmp_path.iterdir()) == []


@keras.saving.register_keras_serializable(package="visionkit_tests")
class Bicubic(keras.layers.Layer):
    """An operation for which LiteRT has no builtin."""

    def call(self, x: Any) -> Any:
        return tf.image.resize(x, (12, 12), method="bicubic")

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], 12, 12, shape[3])


@pytest.fixture
def planted(monkeypatch, folder) -> Card:
    """A card whose network has a layer of it."""

    def model(self: Any) -> keras.Model:
        keras.utils.set_random_seed(1)
        image = keras.Input((40, 56, 3), name="image")
        x = Bicubic(name="planted.layer")(keras.layers.Conv2D(4, 3, name="conv")(image))
        x = keras.layers.Dense(5, name="logits")(keras.layers.GlobalAveragePooling2D()(x))
        return keras.Model(image, x)

    monkeypatch.setattr("visionkit.tasks.network.CardNetwork.model", model)
    return load_card(folder)


def test_an_operation_without_builtin_is_named_with_its_layer(planted, tmp_path):
    with pytest.raises(ModelError, match=r"ResizeBicubic in layer 'planted\.layer'") as caught:
        export_model(planted, tmp_path / "no.tflite", format="litert")
    assert caught.value.slug == "export-builtins"
    assert "allow-select-tf-ops" in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_tensorflows_operations_are_the_users_choice(planted, tmp_path):
    artifact = export_model(planted, tmp_path / "flex.tflite", format="litert", allow_select_tf_ops=True)
    assert artifact.made["select_tf_ops"] == ["FlexResizeBicubic"]
    assert artifact.made["runtime"].startswith("tensorflow ")  # the graph was run: no interpreter here has the kernels
    assert artifact.made["checked"]["serving_default"]["probabilities"] < END_TO_END


def test_leave_that_was_not_needed_changes_nothing(folder, tmp_path):
    artifact = export_model(folder, tmp_path / "plain.tflite", format="litert", allow_select_tf_ops=True)
    assert artifact.made["select_tf_ops"] == []
    assert artifact.made["runtime"].startswith("ai-edge-litert ")


@pytest.mark.parametrize(
    ("options", "error", "slug"),
    [
        ({"format": "tfjs"}, UsageError, "format-unknown"),
        ({"format": "litert", "name": "a.keras"}, UsageError, "name-unfit"),
        ({"format": "savedmodel", "name": "a.tflite"}, UsageError, "name-unfit"),
        ({"format": "onnx", "name": "a.onnx", "allow_select_tf_ops": True}, UsageError, "option-unfit"),
        ({"format": "litert", "crf": object()}, UsageError, "option-unfit"),
        ({"format": "litert", "name": "there.tflite"}, OutputError, "exists"),
        ({"format": "savedmodel", "name": "folder"}, OutputError, "exists"),
        ({"format": "savedmodel", "name": "folder", "overwrite": True}, OutputError, "exists"),
        ({"format": "litert", "name": "missing/a.tflite"}, OutputError, "output-unwritable"),
        ({"format": "savedmodel", "name": "missing/a"}, OutputError, "output-unwritable"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_built(options, error, slug, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(plan_classify, "make_plan", lambda *_: pytest.fail("built"))
    (tmp_path / "there.tflite").write_bytes(b"mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    name = options.pop("name", "a.tflite")
    with pytest.raises(error) as caught:
        export_model(folder, tmp_path / name, **options)
    assert caught.value.slug == slug
    assert (tmp_path / "there.tflite").read_bytes() == b"mine"
    assert (tmp_path / "folder" / "mine.txt").read_text() == "mine"


def test_the_card_is_not_overwritten(folder):
    with pytest.raises(UsageError) as caught:
        export_model(folder, folder, format="savedmodel", overwrite=True)
    assert caught.value.slug == "output-is-input"
    assert (folder / "card.toml").is_file()


def test_a_missing_library_is_named(folder, tmp_path, monkeypatch):
    without = dataclasses.replace(formats.FORMATS["onnx"], modules=("tf2onnx_that_is_not_there",))
    monkeypatch.setitem(formats.FORMATS, "onnx", without)
    with pytest.raises(UsageError, match="tf2onnx_that_is_not_there, not installed: pip install") as caught:
        export_model(folder, tmp_path / "a.onnx", format="onnx")
    assert caught.value.slug == "format-missing"


def test_only_tensorflow_is_traced(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ModelError, match="KERAS_BACKEND=tensorflow") as caught:
        export_model(folder, tmp_path / "a.tflite", format="litert")
    assert caught.value.slug == "export-backend"


def test_a_model_of_another_task_has_no_plan(tmp_path):
    with pytest.raises(ModelError, match="models to classify"):
        plan.make_plan(Card("a", tmp_path, "dream", "resnet", "MIT"), plan.ExportOptions())


def test_the_check_is_alone(made, folder):
    """Nothing of VisionKit is in the process that judges, and LiteRT's is without TensorFlow."""
    feed = {"image": np.zeros((1, 40, 56, 3), np.float32)}
    found, loaded = ask_alone(made("litert"), [Question("raw", feed)], "litert")
    assert found[0]["logits"].shape == (1, len(LABELS))
    assert not loaded & {"visionkit", "keras", "tensorflow"}
    assert "ai_edge_litert" in loaded


def test_differences():
    one = np.array([1.0, 2.0, np.inf], np.float32)
    assert check.difference(one, one) == 0
    assert check.difference(one, np.array([1.0, 2.5, np.inf], np.float32)) == 0.5
    assert check.difference(one[:2], 100 * one[:2], relative=True) == pytest.approx(198 / 200)
    assert check.difference(None, one) == np.inf
    assert check.difference(one[:2], one) == np.inf
    assert check.difference(np.array([1, 2]), np.array([1.0, 2.0])) == np.inf
    assert check.difference(np.array([np.nan]), np.array([np.nan])) == 0
    assert check.difference(np.array([np.nan]), np.array([1.0])) == np.inf


def test_files_beside_an_openvino_model_are_the_users_until_told(folder, tmp_path):
    if missing := formats.FORMATS["openvino"].missing:
        pytest.skip(f"openvino needs {', '.join(missing)}")
    (tmp_path / "tiny.labels.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"tiny\.labels\.txt' already exists"):
        export_model(folder, tmp_path / "tiny.xml", format="openvino")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.labels.txt"]
    export_model(folder, tmp_path / "tiny.xml", format="openvino", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "tiny.bin",
        "tiny.labels.txt",
        "tiny.probes.npz",
        "tiny.visionkit.json",
        "tiny.xml",
    ]
    (tmp_path / "tiny.xml").unlink()  # as if killed before the last of them
    export_model(folder, tmp_path / "tiny.xml", format="openvino")
