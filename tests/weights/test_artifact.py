"""Descriptions in exported models: what is stored is read back, whatever is wrong with it is told at once."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from visionkit.errors import ModelError
from visionkit.weights import load_card
from visionkit.weights.artifact import (
    attach,
    describe_artifact,
    has_description,
    model_bytes,
    read_artifact,
)

FORMATS = ("litert", "keras", "savedmodel", "onnx", "openvino")
NAMES = {"litert": "m.tflite", "keras": "m.keras", "savedmodel": "m", "onnx": "m.onnx", "openvino": "m.xml"}
FLATBUFFER = b"\x1c\0\0\0TFL3" + bytes(range(256)) * 7
# ModelProto: ir_version = 8, producer_name = "x", and a property of somebody else's
FOREIGN_PROPERTY = b"\x72\x08\x0a\x01k\x12\x03abc"
ONNX = b"\x08\x08\x12\x01x" + FOREIGN_PROPERTY
PROBES = {
    "image_0": np.arange(60, dtype=np.uint8).reshape(4, 5, 3),
    "raw/raw/logits/0": np.float32([[0.5, -1.5]]),
    "serving/num_detections/0": np.int32(3),
}


def plain_model(folder: Path, kind: str) -> Path:
    """A file or folder of a format, as far as its description cares."""
    path = folder / NAMES[kind]
    if kind == "savedmodel":
        (path / "variables").mkdir(parents=True)
        (path / "saved_model.pb").write_bytes(b"graph")
        (path / "variables" / "variables.index").write_bytes(b"index")
    elif kind == "keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", "{}")
            archive.writestr("model.weights.h5", b"weights" * 99)
    else:
        path.write_bytes({"litert": FLATBUFFER, "onnx": ONNX, "openvino": b"<net/>"}[kind])
        if kind == "openvino":
            path.with_suffix(".bin").write_bytes(b"weights")
    return path


def card(**changes):
    return dataclasses.replace(load_card("sign_digits"), weights=(), **changes)


def described(path: Path, **told) -> Path:
    description = describe_artifact(card(), probes=PROBES, **{"kind": "int8", "made": {"from": "a test"}, **told})
    attach(path, description, PROBES)
    return path


def description_of(path: Path) -> dict:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("visionkit.json"))


def with_tail(path: Path, **members: bytes) -> Path:
    """The flatbuffer with a zip of these behind it; `visionkit.json` is called `json`."""
    tail = io.BytesIO()
    with zipfile.ZipFile(tail, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr({"json": "visionkit.json", "probes": "probes.npz"}[name], content)
    path.write_bytes(FLATBUFFER + tail.getvalue())
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_attached_is_read_back(kind, tmp_path):
    path = plain_model(tmp_path, kind)
    assert read_artifact(path) is None
    assert not has_description(path)
    described(path, parts={"": "raw", "theta beside": "raw_theta"})
    found = read_artifact(path)
    assert (found.format, found.kind, found.path) == (kind, "int8", path)
    assert found.parts == {"": "raw", "theta beside": "raw_theta"}
    assert found.made == {"from": "a test"}
    assert found.card == card(folder=tmp_path)
    probes = found.probes()
    assert probes.keys() == PROBES.keys()
    for name, array in PROBES.items():
        assert probes[name].dtype == array.dtype
        assert np.array_equal(probes[name], array)


@pytest.mark.parametrize("kind", FORMATS)
def test_attaching_again_replaces_and_leaves_the_model_alone(kind, tmp_path):
    path = plain_model(tmp_path, kind)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    described(path)
    once = read_artifact(path).sha256
    whole = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    described(path)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == whole
    attach(path, describe_artifact(card(), kind="pruned"), {})
    found = read_artifact(path)
    assert (found.kind, found.probes(), found.sha256) == ("pruned", {}, once)
    if kind == "savedmodel":
        assert all(whole[file] == content for file, content in before.items())
        with pytest.raises(ModelError, match="folder"):
            model_bytes(path)
    elif kind == "keras":
        with zipfile.ZipFile(io.BytesIO(model_bytes(path))) as archive:
            assert archive.namelist() == ["config.json", "model.weights.h5"]
            assert archive.read("model.weights.h5") == b"weights" * 99
    else:
        assert model_bytes(path) == before[path]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_model_that_changed_under_its_description_is_refused(kind, tmp_path):
    path = described(plain_model(tmp_path, kind))
    if kind == "litert":
        changed = bytearray(path.read_bytes())
        changed[100] ^= 1
        path.write_bytes(changed)
    elif kind == "keras":
        whole = io.BytesIO()
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(whole, "w") as new:
            for name in old.namelist():
                new.writestr(name, b"others" if name.endswith(".h5") else old.read(name))
        path.write_bytes(whole.getvalue())
    elif kind == "savedmodel":
        (path / "variables" / "variables.index").write_bytes(b"indey")
    elif kind == "onnx":
        path.write_bytes(path.read_bytes().replace(b"\x08\x08\x12\x01x", b"\x08\x09\x12\x01x"))
    else:
        path.with_suffix(".bin").write_bytes(b"weighty")
    with pytest.raises(ModelError) as told:
        read_artifact(path)
    assert (told.value.slug, told.value.exit_code) == ("hash-mismatch", 5)


def test_onnx_reads_the_properties_as_its_own(tmp_path):
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", *([v] for v in values)))
    helper.set_model_props(model, {"author": "somebody"})
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    described(path)
    loaded = onnx.load(path)
    onnx.checker.check_model(loaded)
    properties = {entry.key: entry.value for entry in loaded.metadata_props}
    assert properties["author"] == "somebody"
    assert sorted(properties) == [
        "author",
        *sorted(f"visionkit/{n}" for n in ("labels.txt", "probes.npz", "visionkit.json")),
    ]
    assert onnx.load_model_from_string(model_bytes(path)) == model


def test_any_zip_tool_finds_labels_and_probes_behind_a_flatbuffer(tmp_path):
    path = described(plain_model(tmp_path, "litert"))
    assert path.read_bytes().startswith(FLATBUFFER)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("labels.txt").decode().splitlines() == list("0123456789")
        with np.load(io.BytesIO(archive.read("probes.npz")), allow_pickle=False) as arrays:
            assert np.array_equal(arrays["image_0"], PROBES["image_0"])


def test_a_tail_that_is_cut_off_is_told(tmp_path):
    path = described(plain_model(tmp_path, "litert"))
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) - 30, len(FLATBUFFER) + 200):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError) as told:
            read_artifact(path)
        assert told.value.slug == "artifact-corrupt"


def test_every_byte_of_a_description_may_be_flipped(tmp_path):
    """Any answer but a crash or a wrong description: refused, without one, or the very same."""
    path = described(plain_model(tmp_path, "litert"))
    whole, expected = path.read_bytes(), read_artifact(path)
    generator = np.random.default_rng(0)
    outcomes = {"same": 0, "none": 0, "refused": 0}
    for place in generator.integers(len(FLATBUFFER), len(whole), 300):
        changed = bytearray(whole)
        changed[place] ^= int(generator.integers(1, 256))
        path.write_bytes(changed)
        slug, found = answer(path)
        assert slug in ("", "artifact-corrupt", "hash-mismatch")
        outcomes["refused" if slug else "none" if found is None else "same"] += 1
        assert found is None or found == expected
    assert outcomes["refused"] > 150


def answer(path: Path):
    """The slug of the refusal, and what was read with its probes."""
    try:
        found = read_artifact(path)
        if found is not None:
            found.probes()
    except ModelError as error:
        return error.slug, None
    return "", found


def changed(**changes):
    def change(table):
        return {**table, **changes}

    return change


def changed_card(**changes):
    def change(table):
        card = {key: value for key, value in {**table["card"], **changes}.items() if value is not ...}
        return {**table, "card": card}

    return change


HOSTILE = {
    "unknown key": changed(code="print()"),
    "later version": changed(visionkit=99),
    "version of another type": changed(visionkit=True),
    "no card": lambda table: {key: value for key, value in table.items() if key != "card"},
    "card of another type": changed(card=[1]),
    "task unknown": changed_card(task="dance"),
    "network no word": changed_card(network="os.system('x')"),
    "unknown key in the card": changed_card(hook="x"),
    "weights from elsewhere": changed_card(weights=[]),
    "labels out of a file": changed_card(labels=..., labels_file="secret.txt"),
    "labels of numbers": changed_card(labels=[1, 2]),
    "size of nothing": changed_card(input={"size_hw": [0, 96], "resize": "stretch", "preset": "torch"}),
    "size of words": changed_card(input={"size_hw": ["a", "b"], "resize": "stretch", "preset": "torch"}),
    "preset unknown": changed_card(input={"size_hw": [96, 96], "resize": "stretch", "preset": "../x"}),
    "parts of another type": changed(parts=["raw"]),
    "parts of numbers": changed(parts={"": 3}),
    "probes of another type": changed(probes={"a": 1}),
    "name empty": changed(name=""),
    "name of control characters": changed(name="a\x1b[2J"),
    "kind too long": changed(kind="x" * 1000),
    "sha256 of another type": changed(sha256=3),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_description_that_does_not_fit_is_refused(change, tmp_path):
    path = described(plain_model(tmp_path, "litert"))
    with_tail(path, json=json.dumps(change(description_of(path))).encode())
    with pytest.raises(ModelError) as told:
        read_artifact(path)
    assert told.value.slug == "artifact-corrupt"
    assert str(path) in told.value.message
    assert "\x1b" not in told.value.message


RAW = {
    "no JSON": b"hello",
    "no UTF-8": b'{"visionkit": "\xff"}',
    "deeply nested": b'{"visionkit": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "not a number": b'{"visionkit": NaN}',
    "endless digits": b'{"visionkit": ' + b"9" * 100_000 + b"}",
    "a megabyte and more": b'{"visionkit": 1, "name": "' + b"x" * (1 << 20) + b'"}',
    "a bomb": b" " * (200 << 20),
}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_a_description_that_is_no_json_is_refused_at_once(raw, tmp_path):
    path = with_tail(plain_model(tmp_path, "litert"), json=raw)
    began = time.perf_counter()
    with pytest.raises(ModelError) as told:
        read_artifact(path)
    assert told.value.slug == "artifact-corrupt"
    assert len(told.value.message) < 600
    assert time.perf_counter() - began < 2


def npz(**members: bytes) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return whole.getvalue()


def npy(array, **options) -> bytes:
    whole = io.BytesIO()
    np.save(whole, array, **options)
    return whole.getvalue()


def pickled() -> bytes:
    return npy(np.array([print], dtype=object), allow_pickle=True)


PROBE_FILES = {
    "no archive": b"hello",
    "a pickle": npz(image_0=pickled()),
    "another array": npz(image_1=npy(np.zeros(3))),
    "more than it says": npz(image_0=npy(np.zeros(3, np.float32)).replace(b"(3,)", b"(2,)")),
    "an endless shape": npz(image_0=npy(np.zeros(3, np.float32)).replace(b"(3,), }        ", b"(999999999,), }")),
    "a bomb": npz(image_0=npy(np.zeros(100 << 20, np.uint8))),
    "text": npz(image_0=npy(np.array(["a"]))),
}


@pytest.mark.parametrize("raw", PROBE_FILES.values(), ids=PROBE_FILES)
def test_probes_that_do_not_fit_are_refused_at_once(raw, tmp_path):
    path = plain_model(tmp_path, "litert")
    probes = {"image_0": np.zeros(3, np.float32)}
    attach(path, describe_artifact(card(), probes=probes), probes)
    with_tail(path, json=json.dumps(description_of(path)).encode(), probes=raw)
    found = read_artifact(path)
    began = time.perf_counter()
    with pytest.raises(ModelError) as told:
        found.probes()
    assert told.value.slug == "artifact-corrupt"
    assert time.perf_counter() - began < 2


def test_probes_that_are_not_there_are_told(tmp_path):
    path = described(plain_model(tmp_path, "litert"))
    with_tail(path, json=json.dumps(description_of(path)).encode())
    with pytest.raises(ModelError, match="missing"):
        read_artifact(path).probes()


def test_a_list_of_a_million_members_is_not_read(tmp_path):
    path = plain_model(tmp_path, "litert")
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("a", b"")
        start = archive.start_dir
    listed = whole.getvalue()[start:-22] * 60_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 60_000, 60_000, len(listed), len(FLATBUFFER), 0)
    path.write_bytes(FLATBUFFER + listed + end)
    began = time.perf_counter()
    with pytest.raises(ModelError, match="list of members") as told:
        read_artifact(path)
    assert told.value.slug == "artifact-corrupt"
    assert time.perf_counter() - began < 0.5


def test_json_of_somebody_else_is_no_description(tmp_path):
    path = with_tail(plain_model(tmp_path, "litert"), json=b'{"schema": 1, "labels": []}')
    assert read_artifact(path) is None


@pytest.mark.parametrize("name", ["there.txt", "missing.tflite", "folder"])
def test_what_is_no_model_file_has_no_description(name, tmp_path):
    (tmp_path / "there.txt").write_text("x")
    (tmp_path / "folder").mkdir()
    assert read_artifact(tmp_path / name) is None
    with pytest.raises(ModelError) as told:
        attach(tmp_path / name, describe_artifact(card()))
    assert told.value.slug == "model-format"


def test_no_flatbuffer_gets_a_description(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"hello there")
    with pytest.raises(ModelError, match="TFL3"):
        described(path)
    assert path.read_bytes() == b"hello there"


def test_what_cannot_be_stored_is_refused(tmp_path):
    path = plain_model(tmp_path, "litert")
    with pytest.raises(ModelError, match="JSON"):
        describe_artifact(card(), made={"when": object()})
    with pytest.raises(ModelError, match="JSON"):
        describe_artifact(card(), made={"loss": float("nan")})
    with pytest.raises(ModelError, match="size_hw"):
        describe_artifact(card(input={"size_hw": (0, 3), "resize": "stretch", "preset": "torch"}))
    with pytest.raises(ValueError, match="as described"):
        attach(path, describe_artifact(card()), PROBES)
    large = {"image_0": np.zeros(65 << 20, np.uint8)}
    with pytest.raises(ModelError, match="64 MiB"):
        attach(path, describe_artifact(card(), probes=large), large)
    assert path.read_bytes() == FLATBUFFER


def test_a_card_comes_out_of_an_exported_model(tmp_path):
    path = described(plain_model(tmp_path, "litert"))
    assert load_card(path) == read_artifact(path).card
    with pytest.raises(ModelError) as told:
        load_card(plain_model(tmp_path, "onnx"))
    assert told.value.slug == "unknown-model"
