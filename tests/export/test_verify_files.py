"""What a stranger may do to exported files, and to the command that checks them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.tasks.made_segment import write_segment_card
from visionkit.cli.shell import run
from visionkit.cli.verify import _agreement
from visionkit.errors import ModelError, UsageError
from visionkit.export import divergence, export_model
from visionkit.export import verify as verifying
from visionkit.export.box_match import compare_boxes
from visionkit.export.destination import check_target
from visionkit.export.divergence import compare_layers
from visionkit.export.verify import check_probes, read_described
from visionkit.runtime.tflite_trace import TracedOperation
from visionkit.weights import load_card
from visionkit.weights.artifact import attach, describe_artifact, read_artifact


def verify(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = run(["verify", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def retold(exported: Path, path: Path, **made: object) -> Path:
    """The same file, described otherwise."""
    path.write_bytes(exported.read_bytes())
    artifact = read_described(exported)
    probes = artifact.probes()
    told = describe_artifact(artifact.card, parts=artifact.parts, probes=probes, made={**artifact.made, **made})
    attach(path, told, probes)
    return path


def test_the_features_of_a_changed_file_are_found_to_be_others(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.tflite"
    path.write_bytes(exported.read_bytes())
    artifact = read_described(exported)
    probes = artifact.probes()
    probes["raw/embed/embedding/0"] = probes["raw/embed/embedding/0"] * 1.05
    attach(
        path, describe_artifact(artifact.card, parts=artifact.parts, probes=probes, made=dict(artifact.made)), probes
    )
    assert [row.output for row in check_probes(read_described(path)) if not row.ok] == ["embedding"]


def test_operations_that_nothing_here_runs_are_told(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = verify(capsys, retold(exported, tmp_path / "flex.tflite", select_tf_ops=["FlexErf"]))
    assert (code, out) == (5, "")
    assert err.startswith(
        "visionkit: error[verify-impossible]: flex.tflite cannot be verified or run here: FlexErf need"
    )


def test_another_size_has_other_layers(
    card: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.tflite"
    export_model(card, small, format="litert", size_hw=(24, 32))
    cv2.imwrite(str(tmp_path / "a.png"), np.full((30, 40, 3), (220, 40, 30), np.uint8))
    code, out, _ = verify(capsys, exported, "--against", small, "--source", tmp_path / "a.png")
    assert code == 0
    assert "layers: not compared: small.tflite takes other inputs" in out
    assert "received (1, 40, 56, 3)" in out
    code, out, _ = verify(capsys, exported, "--against", small, "--source", tmp_path / "a.png", "--json")
    found = json.loads(out)
    assert found["layers"] == {}
    assert found["layers_unknown"].startswith("small.tflite takes other inputs")


def test_a_card_is_to_be_exported_first(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = verify(capsys, "sign_digits")
    assert code == 5
    assert "it is a card: export it" in err


@pytest.mark.slow  # Keras starts in a process of its own, twice
def test_a_keras_file_of_parts_carries_probes_of_the_whole(tmp_path: Path) -> None:
    """A segmenter's loader asks for a part of it, and a tracker's for two."""
    folder = write_segment_card(tmp_path / "tiny", size_hw=(32, 64), resize="stretch")
    export_model(folder, tmp_path / "net.keras", format="keras")
    (row,) = check_probes(read_described(tmp_path / "net.keras"))
    assert (row.output, row.ok) == ("0", True)


def test_the_whole_of_a_keras_file_is_asked(tmp_path: Path) -> None:
    import keras

    path, first, second = tmp_path / "t.keras", np.zeros((1, 4), np.float32), np.ones((1, 3), np.float32)
    inputs = [keras.Input((4,), name="exemplar"), keras.Input((3,), name="search")]
    keras.Model(inputs, keras.layers.Concatenate()(inputs)).save(path)
    probes = {"raw//exemplar/0": first, "raw//search/0": second, "raw//0/0": np.zeros((1, 7), np.float32)}
    attach(path, describe_artifact(load_card("siambox_light"), parts={"search": "search"}, probes=probes), probes)
    (probe,) = verifying._probes(read_described(path))
    assert {name: value.shape for name, value in probe.question.inputs.items()} == {
        "exemplar": (1, 4),
        "search": (1, 3),
    }
    assert list(probe.expected) == ["0"]


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_one_graph_is_no_tracker(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("visionkit.export.exporting.make_plan", None)  # before any work
    with pytest.raises(UsageError, match="Export to litert or savedmodel") as error:
        export_model("siambox_light", tmp_path / {"onnx": "t.onnx", "openvino": "t.xml"}[kind], format=kind)
    assert error.value.slug == "format-unfit"


@pytest.mark.parametrize("suffix", [".tflite", ""])
def test_names_that_cannot_be(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    kind = "litert" if suffix else "savedmodel"
    for name, slug in (("n" * 300, "output-unwritable"), (os.fsdecode(b"\xff"), "name-unfit")):
        assert run(["export", "sign_digits", "--format", kind, "--out", str(tmp_path / f"{name}{suffix}")]) in (2, 6)
        assert f"error[{slug}]" in capsys.readouterr().err
    check_target(tmp_path / f"mit leer ü{suffix}", suffix)
    assert list(tmp_path.iterdir()) == []


def test_of_a_layers_operations_the_last_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hard swish on integers: x + 3 and its share of 6 are no outputs of the layer."""
    x = np.linspace(-4, 4, 24, dtype=np.float32)
    swish = x * np.clip(x + 3, 0, 6) / 6

    def operation(kind: str, value: np.ndarray, *layers: str) -> TracedOperation:
        return TracedOperation(kind, "", layers, value.astype(np.float32), 0.1)

    traced = [
        operation("CONV_2D", x, "bn", "conv"),
        operation("ADD", x + 3, "swish"),
        operation("MUL", np.clip(x + 3, 0, 6) / 6, "swish"),
        operation("MUL", swish, "swish"),
    ]
    monkeypatch.setattr(divergence, "trace_tflite", lambda *_: traced)
    rows = compare_layers({"conv": x * 2, "bn": x, "swish": swish}, b"", {})
    assert [(row.layer, row.operation, row.error) for row in rows] == [("bn", "CONV_2D", 0), ("swish", "MUL", 0)]


def test_a_batch_that_nobody_has_is_one_image(exported: Path, tmp_path: Path) -> None:
    path = retold(
        exported, tmp_path / "many.tflite", signatures={"serving_default": ["image: uint8 (" + "9" * 5000 + ", 4"]}
    )
    artifact = read_artifact(path)
    assert artifact is not None
    assert any(row.signature == "serving_default" for row in check_probes(artifact))  # one image, as if it said nothing


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("boxes", None),
        ("scores", None),
        ("boxes", np.zeros((1, 3), np.float32)),
        ("scores", np.zeros((1, 5), np.float32)),
        ("xyxy", np.zeros((1,), np.float32)),
        ("num_detections", np.float32([np.nan])),
        ("num_detections", np.int32(1)),
    ],
)
def test_answers_of_another_form_are_others(name: str, value: np.ndarray | None) -> None:
    """What a file tells of its boxes is not believed, on either side."""
    box = np.float32([[[0, 0, 1, 1], [0, 0, 0, 0]]])
    one = {"boxes": box, "xyxy": box, "scores": np.float32([[0.9, 0]]), "classes": np.int32([[1, 0]])}
    good = {**one, "num_detections": np.int32([1])}
    bad = {key: part for key, part in good.items() if key != name} | ({} if value is None else {name: value})
    compare = compare_boxes(conf=0.05, iou=0.5)
    assert compare(good, good, "classes", 1e-4) == 0.0
    assert compare(bad, good, "classes", 1e-4) == compare(good, bad, "classes", 1e-4) == 1.0


def test_probes_that_fill_the_memory_are_refused(exported: Path, tmp_path: Path) -> None:
    path = retold(exported, tmp_path / "many.tflite", signatures={"serving_default": ["image: uint8 (9999, 4, 4, 3)"]})
    artifact = read_described(path)
    large = {**artifact.probes(), "image_0": np.zeros((400, 400, 3), np.uint8)}
    attach(path, describe_artifact(artifact.card, parts=artifact.parts, probes=large, made=dict(artifact.made)), large)
    with pytest.raises(ModelError, match="probes of more than 1024 MiB"):
        check_probes(read_described(path))


def test_trust_is_given_to_either_folder(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = tmp_path / "saved", []
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"")
    monkeypatch.setattr("visionkit.api.load", lambda path, **how: asked.append((Path(path).name, how)))
    monkeypatch.setattr("visionkit.evaluate.agreement.agreement", lambda *_: None)
    _agreement(read_described(exported), str(folder), None, {"trust_model": True})
    assert asked == [("tiny.tflite", {"task": None}), ("saved", {"task": "classify", "trust": True})]


def test_integers_on_either_side_are_judged_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a float file next to one of integers, 5 % are no more than their arithmetic."""
    x = np.linspace(1, 2, 6, dtype=np.float32)
    files = {
        b"float": TracedOperation("PAD", "", ("pad",), x, None),
        b"int8": TracedOperation("PAD", "", ("pad",), x * np.float32(1.05), 0.1),
    }
    monkeypatch.setattr(divergence, "trace_tflite", lambda content, *_: [files[content]])
    for reference, content in ((b"int8", b"float"), (b"float", b"int8")):
        assert divergence.first_diverging(divergence.compare_files(reference, content, {})) is None
