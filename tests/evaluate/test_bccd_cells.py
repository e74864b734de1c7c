"""The bundled detector on the part of its data that it has never seen, through the command of its card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from visionkit.cli.shell import run
from visionkit.resources import models_dir
from visionkit.weights import load_card


def test_the_weights_are_small() -> None:
    assert (models_dir() / "bccd_cells" / "bccd_cells.weights.h5").stat().st_size <= 5_000_000


def test_the_test_list_gives_what_the_card_says(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = shared / "data" / "detection" / "bccd"
    command = ["eval", "detect", "--model", "bccd_cells", "--data", str(data), "--part", "test", "--no-coco"]
    assert run([*command, "--runtime", "litert", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["images"] == 72
    assert table["map50"] >= 0.85
    says = {metric.name: metric.value for metric in load_card("bccd_cells").metrics}
    found = {"mAP50": table["map50"]} | {f"AP50 {one['class_name']}": one["ap50"] for one in table["classes"]}
    assert found == pytest.approx(says, abs=0.005)
