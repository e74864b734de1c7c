"""`visionkit verify` of detectors, whose answers are compared box by box."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tasks.made_detect import write_detect_card
from visionkit.cli.shell import run as shell
from visionkit.export import export_model
from visionkit.export.verify import check_probes, read_described


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detect_card(tmp_path_factory.mktemp("cards") / "tiny", size_hw=(96, 128))


@pytest.fixture(scope="module")
def made(card: Path) -> Callable[[str], Path]:
    """It in a format, written when it is first asked for."""

    def export(kind: str) -> Path:
        path = card.parent / f"net.{'tflite' if kind == 'litert' else kind}"
        export_model(card, path, format=kind)
        return path

    return functools.cache(export)


# of the others test_verify.py asks a classifier at each run
@pytest.mark.parametrize(
    "kind", ["litert", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("keras", "onnx"))]
)
def test_a_detector_answers_its_probes(made: Callable[[str], Path], kind: str) -> None:
    path = made(kind)
    rows = check_probes(read_described(path))
    assert [row for row in rows if not row.ok] == []
    assert dict(read_described(path).card.options) == {"conf": 0.25, "max_det": 300}  # the task's, as the card has none
    named = {"boxes", "xyxy", "scores", "classes", "num_detections"}
    assert {row.output for row in rows} >= ({"0", "1"} if kind == "keras" else named)


def test_a_model_of_another_task_is_refused(made: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert shell(["verify", str(made("litert")), "--against", "sign_digits"]) == 2
    assert "error[against-unfit]" in capsys.readouterr().err
