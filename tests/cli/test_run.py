"""`visionkit run`: recipes over one source and several, what goes before what, what is refused."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from visionkit.cli.shell import run
from visionkit.errors import ModelError
from visionkit.io import VideoWriter
from visionkit.pipeline import step_detect

SIZE_HW, COUNT = (40, 60), 10
# Needs no model, and so no time.
STRAIGHT = '[[stage]]\nuse = "rectify"\ncorners = [[5, 5], [50, 8], [48, 35], [4, 30]]\nsize = 16\n'


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with a recipe, a clip and two images."""
    monkeypatch.chdir(tmp_path)
    Path("a.toml").write_text(STRAIGHT)
    with VideoWriter("clip.mp4", size_hw=SIZE_HW, fps=25) as writer:
        for index in range(COUNT):
            writer.write(np.full((*SIZE_HW, 3), 20 * index, np.uint8), 40.0 * index, 40.0)
    for name in ("one", "two"):
        cv2.imwrite(f"{name}.png", np.full((*SIZE_HW, 3), 90, np.uint8))
    return tmp_path


def rows_of(folder: str) -> list[dict]:
    return [json.loads(line) for line in Path(folder, "results.jsonl").read_text().splitlines()]


def test_the_default_folder_is_named_by_the_recipe(here, capsys):
    assert run(["run", "a.toml", "clip.mp4"]) == 0
    assert run(["run", "a.toml", "clip.mp4"]) == 0
    assert sorted(path.name for path in Path("runs/a").iterdir()) == ["clip.mp4", "clip.mp4-2"]
    told = capsys.readouterr().err
    assert "10 frames in" in told
    assert "crops of 16 x 16" in told
    assert len(rows_of("runs/a/clip.mp4")) == COUNT


def test_what_is_typed_goes_before_the_recipe(here):
    ends = '[source]\nstart = 0.1\nend = 0.3\nvid_stride = 2\n[output]\nout = "mine"\nvideo = false\n'
    Path("b.toml").write_text(STRAIGHT + ends)
    assert run(["run", "b.toml", "clip.mp4"]) == 0
    assert [row["index"] for row in rows_of("mine")] == [3, 5, 7]
    assert not list(Path("mine").glob("annotated*"))
    assert run(["run", "b.toml", "clip.mp4", "--end", "0.2", "--vid-stride", "1", "--out", "x", "--save-video"]) == 0
    assert [row["index"] for row in rows_of("x")] == [3, 4]
    assert Path("x/annotated.mp4").is_file()
    assert run(["run", "b.toml", "clip.mp4"]) == 6  # the recipe's folder is taken
    assert run(["run", "b.toml", "clip.mp4", "--overwrite"]) == 0


def test_several_sources_have_a_folder_each_and_go_on_behind_one_that_fails(here, capsys):
    Path("sub").mkdir()
    Path("sub/one.png").write_bytes(Path("one.png").read_bytes())
    sources = ["one.png", "none.png", "sub/one.png", "clip.mp4"]
    assert run(["run", "a.toml", *sources, "--out", "week"]) == 3
    assert sorted(path.name for path in Path("week").iterdir()) == ["clip.mp4", "one.png", "one.png-2"]
    told = capsys.readouterr().err
    assert told.count("visionkit: error[input-missing]: none.png") == 1
    assert [line for line in told.splitlines() if line.endswith(":")] == [f"{name}:" for name in sources]
    assert run(["run", "a.toml", "one.png", "two.png"]) == 0
    assert sorted(path.name for path in Path("runs/a").iterdir()) == ["one.png", "two.png"]


def test_rows_of_several_sources_on_stdout(here, capfdbinary):
    assert run(["run", "a.toml", "one.png", "two.png", "--out", "-"]) == 0
    rows = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    found = [(row["source"], row["rectified"]["size_hw"]) for row in rows]
    assert found == [("one.png", [16, 16]), ("two.png", [16, 16])]
    assert sorted(path.name for path in here.iterdir()) == ["a.toml", "clip.mp4", "one.png", "two.png"]


def test_a_recipe_from_stdin(here, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(STRAIGHT.encode())))
    assert run(["run", "-", "one.png", "--set", "rectify.size=8,9"]) == 0
    told = json.loads(Path("runs/recipe/one.png/run.json").read_text())
    assert told["recipe"]["name"] == "recipe"
    assert told["recipe"]["stages"][0]["size"] == [8, 9]
    assert told["settings"]["rectify"]["size_hw"] == [8, 9]


def test_only_the_user_vouches_for_a_model_file(here, monkeypatch, capsys):
    Path("b.toml").write_text('[[stage]]\nuse = "detect"\nmodel = "mine.tflite"\n')
    seen = []

    def load(options, telling=None):
        seen.append((options["model"], options["trust_model"]))
        raise ModelError("model-unsafe", "made to fail")

    monkeypatch.setattr(step_detect, "detector_of", load)
    assert run(["run", "b.toml", "one.png"]) == 5
    assert run(["run", "b.toml", "one.png", "--trust-model"]) == 5
    assert run(["run", "b.toml", "one.png", "--set", "detect.model=other.tflite"]) == 5
    assert seen == [(str(here / "mine.tflite"), False), (str(here / "mine.tflite"), True), ("other.tflite", False)]
    assert run(["run", "b.toml", "one.png", "--set", "detect.trust_model=true"]) == 2
    assert "A recipe cannot vouch for a model file: give --trust-model" in capsys.readouterr().err


def test_the_list_tells_what_each_recipe_does(here, capsys):
    assert run(["run", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["recipe", "stages", "what", "it", "does"]
    assert any(line.startswith("straighten-and-read  segment, regions, rectify, classify  ") for line in lines)


@pytest.mark.parametrize(
    ("args", "slug", "words"),
    [
        ([], "usage", "visionkit run RECIPE SOURCE"),
        (["a.toml"], "usage", "visionkit run RECIPE SOURCE"),
        (["a.toml", "rtsp://u:p@camera/"], "source-unsupported", "SOURCE is a rtsp:// address"),
        (["a.toml", "one.png", "0"], "source-unsupported", "a camera's number"),
        (["a.toml", "one.png", "--set", "size=3"], "setting-unknown", "expected STAGE.KEY=VALUE. Received: 'size'."),
        (["a.toml", "one.png", "--set", "rectify.size"], "setting-unknown", "expected STAGE.KEY=VALUE."),
        (["a.toml", "one.png", "--set", "rectfy.size=3"], "setting-unknown", "Did you mean `rectify`?"),
        (["a.toml", "one.png", "--set", "2.size=3"], "setting-unknown", "Received: '2.size'."),
        (["a.toml", "one.png", "--set", "rectify.sise=3"], "setting-unknown", "Did you mean `size`?"),
        (["a.toml", "one.png", "--set", "rectify.size=-3"], "setting-invalid", "it must be a positive whole number"),
        (["a.toml", "one.png", "--set", "rectify.size="], "setting-invalid", "it must be a positive whole number"),
        (["a.toml", "one.png", "--set", "rectify.antialias=yes"], "setting-invalid", "true or false. Received: 'yes'."),
        (["a.toml", "one.png", "--format", "csv"], "format-unfit", "--format csv is for objects"),
        (["cells", "one.png", "two.png", "--out", "-"], "format-unfit", "writes one format of lines"),
        (["cells", "one.png", "two.png", "--out", "-", "--format", "csv"], "format-unfit", "of several sources"),
        (["skin", "one.png", "--format", "coco"], "format-unfit", "which no stage of this recipe finds"),
        (["skin", "one.png", "--set", "1.save_uncertain=2", "--out", "-"], "folder-needed", "Name a folder."),
        (["a.toml", "one.png", "--set", "rectify.corners=[500,0,600,0,600,50,500,50]"], "corners-outside", "60 wide"),
    ],
    ids=range(18),
)
def test_what_cannot_be_meant_is_told_in_one_line(here, capsys, args, slug, words):
    assert run(["run", *args]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith(f"visionkit: error[{slug}]: ")
    assert words in told
    assert told.count("\n") == 0
    assert not list(here.rglob("results.jsonl"))


def test_settings_that_do_not_go_together_are_the_recipe_s_mistake(here, capsys):
    assert run(["run", "a.toml", "one.png", "--set", "rectify.margin=0.5"]) == 8
    assert "a.toml: stage 1 (rectify): `margin` is about boxes: give `boxes` with it." in capsys.readouterr().err
