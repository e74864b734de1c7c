"""Rows H1 to H5 and T9 of the fault matrix, as far as TOML can express them: recipes that are hostile or mistyped."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from visionkit.cli.shell import run
from visionkit.errors import RecipeError
from visionkit.pipeline.recipe_file import load_recipe

GOOD = '[[stage]]\nuse = "detect"\nmodel = "bccd_cells"\n'
LIMIT_S = 2.0


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working folder with an image, beside it what no recipe may reach."""
    (tmp_path / "secret.txt").write_text("a\nb\n")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "card.toml").write_text("")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    cv2.imwrite("photo.png", np.full((40, 60, 3), 120, np.uint8))
    return folder


def refused(capsys, text: str | bytes, code: int = 8, *args: str) -> str:
    """Run a recipe that must be refused: its one line on stderr; nothing else is left, and it takes no time."""
    Path("bad.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    before = sorted(path.name for path in Path().iterdir())
    begin = time.process_time()
    assert run(["run", "bad.toml", "photo.png", *args]) == code
    assert time.process_time() - begin < LIMIT_S
    assert sorted(path.name for path in Path().iterdir()) == before
    out, told = capsys.readouterr()
    assert not out
    assert told.startswith("visionkit: error[")
    assert told.count("\n") == 1
    assert len(told) < 1000
    return told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[stage]\n", "bad.toml is not TOML: Expected ']]' at the end of an array declaration (at line 1, column 8)"),
        ('[[stage]]\nuse = "detect"\nuse = "detect"\n', "Cannot overwrite a value (at line 3, column 15)"),
        ("x = " + "[" * 5000 + "]" * 5000, "bad.toml is not TOML: nested too deeply"),
        ("x = " + "{a=" * 3900 + "1" + "}" * 3900, "bad.toml is not TOML: nested too deeply"),
        (".".join(["a"] * 7_800) + " = 1\n", "the recipe, line 1: unknown key `a`"),
        (GOOD + "conf = " + "[" * 300 + "]" * 300, "stage 1 (detect), line 4: `conf` must be a number from 0 to 1."),
        (GOOD + "conf." + ".".join(["a"] * 7_800) + " = 1\n", "`conf` must be a number from 0 to 1."),
        ('summary = "tab\there\x01"\n', "Illegal character '\\x01' (at line 1, column 20)"),
        ('summary = "a\0b"\n', "Illegal character '\\x00' (at line 1"),
        (b'# one\n# two\nsummary = "\xff\xfe"\n', "bad.toml, line 3: not UTF-8, the encoding of TOML."),
        ((GOOD + "# ä\n").encode("utf-16"), "bad.toml, line 1: not UTF-8"),
        (b"\0" * 100, "bad.toml is not TOML: Invalid statement (at line 1, column 1)."),
        ("", "bad.toml: the recipe: it must have stages, each headed [[stage]]."),
        ("stage = 3\n", "it must have stages, each headed [[stage]]. Received: 3."),
        ("[stage]\nuse = 1\n", "it must have stages, each headed [[stage]]. Received: {'use': 1}."),
        ("stage = [1]\n", "stage 1: it must be a table headed [[stage]]. Received: 1."),
        ("!!python/object/apply:os.system ['touch canary']\n", "bad.toml is not TOML: Invalid statement (at line 1"),
        ("conf = 9" + "9" * 5000, "bad.toml is not TOML"),
    ],
    ids=range(18),
)
def test_h1_what_is_no_recipe(here, capsys, text, words):
    told = refused(capsys, text)
    assert told.startswith("visionkit: error[recipe-invalid]: ")
    assert words in told
    assert not Path("canary").exists()


def test_h1_ten_megabytes(here, capsys):
    told = refused(capsys, "# " + "x" * 10_000_000)
    assert "bad.toml has more than 16000 bytes, which no recipe needs." in told


@pytest.mark.parametrize(
    "text",
    [
        "a = [" + "1," * 7_900 + "]",
        "".join(f"[a{i}]\n" for i in range(2000)),
        "".join(f"[[stage]]\nuse='x{i}'\n" for i in range(700)),
        "".join(f"{'a.' * 200}b{i} = 1\n" for i in range(38)),
        "x = '''" + "\n" * 15_900,
        "[[stage]]\n" * 1500,
        '"' + "\\u0041" * 2600 + '" = 1',
    ],
    ids=range(7),
)
def test_h1_the_largest_allowed_takes_no_time(here, capsys, text):
    assert len(text) <= 16_000
    refused(capsys, text)


def test_h1_tabs_and_spaces_are_alike(here):
    Path("tabs.toml").write_text(GOOD.replace(" = ", "\t=\t").replace("\n", "\t\n"))
    assert load_recipe("tabs.toml").stages == load_recipe_of(GOOD).stages


def load_recipe_of(text: str, name: str = "good.toml"):
    Path(name).write_text(text)
    return load_recipe(name)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('modle = "x"\n', "bad.toml: stage 1 (detect), line 4: unknown key `modle`. Did you mean `model`?"),
        ("zzz = 1\n", "stage 1 (detect), line 4: unknown key `zzz`. Known: model, runtime, precision,"),
        ('[outptu]\nout = "x"\n', "the recipe: unknown key `outptu`. Did you mean `output`?"),
        ("[output]\nformats = 1\n", "[output], line 5: unknown key `formats`. Did you mean `format`?"),
        ("[source]\nstart = -1\n", "[source], line 5: `start` must be a number of at least 0. Received: -1."),
        ("[output]\nvideo = 'no'\n", "[output], line 5: `video` must be true or false. Received: 'no'."),
        ("[[stage]]\n", "stage 2, line 4: it lacks the key `use`, one of detect, segment, regions"),
        ('[[stage]]\nuse = "clasify"\n', "stage 2, line 5: `use` must be one of"),
        ('[[stage]]\nuse = "clasify"\n', "Received: 'clasify'. Did you mean `classify`?"),
        ("[[stage]]\nuse = 3\n", "Received: 3."),
        ("track = NO\n", "Invalid value (at line 4, column 9)"),
        ("max_det = 010\n", "(at line 4, column 12)"),
        ("max_det = 1e3\n", "line 4: `max_det` must be a whole number of at least 1. Received: 1000.0."),
        ("max_det = true\n", "`max_det` must be a whole number of at least 1. Received: True."),
        ("max_det = 9" + "9" * 60 + "\n", "`max_det` must be a whole number of at least 1. Received: 999"),
        ("conf = nan\n", "`conf` must be a number from 0 to 1. Received: nan."),
        ("conf = inf\n", "`conf` must be a number from 0 to 1. Received: inf."),
        ('conf = "0.5"\n', "`conf` must be a number from 0 to 1. Received: '0.5'."),
        ("conf = 2021-01-01\n", "`conf` must be a number from 0 to 1. Received: datetime.date(2021, 1, 1)."),
        ("imgsz = [1, 2, 3]\n", "`imgsz` must be a positive whole number, or height and width as [240, 320]."),
        ("classes = []\n", "`classes` must be names or ids of classes"),
        ("lines = [[1, 2, 3]]\n", "`lines` must be 2 points in pixels"),
        ("lines = [1, 2, 3, 4]\n", "`lines` must be a list of shapes, such as [[0, 300, 768, 300]]."),
        ("model = 3\n".replace("model", "weights"), "`weights` must be a string with something in it. Received: 3."),
        ("trust_model = true\n", "`trust_model` is no key. A recipe cannot vouch for a model file: give --trust-model"),
        ("[output]\noverwrite = true\n", "`overwrite` is no key. A recipe cannot replace results: give --overwrite"),
    ],
)
def test_h2_what_does_not_fit_is_told_with_its_place(here, capsys, more, words):
    assert words in refused(capsys, GOOD + more)


@pytest.mark.parametrize(
    ("text", "slug", "words"),
    [
        (GOOD + "lines = [[0, 5, 9, 5]]\n", "track-needed", "bad.toml: stage 1 (detect): `line` counts objects"),
        (GOOD + "track = true\nlines = [[5, 5, 5, 5]]\n", "line-too-short", "stage 1 (detect)"),
        (GOOD + GOOD, "recipe-invalid", "stage 2 (detect): there is one before it"),
        ('[[stage]]\nuse = "track"\n', "no-box", "stage 1 (track): it needs the object in the first frame: `box`"),
        ('[[stage]]\nuse = "regions"\n', "recipe-invalid", "stage 1 (regions): it needs a stage `segment` before it."),
        ('[[stage]]\nuse = "rectify"\n', "no-region", "stage 1 (rectify): The region comes from `corners`"),
        ('[[stage]]\nuse = "rectify"\nboxes = true\nsize = 9\n', "recipe-invalid", "a stage `detect` or `regions`"),
        (GOOD + '[[stage]]\nuse = "rectify"\nboxes = true\n', "no-size", "need the `size` of their crops"),
        ('[[stage]]\nuse = "classify"\nof = "crops"\n', "recipe-invalid", "it needs a stage `rectify` before it."),
        ('[[stage]]\nuse = "dense"\nimgsz = [9, 8]\n', "option-unfit", "`imgsz` is one number"),
        ('[[stage]]\nuse = "segment"\n[[stage]]\nuse = "regions"\n' + GOOD, "recipe-invalid", "`regions` before it"),
        ('[[stage]]\nuse = "segment"\ncrf_iterations = 2\n', "crf-needed", "`crf_iterations` is about the CRF"),
    ],
)
def test_h2_stages_that_do_not_go_together(here, capsys, text, slug, words):
    told = refused(capsys, text)
    assert told.startswith(f"visionkit: error[{slug}]: bad.toml: ")
    assert words in told


@pytest.mark.parametrize(
    ("text", "slug", "words"),
    [
        (GOOD + 'labels = "names.txt"\n', "option-unfit", "bad.toml: stage 1 (detect): `labels` does not go with this"),
        (GOOD + 'classes = ["zebra"]\n', "class-unknown", "bad.toml: stage 1 (detect): "),
        ('[[stage]]\nuse = "segment"\nmodel = "skin"\npreset = "tf"\n', "option-unfit", "stage 1 (segment): `preset` "),
    ],
)
def test_h2_options_that_a_model_does_not_have(here, capsys, text, slug, words):
    told = refused(capsys, text)
    assert told.startswith(f"visionkit: error[{slug}]: ")
    assert words in told


@pytest.mark.parametrize(
    "path",
    [
        *("../secret.txt", "../secret", "a/../../secret", "/etc/passwd", "link", "link/card.toml", "deep/link", "~/x"),
        *("$HOME/x", "${HOME}", "%HOME%", "https://example.org/x.tflite", "file:///etc/passwd", "C:\\x", "s3://a/b"),
        *("..", ".//..", "\\\\server/../../secret"),
    ],
)
@pytest.mark.parametrize("key", ["model", "weights", "labels", "out"])
def test_h3_paths_stay_inside(here, capsys, path, key):
    Path("link").symlink_to("../secret")
    Path("deep").mkdir()
    Path("deep/link").symlink_to(Path("../../secret").absolute())
    head = "[output]\n" if key == "out" else '[[stage]]\nuse = "detect"\n'
    tail = GOOD if key == "out" else ""
    told = refused(capsys, f"{head}{key} = '{path}'\n{tail}")
    assert told.startswith("visionkit: error[path-outside]: bad.toml: ")
    assert f"`{key}` = " in told
    assert ", line " in told


def test_h3_outside_only_where_the_user_allows_it(here, capsys):
    text = '[[stage]]\nuse = "detect"\nmodel = "../secret"\n'
    assert "card.toml" in refused(capsys, text, 8, "--allow-outside")  # read, and no card
    assert "address" in refused(capsys, text.replace("../secret", "https://example.org/a"), 8, "--allow-outside")
    inside = load_recipe_of('[[stage]]\nuse = "detect"\nlabels = "names/../names.txt"\n')
    assert inside.stages[0].given["labels"] == str(here / "names.txt")


def test_h3_paths_are_relative_to_the_recipe_and_not_to_where_one_stands(here, tmp_path, monkeypatch):
    Path("sub").mkdir()
    Path("sub/mine").mkdir()
    found = load_recipe_of('[[stage]]\nuse = "detect"\nmodel = "mine"\nlabels = "names.txt"\n', "sub/a.toml")
    assert found.stages[0].given == {"model": str(here / "sub/mine"), "labels": str(here / "sub/names.txt")}
    monkeypatch.chdir(tmp_path)
    assert load_recipe("here/sub/a.toml").stages == found.stages


@pytest.mark.parametrize("change", [lambda t: t, lambda t: b"\xef\xbb\xbf" + t, lambda t: t.replace(b"\n", b"\r\n")])
@pytest.mark.parametrize("way", ["file", "stdin"])
def test_h4_bom_crlf_and_stdin_work(here, monkeypatch, change, way):
    data = change(GOOD.encode() + b'labels = "names.txt"\n')
    Path("a.toml").write_bytes(data)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    found = load_recipe("a.toml" if way == "file" else "-")
    assert found.stages[0].given == {"model": "bccd_cells", "labels": str(here / "names.txt")}
    assert found.name == ("a" if way == "file" else "recipe")


def test_h4_crlf_keeps_lines(here, capsys):
    assert "line 4: unknown key `x`" in refused(capsys, (GOOD + "x = 1\n").replace("\n", "\r\n"))


def test_h4_stdin_that_is_closed_or_endless(here, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(RecipeError, match="stdin is closed"):
        load_recipe("-")
    with Path("/dev/zero").open() as endless:
        monkeypatch.setattr(sys, "stdin", endless)
        with pytest.raises(RecipeError, match="more than 16000 bytes"):
            load_recipe("-")


@pytest.mark.parametrize("out", ["recipe", "folder of the recipe", "input", "model", "weights"])
def test_h5_no_output_replaces_what_is_read(here, capsys, out):
    Path("mine").mkdir()
    Path("mine/card.toml").write_text("")
    Path("a.weights.h5").write_text("")
    Path("bad.toml").write_text('[[stage]]\nuse = "detect"\nmodel = "mine"\nweights = "a.weights.h5"\n')
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    places = {"recipe": "bad.toml", "folder of the recipe": str(here), "input": "photo.png", "model": "mine"}
    place = places.get(out, "a.weights.h5")
    for more in ([], ["--overwrite"]):
        assert run(["run", "bad.toml", "photo.png", "--out", place, *more]) == 2
        assert capsys.readouterr().err.startswith("visionkit: error[output-is-input]: ")
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before


@pytest.mark.parametrize(
    ("name", "slug", "words"),
    [
        ("strighten-and-read", "unknown-recipe", "Did you mean `straighten-and-read`?"),
        ("zzz", "unknown-recipe", "There are: cells,"),
        ("nowhere.toml", "recipe-unreadable", "is not there"),
        ("./nowhere", "recipe-unreadable", "is not there"),
        (".", "recipe-unreadable", "is no file"),
        ("/dev/zero", "recipe-unreadable", "is no file"),
        ("a\x1b[31m\n", "unknown-recipe", "There is no file and no recipe"),
        ("photo.png", "recipe-invalid", "not UTF-8"),
        ("x" * 5000, "unknown-recipe", "There is no file"),
    ],
    ids=range(9),
)
def test_a_recipe_that_is_not_there(here, capsys, name, slug, words):
    assert run(["run", name, "photo.png"]) == 8
    told = capsys.readouterr().err
    assert told.startswith(f"visionkit: error[{slug}]: ")
    assert words in told
    assert told.count("\n") == 1
    assert "\x1b" not in told


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_recipe_that_may_not_be_read(here, capsys):
    Path("bad.toml").write_text(GOOD)
    Path("bad.toml").chmod(0)
    assert run(["run", "bad.toml", "photo.png"]) == 8
    assert "error[recipe-unreadable]" in capsys.readouterr().err
