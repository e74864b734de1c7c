"""`visionkit verify`: probes asked again, two models on frames, the first layer from which they part."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from visionkit.cli.shell import run as shell
from visionkit.errors import ModelError
from visionkit.export import export_model
from visionkit.export.divergence import LayerDifference, compare_files, first_diverging
from visionkit.export.probes import SIZES, rendered
from visionkit.export.verify import check_probes, layer_differences, read_described
from visionkit.runtime.tflite_file import read_model, text_of, write_model
from visionkit.runtime.tflite_trace import layers_of, trace_tflite
from visionkit.weights import load_card
from visionkit.weights.artifact import attach, describe_artifact, model_bytes

BENT = "layer2.0.conv1"


@pytest.fixture(scope="module")
def served(card: Path) -> Path:
    path = card.parent / "served"
    export_model(card, path, format="savedmodel")
    return path


@pytest.fixture(scope="module")
def bent(exported: Path) -> Path:
    """The same with one layer's kernel another, and a description that hides it: probes of before, a new sha256."""
    path = exported.with_name("bent.tflite")
    model = read_model(model_bytes(exported))
    kernels = [
        (tensor, model.buffers[tensor.buffer])
        for graph in model.subgraphs
        for tensor in graph.tensors
        if BENT in text_of(tensor.name) and len(tensor.shape) == 4 and model.buffers[tensor.buffer].data is not None
    ]
    assert kernels, "no kernel of that name is in the file"
    for buffer in {id(buffer): buffer for _, buffer in kernels}.values():
        values = np.frombuffer(np.asarray(buffer.data, np.uint8).tobytes(), np.float32)
        buffer.data = np.frombuffer((-values).astype(np.float32).tobytes(), np.uint8)
    path.write_bytes(write_model(model))
    artifact = read_described(exported)
    probes = artifact.probes()
    told = describe_artifact(
        artifact.card, kind=artifact.kind, parts=artifact.parts, probes=probes, made=dict(artifact.made)
    )
    attach(path, told, probes)
    return path


@pytest.fixture(scope="module")
def photos(card: Path) -> Path:
    folder = card.parent / "photos"
    folder.mkdir()
    random = np.random.default_rng(2)
    for k in range(5):
        coarse = random.integers(0, 256, (6, 9, 3), np.uint8)
        cv2.imwrite(str(folder / f"{k}.png"), cv2.resize(coarse, (90, 60), interpolation=cv2.INTER_CUBIC))
    return folder


@dataclass(frozen=True)
class Result:
    exit_code: int
    stdout: str
    stderr: str


def run(*arguments: object) -> Result:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = shell(["verify", *map(str, arguments)])
    return Result(code, out.getvalue(), err.getvalue())


def test_an_artifact_answers_as_when_it_was_made(exported: Path) -> None:
    rows = check_probes(read_described(exported))
    assert {(row.signature, row.output, row.probes) for row in rows} == {
        ("serving_default", "probabilities", 2),
        ("raw", "logits", 1),
        ("embed", "embedding", 1),
    }
    assert all(row.ok and row.apart < 1e-5 for row in rows)


@pytest.mark.parametrize("kind", ["savedmodel", "keras", "onnx"])
def test_every_format_is_asked_in_its_own_runtime(card: Path, kind: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue("served") if kind == "savedmodel" else card.parent / f"m.{kind}"
    if kind != "savedmodel":
        export_model(card, path, format=kind)
    rows = check_probes(read_described(path))
    assert rows
    assert all(row.ok for row in rows)


def test_a_changed_kernel_is_found_by_its_probes_and_by_its_layer(bent: Path, card: Path, exported: Path) -> None:
    artifact = read_described(bent)
    assert {row.output for row in check_probes(artifact) if not row.ok} == {"probabilities", "logits", "embedding"}
    for against in (load_card(card), read_described(exported)):
        (rows,) = layer_differences(artifact, against).values()
        first = first_diverging(rows)
        assert first is not None
        assert first.layer in (BENT, BENT.replace("conv1", "bn1"), BENT.replace("conv1", "bn1.relu"))
        before = [row for row in rows if row.layer.startswith(("conv1", "layer1"))]
        assert before
        assert max(row.error for row in before) < 1e-5
    (same,) = layer_differences(read_described(exported), load_card(card)).values()
    assert first_diverging(same) is None
    assert same[-1].layer == "logits"


def test_the_command_tells_and_fails(bent: Path, exported: Path, card: Path, photos: Path) -> None:
    good = run(exported, "--against", card, "--source", photos, "--min-agreement", 0.99)
    assert good.exit_code == 0, good.stderr
    assert "100.00% the same class, 5 frames" in good.stdout
    assert "no layer of" in good.stdout
    bad = run(bent, "--against", card, "--source", photos, "--layers", 2)
    assert bad.exit_code == 5
    assert "error[verify-failed]" in bad.stderr
    assert "DIFFERS" in bad.stdout
    assert BENT.split(".conv")[0] in bad.stdout


def test_little_agreement_fails_where_that_is_asked(bent: Path, exported: Path, card: Path, photos: Path) -> None:
    given = run(exported, "--against", bent, "--source", photos, "--json")
    assert given.exit_code == 0, given.stderr
    told = json.loads(given.stdout)
    assert told["agreement"]["frames"] == 5
    assert all(row["ok"] for row in told["probes"])
    assert BENT.split(".conv")[0] in told["layers"]["raw"]["first_diverging"]
    apart = told["agreement"]["score"]
    if apart < 1:
        asked = run(exported, "--against", bent, "--source", photos, "--min-agreement", 1)
        assert asked.exit_code == 5
        assert "--min-agreement" in asked.stderr
    assert told["agreement"]["means"]["confidence_apart"] > 1e-3


def test_what_cannot_be_verified_is_told(exported: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.tflite"
    plain.write_bytes(model_bytes(exported))
    assert "error[not-an-artifact]" in run(plain).stderr
    assert "error[against-needed]" in run(exported, "--source", tmp_path).stderr
    cut = tmp_path / "cut.tflite"
    shutil.copy(exported, cut)
    content = bytearray(cut.read_bytes())
    content[len(model_bytes(exported)) // 2] ^= 0x40  # a bit of a weight
    cut.write_bytes(content)
    assert "error[hash-mismatch]" in run(cut).stderr


def test_a_saved_model_wants_trust(served: Path) -> None:
    refused = run(served)
    assert refused.exit_code == 5
    assert "error[model-unsafe]" in refused.stderr
    assert run(served, "--trust-model").exit_code == 0


def test_a_rendered_probe_has_edges_and_noise_and_weighs_little() -> None:
    for size_hw in SIZES:
        picture = rendered(*size_hw)
        assert picture.shape == (*size_hw, 3)
        assert (np.abs(np.diff(picture[..., 2].astype(int), axis=1)) > 100).any()
        assert len(np.unique(picture)) > 200
        assert len(zlib.compress(picture.tobytes())) < 0.1 * picture.nbytes  # with noise in every pixel 0.9
        assert np.array_equal(picture, rendered(*size_hw))


def test_layers_in_a_tensors_name() -> None:
    assert layers_of("net_1/bn1.relu_1/Relu;net_1/bn1_1/batchnorm/add_1;net_1/conv1_1/convolution") == (
        "bn1.relu",
        "bn1",
        "conv1",
    )
    assert layers_of("StatefulPartitionedCall:0") == ()


def test_the_first_diverging_layer_is_one_that_stays_off() -> None:
    def row(name: str, error: float, integer: bool = False) -> LayerDifference:
        return LayerDifference(name, "CONV_2D", error, error, integer)

    cancelling = [row("a", 0), row("cancels", 0.5), row("b", 1e-6)]
    assert first_diverging(cancelling) is None
    parted = [row("a", 0), row("c", 0.01), row("beside", 1e-6), row("d", 0.3)]
    assert first_diverging(parted) == parted[1]
    assert first_diverging([row("a", 0), row("last", 0.01)]) == row("last", 0.01)
    assert first_diverging([row("a", 0.1, integer=True)]) is None  # 8 bits may be as far off as that
    assert first_diverging([]) is None


def test_a_file_is_traced_by_its_signature(exported: Path) -> None:
    content = model_bytes(exported)
    inputs = {"image": np.random.default_rng(0).standard_normal((1, 40, 56, 3)).astype(np.float32)}
    steps = trace_tflite(content, inputs, "raw")
    assert [step.kind for step in steps if "CONV" in step.kind]
    assert all(np.isfinite(step.value).all() for step in steps)
    assert first_diverging(compare_files(content, content, inputs, "raw")) is None
    with pytest.raises(ModelError, match="name one"):
        trace_tflite(content, inputs)
    with pytest.raises(ModelError, match="takes image"):
        trace_tflite(content, {"picture": inputs["image"]}, "raw")
