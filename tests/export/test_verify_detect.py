"""`visionkit verify` of detectors, whose answers are compared box by box."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tasks.made_detect import write_detect_card
from visionkit.cli.shell import run as shell
from visionkit.export import export_model
from visionkit.export.verify import check_probes, read_described


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detect_card(tmp_path_factory.mktemp("cards") / "tiny", size_hw=(96, 128))


@pytest.mark.parametrize(("kind", "suffix"), [("litert", ".tflite"), ("keras", ".keras"), ("onnx", ".onnx")])
def test_a_detector_answers_its_probes(card: Path, tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"net{suffix}"
    export_model(card, path, format=kind)
    rows = check_probes(read_described(path))
    assert [row for row in rows if not row.ok] == []
    assert dict(read_described(path).card.options) == {"conf": 0.25, "max_det": 300}  # the task's, as the card has none
    named = {"boxes", "xyxy", "scores", "classes", "num_detections"}
    assert {row.output for row in rows} >= ({"0", "1"} if kind == "keras" else named)


def test_a_model_of_another_task_is_refused(card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.tflite"
    export_model(card, path, format="litert")
    assert shell(["verify", str(path), "--against", "sign_digits"]) == 2
    assert "error[against-unfit]" in capsys.readouterr().err
