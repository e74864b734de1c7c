"""The bundled model on the fifth of its folder that it has never seen, through the command of its card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from visionkit.cli.shell import run
from visionkit.resources import models_dir
from visionkit.weights import load_card


def test_the_held_back_fifth_is_recognised(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, split = shared / "data" / "classification" / "sign_digits", models_dir() / "sign_digits" / "split.json"
    command = ["eval", "classify", "--model", "sign_digits", "--data", str(data), "--split", str(split)]
    assert run([*command, "--part", "test", "--runtime", "keras", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["images"] == 240
    assert table["top1"] >= 0.97
    assert table["top1"] == pytest.approx(load_card("sign_digits").metrics[0].value, abs=0.005)


def test_the_split_holds_back_a_fifth_of_every_class_and_the_weights_are_small() -> None:
    folder = models_dir() / "sign_digits"
    split = json.loads((folder / "split.json").read_text())
    for label in load_card("sign_digits").labels:
        counts = [sum(name.startswith(f"{label}/") for name in split[part]) for part in ("train", "val", "test")]
        assert counts == [77, 19, 24]
    assert not set(split["test"]) & {*split["train"], *split["val"]}
    assert (folder / "sign_digits.weights.h5").stat().st_size <= 3_000_000
