"""`visionkit quantize` on the command line: what it refuses before any work, what it tells, what lies there after."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from visionkit.cli.quantize import _lines, command
from visionkit.compress.judging import Judged
from visionkit.errors import VisionkitError


def refused(*arguments):
    """The error that the command ends with."""
    result = CliRunner().invoke(command, list(arguments))
    assert isinstance(result.exception, VisionkitError), result.output
    return result.exception


@pytest.fixture
def photos(tmp_path):
    import cv2
    import numpy as np

    for digit in range(10):
        (tmp_path / "photos" / str(digit)).mkdir(parents=True)
        image = np.full((40, 50, 3), 20 * digit, np.uint8)
        cv2.imwrite(str(tmp_path / "photos" / str(digit) / "a.png"), image)
    return tmp_path / "photos"


def test_the_kinds_are_listed():
    result = CliRunner().invoke(command, ["--kinds", "list"])  # neither a model nor data
    assert result.exit_code == 0
    kinds = [line.split()[0] for line in result.output.splitlines()[1:]]
    assert kinds[:5] == ["float16", "dynamic", "int8", "int8-io", "qat"]


def test_an_unknown_kind_names_the_known(photos):
    error = refused("sign_digits", "--data", str(photos), "--kinds", "int8,int3")
    assert error.slug == "kind-unknown"
    assert "int3" in error.message
    assert "float16" in error.message


def test_a_tracker_wants_sequences(photos):
    error = refused("siambox_light", "--data", str(photos))
    assert error.slug == "no-sequences"


def test_data_that_is_none(tmp_path):
    assert refused("sign_digits", "--data", str(tmp_path)).slug == "no-classes"


def test_a_folder_of_another_class(photos):
    (photos / "eleven").mkdir()
    (photos / "eleven" / "a.png").write_bytes((photos / "1" / "a.png").read_bytes())
    assert refused("sign_digits", "--data", str(photos)).slug == "unknown-class"


def test_an_output_that_is_there(photos, tmp_path):
    (tmp_path / "out").mkdir()
    error = refused("sign_digits", "--data", str(photos), "--out", str(tmp_path / "out"))
    assert error.slug == "exists"
    assert "--overwrite" in error.message


def test_a_clip_that_cannot_be_read(photos, tmp_path):
    error = refused(
        "sign_digits", "--data", str(photos), "--unlabelled", str(tmp_path / "none.mp4"), "--out", str(tmp_path / "o")
    )
    assert error.slug == "input-missing"
    assert not (tmp_path / "o").exists()


def test_what_is_told(tmp_path):
    from tests.compress.made_report import made_report

    report = made_report()
    lines = _lines(Judged(report, tmp_path, ()))
    shown = "\n".join(lines)
    assert lines[0].split()[:2] == ["VARIANT", "VERDICT"]
    assert lines[-2] == report.decision.sentence
    assert lines[-1] == str(tmp_path / "report.html")
    assert "don't" in shown
    assert "int8-io: it loses 4.2 points of top-1" in shown
    assert "int8: 2 operations stay in float" in shown


@pytest.mark.slow(reason="exports a network and quantizes it: half a minute")
def test_a_whole_run(photos, tmp_path):
    out = tmp_path / "deep" / "out"
    arguments = ["sign_digits", "--data", str(photos), "--kinds", "float16,int8", "--out", str(out), "--json"]
    result = CliRunner().invoke(command, [*arguments, "--rank", "2", "--samples", "8", "--max-drop", "100"])
    assert result.exit_code == 0, result.output
    table = json.loads(result.stdout)
    assert [one["kind"] for one in table["variants"]] == ["float16", "int8"]
    assert table["variants"][1]["size"] < 0.4 * table["reference"]["size"]
    assert len(table["layers"]) == 2
    assert sorted(path.name for path in out.iterdir()) == [
        "float16.tflite",
        "float32.tflite",
        "int8.tflite",
        "report.html",
        "verdict.json",
    ]
    stored = json.loads((out / "verdict.json").read_text())
    assert stored["sentence"] == table["sentence"]
    from visionkit.tasks import load_classifier

    assert load_classifier(out / "int8.tflite").labels == tuple("0123456789")
