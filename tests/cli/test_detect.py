"""`visionkit detect` and `count` on a rendered clip and images, with a tiny random network: files, what is refused."""

from __future__ import annotations

import csv
import io
import json

import cv2
import pytest

from tests.tasks.made_detect import made_detector, scene, squares, write_detect_card
from visionkit.cli import detect as command
from visionkit.cli.shell import run
from visionkit.io import VideoWriter, open_source, read_results
from visionkit.tasks import load_detector

SIZE_HW = (96, 160)
COUNT = 40
FOUND = {"xyxy": [1, 1, 2, 2], "confidence": 1, "class_id": 0, "class_name": "a"}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for all tests, so that each size is compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISIONKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return write_detect_card(tmp_path_factory.mktemp("cards") / "tiny")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with VideoWriter(path, size_hw=SIZE_HW, fps=25) as writer:
        for index in range(COUNT):
            left = 4 + 3 * index
            image = scene(SIZE_HW, [("red", left, 20, left + 24, 44), ("green", 100, 60, 130, 90)])
            writer.write(image, 40.0 * index, 40.0)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def made(monkeypatch):
    """The command with a detector of coloured squares in the place of the one that is named."""

    def load(options):
        return made_detector(lambda image: squares(image, masks=True), size_hw=SIZE_HW, classes=options["classes"])

    monkeypatch.setattr(command, "load_model", load)


def rows_of(folder):
    return list(read_results(folder / "results.jsonl"))


def test_what_a_run_writes_equals_what_the_api_answers(clip, card, here, capsys):
    args = ["--model", str(card), "--runtime", "litert", "--conf", "0.2", "--max-det", "9"]
    assert run(["detect", str(clip), *args, "--out", "out", "--end", "0.4"]) == 0
    assert "10 frames in" in capsys.readouterr().err
    task, rows = load_detector(card, runtime="litert", conf=0.2, max_det=9), rows_of(here / "out")
    with open_source(clip, end_s=0.4) as frames:
        for frame, row in zip(frames, rows, strict=True):
            found = task(frame.image)
            assert len(row["detections"]) == len(found) <= 9
            for one, box, score in zip(row["detections"], found.xyxy, found.confidence, strict=True):
                assert one["xyxy"] == pytest.approx(box.tolist(), abs=0.02)
                assert one["confidence"] == pytest.approx(float(score), abs=1e-3)
    manifest = json.loads((here / "out" / "run.json").read_text())
    assert manifest["annotated"]["frames"] == 10
    assert manifest["model"]["name"] == "tiny"
    assert (manifest["settings"]["detect"]["conf"], manifest["settings"]["detect"]["max_det"]) == (0.2, 9)


def test_numbers_counts_and_every_format_together(clip, here, made, capsys):
    shapes = ["--line", "80,0,80,96", "--zone", "90,50,150,50,150,96,90,96"]
    args = ["--track", "--tracker", "own", *shapes, "--format", "csv,coco,voc,yolo,mot", "--out", "out"]
    assert run(["detect", str(clip), *args]) == 0
    told = capsys.readouterr().err
    assert "Line 80,0,80,96: 1 in (1 red), 0 out" in told
    assert "Zone 90,50,150,50,150,96,90,96: 1 objects (1 green), at most 1 at once" in told
    rows = rows_of(here / "out")
    assert rows[-1]["counts"] == {"lines": [{"in": 1, "out": 0}], "zones": [{"inside": 1}]}
    assert {one["tracker_id"] for row in rows for one in row["detections"]} == {1, 2}
    assert rows[0]["detections"][0]["mask"]["size"] == list(SIZE_HW)
    files = {path.name for path in (here / "out").iterdir()}
    assert files == {
        *("annotated.mp4", "coco.json", "mot.txt", "results.csv", "results.jsonl", "run.json", "voc", "yolo")
    }
    assert len(list((here / "out" / "voc").iterdir())) == COUNT
    counted = json.loads((here / "out" / "run.json").read_text())["summary"]["detect"]["counts"]
    assert run(["count", "out", *shapes]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {key: again[key] for key in counted} == counted
    assert again["frames"] == COUNT
    assert run(["count", "out/results.jsonl", *shapes, "--line-anchor", "center", "--out", "counts.json"]) == 0
    assert json.loads((here / "counts.json").read_text())["lines"][0]["in"] == 1
    assert run(["count", "out", *shapes, "--out", "counts.json"]) == 6  # it is there


def test_stride_and_range_count_the_same_objects(clip, here, made):
    for name, more in {"a": [], "b": ["--vid-stride", "3"]}.items():
        args = ["--track", "--tracker", "own", "--line", "80,0,80,96", "--no-video", "--out", name, *more]
        assert run(["detect", str(clip), *args]) == 0
        counts = json.loads((here / name / "run.json").read_text())["summary"]["detect"]["counts"]
        assert (counts["lines"][0]["in"], counts["lines"][0]["out"]) == (1, 0)


def test_images_of_several_sizes_and_one_without_anything(here, made):
    (here / "pictures").mkdir()
    for name, size_hw in {"a": (96, 160), "b": (190, 81), "c": (1, 1)}.items():
        cv2.imwrite(
            str(here / "pictures" / f"{name}.png"), scene(size_hw, [("blue", 10, 10, 60, 60)][: size_hw[0] // 2])
        )
    assert run(["detect", "pictures", "--out", "out", "--format", "yolo", "--track", "--tracker", "own"]) == 0
    assert [len(row["detections"]) for row in rows_of(here / "out")] == [1, 1, 0]
    assert sorted(path.name for path in (here / "out" / "annotated").iterdir()) == ["a.jpg", "b.jpg", "c.jpg"]


def test_track_without_a_box_follows_every_detection(clip, here, made, capsys):
    assert run(["track", str(clip), "--out", "out"]) == 0
    assert "red in 40" in capsys.readouterr().err
    assert all("tracker_id" in one for row in rows_of(here / "out")[2:] for one in row["detections"])


@pytest.mark.parametrize("kind", ["jsonl", "csv", "mot"])
def test_rows_on_stdout_come_without_files(clip, here, made, capsys, kind):
    assert run(["detect", str(clip), "--out", "-", "--format", kind, "--end", "0.2", "--classes", "red"]) == 0
    out = capsys.readouterr().out
    if kind == "jsonl":
        assert [len(json.loads(line)["detections"]) for line in out.splitlines()] == [1] * 5
    elif kind == "csv":
        assert [row["class_name"] for row in csv.DictReader(io.StringIO(out))] == ["red"] * 5
    else:
        assert [line.split(",")[0] for line in out.splitlines()] == list("12345")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "slug"),
    [
        (["--line", "1,2,3,4"], "track-needed"),
        (["--tracker", "own"], "track-needed"),
        (["--track", "--line", "1,2,3"], "bad-line"),
        (["--track", "--line", "1,2,x,4"], "bad-line"),
        (["--track", "--line", "5,5,5,5"], "line-too-short"),
        (["--zone", "1,2,3,4"], "bad-zone"),
        (["--zone", "1,1,2,2,3,3"], "zone-too-small"),
        (["--zone", "500,0,600,0,600,50"], "zone-outside"),
        (["--track", "--line", "0,200,160,200"], "line-outside"),
        (["--conf", "1.5"], "usage"),
        (["--max-det", "0"], "usage"),
        (["--classes", ","], "usage"),
        (["--classes", "lorry"], "class-unknown"),
        (["--format", "xml"], "usage"),
        (["--format", "coco", "--out", "-"], "format-unfit"),
        (["--format", "jsonl,csv", "--out", "-"], "format-unfit"),
        (["--labels", "names.txt"], "option-unfit"),
    ],
)
def test_usage_errors_exit_2_and_leave_nothing(clip, card, here, capsys, args, slug):
    assert run(["detect", str(clip), "--model", str(card), *args]) == 2
    told = capsys.readouterr().err
    assert f"error[{slug}]" in told
    assert "--help" in told or "Traceback" not in told
    assert list(here.iterdir()) == []


def test_formats_of_boxes_are_for_detections_only(clip, here, capsys):
    assert run(["track", str(clip), "--box", "4,20,24,24", "--format", "voc"]) == 2
    assert "error[format-unfit]" in capsys.readouterr().err


def test_a_model_for_another_task_and_missing_weights_are_told(clip, here, capsys, monkeypatch):
    assert run(["detect", str(clip), "--model", "siambox_light"]) == 5
    assert "not to detect" in capsys.readouterr().err
    monkeypatch.setenv("VISIONKIT_OFFLINE", "1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert run(["detect", str(clip), "--model", "ssdlite320_mobilenet_v3_large"]) == 5
    told = capsys.readouterr().err
    assert "ssdlite320_mobilenet_v3_large" in told
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("lines", "args", "code", "slug"),
    [
        ([], ["--line", "0,5,9,5"], 3, "no-detections"),
        (['{"index": 0}'], ["--line", "0,5,9,5"], 3, "results-corrupt"),
        (['{"index": 0, "size_hw": [9, 9]}'], ["--line", "0,5,9,5"], 3, "no-detections"),
        (["nonsense"], ["--line", "0,5,9,5"], 3, "results-corrupt"),
        (['{"size_hw": [9, 9], "detections": []}'], [], 2, "nothing-to-count"),
        (['{"size_hw": [9, 9], "detections": []}'], ["--line", "0,50,9,50"], 2, "line-outside"),
        (
            [json.dumps({"size_hw": [9, 9], "detections": [FOUND]})],
            ["--line", "0,5,9,5"],
            3,
            "no-numbers",
        ),
    ],
)
def test_count_tells_what_it_cannot_use(here, capsys, lines, args, code, slug):
    (here / "results.jsonl").write_text("".join(f"{line}\n" for line in lines))
    assert run(["count", "results.jsonl", *args]) == code
    assert f"error[{slug}]" in capsys.readouterr().err


def test_count_names_a_file_that_is_not_there(here, capsys):
    assert run(["count", "nowhere", "--line", "0,5,9,5"]) == 3
    assert "error[results-unreadable]" in capsys.readouterr().err
