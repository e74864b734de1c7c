"""What is told of files that cannot be verified, exported again or followed by."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.export.unsaturated import small_card
from visionkit.errors import ModelError, UsageError
from visionkit.export import export_model
from visionkit.export.verify import check_probes, read_described
from visionkit.tasks import load_tracker
from visionkit.weights import load_card
from visionkit.weights.artifact import attach, describe_artifact, model_bytes


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small_card(tmp_path_factory.mktemp("cards") / "tiny")[0].folder
    return export_model(folder, folder.parent / "tiny.tflite", format="litert").path


@pytest.mark.parametrize("content", [b"", b"hello\n" * 9, None], ids=["empty", "text", "cut"])
def test_a_damaged_file_is_told_as_damaged(exported: Path, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(model_bytes(exported)[:3000] if content is None else content)
    with pytest.raises(ModelError) as error:
        read_described(path)
    assert error.value.slug == "model-corrupt"


def test_whole_files_of_others_are_not_called_damaged(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(model_bytes(exported))
    with pytest.raises(ModelError) as error:
        read_described(path)
    assert error.value.slug == "not-an-artifact"


def test_an_exported_file_names_the_card_to_export(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="export the card that it was made from, 'tiny'"):
        export_model(exported, tmp_path / "net.onnx", format="onnx")


def test_trackers_of_one_graph_say_which_formats_do(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08\x08")  # of a graph that is not looked at: version 8
    attach(path, describe_artifact(load_card("siambox_light"), parts={}))
    with pytest.raises(ModelError, match="--format litert` or savedmodel"):
        check_probes(read_described(path))
    with pytest.raises(ModelError, match=r"one graph, as onnx has them.*litert or savedmodel"):
        load_tracker(path)


@pytest.mark.skipif(importlib.util.find_spec("jax") is not None, reason="jax is installed here")
def test_a_backend_that_is_absent_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "visionkit", "export", "sign_digits", "--format", "keras"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "net.keras")],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "error[package-missing]" in done.stderr
    assert "KERAS_BACKEND=tensorflow" in done.stderr
