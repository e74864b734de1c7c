"""`visionkit inspect` of exported models: what they say of themselves, and that it is a stranger's word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from visionkit import __version__
from visionkit.cli.shell import run
from visionkit.weights.artifact import attach, describe_artifact
from visionkit.weights.card_file import parse_card

CARD = {
    "task": "detect",
    "network": "ssd",
    "licence": "Apache-2.0",
    "summary": "Cells",
    "labels": [f"kind{number}" for number in range(11)],
    "input": {"size_hw": [32, 48], "resize": "letterbox", "preset": "tf"},
    "options": {"conf": 0.3},
}
MADE = {
    "source": "cells",
    "source_sha256": "ab" * 32,
    "signatures": {"raw": ["image: float32 (1, 32, 48, 3)"]},
    "checked": {"raw": {"logits": 2e-6}, "serving_default": {"boxes": 3e-7}},
    "tolerances": {"boxes": 1e-4},
    "versions": {"keras": "3.15.1"},
    "runtime": "keras 3.15.1",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "cells.keras"
    image = keras.Input((32, 48, 3), name="image")
    keras.Model(image, keras.layers.Conv2D(2, 3, name="logits")(image)).save(path)
    return path


def described(path: Path, made: dict[str, Any], **card: Any) -> Path:
    probes = {"image_0": np.zeros((4, 5, 3), np.uint8)}
    told = describe_artifact(parse_card({**CARD, **card}, path.parent), kind="int8", probes=probes, made=made)
    attach(path, {**told, "name": "cells"}, probes)
    return path


def told(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = run(["inspect", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def copy(plain: Path, folder: Path, name: str = "m.keras") -> Path:
    path = folder / name
    path.write_bytes(plain.read_bytes())
    return path


def test_it_stands_before_the_layers(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capsys, described(copy(plain, tmp_path), MADE))
    before, _, table = out.partition("\n\n")
    rows = [tuple(part.strip() for part in line.split("  ", 1)) for line in before.splitlines()]
    assert code == 0
    assert rows[0] == ("described", "cells, a model to detect: Cells")
    assert ("format", "keras, int8") in rows
    assert ("labels", "11: kind0, kind1, kind2, kind3, kind4, kind5, kind6, kind7, … (3 more)") in rows
    assert ("input", "32 x 48 (height x width), letterbox, preset tf") in rows
    assert ("options", "conf 0.3") in rows
    assert ("checked", "raw: logits within 2e-06 of Keras") in rows
    assert ("checked", "serving_default: boxes within 3e-07 of Keras (at most 0.0001)") in rows
    assert ("made", f"by VisionKit {__version__} from cells, its sha256 abababababababa…") in rows
    assert table.startswith("LAYER ")


def test_json_holds_all_of_it(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = described(copy(plain, tmp_path), {**MADE, "quantization": {"engine": "x"}})
    code, out, _ = told(capsys, path, "--json")
    found = json.loads(out)
    assert code == 0
    assert [row["name"] for row in found["layers"]] == ["image", "logits"]
    artifact = found["artifact"]
    assert (artifact["task"], artifact["kind"], artifact["labels"]) == ("detect", "int8", CARD["labels"])
    assert artifact["checked"] == MADE["checked"]
    assert artifact["notes"] == {"quantization": {"engine": "x"}}
    assert len(artifact["sha256"]) == 64


def test_a_file_without_a_description_stays_as_it_was(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capsys, plain)
    assert (code, out.splitlines()[0].split()[0]) == (0, "LAYER")
    code, out, _ = told(capsys, plain, "--json")
    assert "artifact" not in json.loads(out)


def test_what_has_no_layers_here_tells_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An ONNX file and OpenVINO's; those of others are refused as before."""
    onnx, xml = tmp_path / "m.onnx", tmp_path / "m.xml"
    onnx.write_bytes(b"")
    xml.write_text("<net/>")
    for path, slug in ((onnx, "model-format"), (xml, "input-undecodable")):
        code, _, err = told(capsys, path)
        assert code != 0
        assert slug in err
        code, out, err = told(capsys, described(path, MADE))
        assert code == 0, err
        assert "a model to detect" in out
        assert out.endswith("loaded in safe mode\n")


def test_its_words_cannot_act(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b]0;owned\x07\u202eb\n" + "x" * 5000
    made = {**MADE, "source": evil, "versions": {evil: evil}, evil: [evil]}
    path = described(copy(plain, tmp_path), made, labels=[evil] * 3, summary=evil, licence=evil)
    code, out, err = told(capsys, path)
    before = out.partition("\n\n")[0]
    assert code == 0, err
    assert not {"\x1b", "\x07", "\u202e"} & set(out)
    assert max(map(len, before.splitlines())) < 1000
    assert "\\x1b]0;owned\\x07\\u202eb\\x0a" in out


@pytest.mark.parametrize(
    "made",
    [
        '{"tolerances": {"boxes": 1e999}}',
        '{"tolerances": {"boxes": 1' + "0" * 400 + "}}",
        '{"signatures": 5}',
        '{"checked": {"raw": [1]}}',
        '{"raw_tolerance": "wide"}',
        '{"x": ' + "[" * 900 + "]" * 900 + "}",
    ],
    ids=["infinite", "large", "no table", "no numbers", "a word", "deep"],
)
def test_a_description_that_fits_nothing_is_refused(
    made: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.xml"
    path.write_text("<net/>")
    told_ = {**describe_artifact(parse_card(CARD, tmp_path)), "name": "cells"}
    text = json.dumps({**told_, "made": "HERE"}).replace('"HERE"', made)
    path.with_name("m.visionkit.json").write_text(text)
    code, out, err = told(capsys, path, "--json")
    assert (code, out) == (5, "")
    assert err.startswith("visionkit: error[artifact-corrupt]: ")
