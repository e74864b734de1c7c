"""`visionkit segment` on a rendered clip and images, with a tiny random network: files, rows, what is refused."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.tasks.made_segment import halves, write_segment_card
from visionkit.cli.shell import run
from visionkit.io import VideoWriter, open_source, read_results
from visionkit.tasks import load_segmenter
from visionkit.tasks.refine import _compiles

SIZE_HW = (48, 80)
COUNT = 6
HOSTILE = ("background", 'sea\x1b[31m"\n', "=cmd()|' /C'!A0", "日本\u202e")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for all tests, so that each size is compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISIONKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return write_segment_card(tmp_path_factory.mktemp("cards") / "tiny")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with VideoWriter(path, size_hw=SIZE_HW, fps=25) as writer:
        for index in range(COUNT):
            writer.write(halves(SIZE_HW, at=10 + 10 * index), 40.0 * index, 40.0)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def segment(source, card, *args):
    return run(["segment", str(source), "--model", str(card), "--runtime", "litert", *args])


def rows_of(folder):
    return list(read_results(folder / "results.jsonl"))


def test_what_a_run_writes_equals_what_the_api_answers(clip, card, here, capsys):
    assert segment(clip, card, "--out", "out") == 0
    told = capsys.readouterr().err
    assert f"{COUNT} frames in" in told
    assert "background" not in told
    task, rows = load_segmenter(card, runtime="litert"), rows_of(here / "out")
    with open_source(clip) as frames:
        for frame, row in zip(frames, rows, strict=True):
            found = task(frame.image)
            with Image.open(here / "out" / row["mask"]) as mask:
                assert mask.mode == "P"
                assert np.array_equal(np.asarray(mask), found.class_map)
            assert set(row["area"]) == {task.labels[i] for i in np.unique(found.class_map)}
            assert "entropy" not in row
    manifest = json.loads((here / "out" / "run.json").read_text())
    assert manifest["annotated"]["frames"] == COUNT
    assert manifest["model"]["name"] == "tiny"
    assert manifest["settings"]["segment"]["crf"] is None
    assert manifest["settings"]["segment"]["input_hw"] == [64, 96]


def small_clip(path):
    """So small that the CRF is exact, which needs no compiling."""
    with VideoWriter(path, size_hw=(24, 40), fps=25) as writer:
        for index in range(4):
            writer.write(halves((24, 40), at=5 + 9 * index), 40.0 * index, 40.0)
    return path


def test_all_options_together(card, here):
    clip = small_clip(here / "small.mp4")
    args = ["--tta", "--scales", "1,1.5", "--crf", "--crf-iterations", "2", "--sxy", "20", "--theta-beta", "9"]
    args += ["--uncertainty", "--save-uncertain", "2", "--end", "0.1"]
    assert segment(clip, card, *args, "--out", "out") == 0
    rows = rows_of(here / "out")
    assert all(0 < row["entropy"] <= 1 for row in rows)
    settings = json.loads((here / "out" / "run.json").read_text())["settings"]["segment"]
    assert (settings["scales"], settings["flip"]) == ([1.0, 1.5], True)
    crf = settings["crf"]
    assert (crf["theta_alpha"], crf["theta_beta"], crf["theta_gamma"], crf["iterations"]) == (20, 9, 3, 2)
    listed = [json.loads(line) for line in (here / "out/uncertain/list.jsonl").read_text().splitlines()]
    assert len(listed) == 2
    assert listed[0]["entropy"] == max(row["entropy"] for row in rows)


@pytest.mark.parametrize("over_time", ["--crf-video", "--no-crf-video"])
def test_that_the_crf_is_compiled_is_told_once_where_it_is(card, here, capsys, monkeypatch, over_time):
    clip, asked = small_clip(here / "small.mp4"), []
    args = ["--crf", "--crf-iterations", "1", "--no-video", over_time]
    assert segment(clip, card, *args, "--out", "kept") == 0
    assert "Compiling the CRF" not in capsys.readouterr().err, "an exact one needs none"
    monkeypatch.setattr("visionkit.tasks.refine._compiles", lambda pixels: asked.append(pixels) or True)
    assert segment(clip, card, *args, "--out", "new") == 0
    assert capsys.readouterr().err.count("Compiling the CRF for this machine: some seconds, once.") == 1
    assert asked == [24 * 40]
    assert segment(clip, card, "--no-video", "--out", "none") == 0
    assert "Compiling the CRF" not in capsys.readouterr().err


def test_only_a_crf_of_more_pixels_than_an_exact_ones_compiles(monkeypatch):
    monkeypatch.setattr("visionkit.crf.must_compile", lambda: True)
    assert [_compiles(pixels) for pixels in (24 * 40, 1024, 1025, 48 * 80)] == [False, False, True, True]
    monkeypatch.setattr("visionkit.crf.must_compile", lambda: False)
    assert not _compiles(48 * 80)


def test_both_vocabularies_of_the_crf_are_the_same_options(card, here):
    clip = small_clip(here / "small.mp4")
    paper = ["--theta-alpha", "9", "--theta-beta", "8", "--theta-gamma", "2"]
    paper += ["--bilateral-weight", "4", "--gaussian-weight", "1"]
    words = ["--sxy", "9", "--srgb", "8", "--gaussian-sxy", "2", "--compat", "4", "--gaussian-compat", "1"]
    for name, args in {"a": paper, "b": words}.items():
        assert segment(clip, card, "--crf", *args, "--no-video", "--end", "0.05", "--out", name) == 0
    a, b = (json.loads((here / n / "run.json").read_text())["settings"]["segment"]["crf"] for n in "ab")
    assert a == b
    assert a["bilateral_weight"] == 4


def test_a_video_tells_its_flicker_and_whether_its_crf_has_a_memory(card, here):
    clip = small_clip(here / "small.mp4")
    crf = ["--crf", "--crf-iterations", "1", "--no-video"]
    for name, args in {"plain": ["--no-video"], "warm": crf, "cold": [*crf, "--no-crf-video"]}.items():
        assert segment(clip, card, *args, "--out", name) == 0
    told = {n: json.loads((here / n / "run.json").read_text()) for n in ("plain", "warm", "cold")}
    flicker = {name: manifest["summary"]["segment"]["flicker"] for name, manifest in told.items()}
    assert flicker["warm"]["before_crf"] == flicker["cold"]["before_crf"] == flicker["plain"]["classes"]
    assert all(0 <= found["classes"] <= 1 and found["pairs"] == 3 for found in flicker.values())
    assert [told[n]["settings"]["segment"]["crf_over_time"] for n in told] == [False, True, False]


def test_images_of_several_sizes_and_large_ones_in_tiles(card, here):
    (here / "pictures").mkdir()
    for name, size_hw in {"a": (48, 80), "b": (90, 41), "c": (1, 1)}.items():
        cv2.imwrite(str(here / "pictures" / f"{name}.png"), halves(size_hw))
    assert segment("pictures", card, "--out", "out") == 0
    for row in rows_of(here / "out"):
        with Image.open(here / "out" / row["mask"]) as mask:
            assert list(mask.size[::-1]) == row["size_hw"]
    assert sorted(path.name for path in (here / "out" / "annotated").iterdir()) == ["a.jpg", "b.jpg", "c.jpg"]
    cv2.imwrite("large.png", halves((200, 300)))
    assert segment("large.png", card, "--native", "--tile", "96", "--overlap", "32", "--out", "tiles") == 0
    settings = json.loads((here / "tiles" / "run.json").read_text())["settings"]["segment"]
    assert (settings["input_hw"], settings["tile_hw"], settings["overlap"]) == ([192, 288], [96, 96], 32)
    assert segment("large.png", card, "--imgsz", "64", "--out", "small") == 0
    assert json.loads((here / "small" / "run.json").read_text())["settings"]["segment"]["input_hw"] == [64, 96]


def test_rows_on_stdout_come_without_files(clip, card, here, capsys):
    assert segment(clip, card, "--out", "-", "--uncertainty") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == COUNT
    assert "mask" not in rows[0]
    assert rows[0]["area"]
    assert rows[0]["entropy"] > 0
    assert list(here.iterdir()) == []


def test_labels_of_any_kind_leave_json_pictures_and_terminal_alone(clip, here, capsys):
    card = write_segment_card(here / "evil", labels=HOSTILE)
    assert segment(clip, card, "--out", "out") == 0
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "\u202e" not in err
    assert {name for row in rows_of(here / "out") for name in row["area"]} <= set(HOSTILE)


@pytest.mark.parametrize(
    ("args", "slug"),
    [
        (["--crf-iterations", "3"], "crf-needed"),
        (["--srgb", "3"], "crf-needed"),
        (["--no-crf-video"], "crf-needed"),
        (["--scales", "1"], "tta-needed"),
        (["--tta", "--scales", "1,x"], "usage"),
        (["--crf", "--sxy", "0"], "usage"),
        (["--native", "--imgsz", "64"], "option-unfit"),
        (["--imgsz", "8"], "size-too-small"),
        (["--tile", "64", "--overlap", "60"], "overlap-too-large"),
        (["--save-uncertain", "2", "--out", "-"], "folder-needed"),
        (["--save-uncertain", "0"], "usage"),
    ],
)
def test_usage_errors_exit_2_and_leave_nothing(clip, card, here, capsys, args, slug):
    assert segment(clip, card, *args) == 2
    assert f"error[{slug}]" in capsys.readouterr().err
    assert list(here.iterdir()) == []


def test_a_model_for_another_task_is_refused(clip, here, capsys):
    assert segment(clip, "siambox_light") == 5
    assert "not to segment" in capsys.readouterr().err


def test_help_names_both_vocabularies(capsys):
    assert run(["segment", "--help"]) == 0
    told = capsys.readouterr().out
    for word in ("--theta-alpha, --sxy", "--crf-iterations", "--save-uncertain", "--tile"):
        assert word in told
