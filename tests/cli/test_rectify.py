"""`visionkit rectify` and `classify --show-transform`: crops, rows, what is told, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.tasks.made_transform import VIEW_HW, write_transformer_card
from visionkit.cli.shell import run
from visionkit.geometry.homography import apply_homography, size_corners
from visionkit.tasks import CornerRectifier

COUNT, SIZE_HW, FPS = 12, (66, 90), 12.5
CORNERS = "10,5,80,12,70,60,4,55"
POINTS = np.array([10, 5, 80, 12, 70, 60, 4, 55], float).reshape(4, 2)
THETA = [0.5, -0.1, 0.1, 0.1, 0.6, 0.05]


def picture(i: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(i // 6).integers(0, 256, (5, 7, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, SIZE_HW[::-1], interpolation=cv2.INTER_CUBIC))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with a clip, images of one size, and one in grey."""
    monkeypatch.chdir(tmp_path)
    writer = cv2.VideoWriter("clip.avi", cv2.VideoWriter.fourcc(*"MJPG"), FPS, SIZE_HW[::-1])
    for i in range(COUNT):
        writer.write(picture(i))
    writer.release()
    (tmp_path / "photos").mkdir()
    for i in range(3):
        cv2.imwrite(f"photos/{i}.png", picture(6 * i))
    cv2.imwrite("photos/grey.png", picture()[..., 0])
    return tmp_path


def rows_of(folder: str) -> list[dict]:
    return [json.loads(line) for line in Path(folder, "results.jsonl").read_text().splitlines()]


def frames_of(path: str) -> list[np.ndarray]:
    capture, images = cv2.VideoCapture(path), []
    while True:
        ok, image = capture.read()
        if not ok:
            return images
        images.append(image)


def test_a_video_becomes_an_upright_video_at_its_own_times(here, capsys):
    args = ["--corners", CORNERS, "--size", "48,64", "--codec", "mjpeg", "--backend", "opencv", "--out", "out"]
    assert run(["rectify", "clip.avi", *args]) == 0
    rows, told = rows_of("out"), json.loads(Path("out/run.json").read_text())
    assert [row["pts_ms"] for row in rows] == pytest.approx([1000 / FPS * i for i in range(COUNT)], abs=0.01)
    for row in rows:
        assert row["size_hw"] == list(SIZE_HW)
        assert row["rectified"]["size_hw"] == [48, 64]
        moved = apply_homography(row["rectified"]["homography"], size_corners((48, 64)))
        np.testing.assert_allclose(moved, POINTS, atol=1e-6)
    assert told["settings"]["rectify"] == {
        "corners": POINTS.tolist(),
        "size_hw": [48, 64],
        "antialias": False,
        "border": "zero",
        "boxes": None,
    }
    assert told["files"]["rectified"]["frames"] == COUNT
    assert told["annotated"]["size_hw"] == list(SIZE_HW)
    crops = frames_of(f"out/{told['files']['rectified']['file']}")
    assert len(crops) == COUNT
    rectifier = CornerRectifier(POINTS, (48, 64))
    for crop, image in zip(crops, frames_of("clip.avi"), strict=True):
        expected = rectifier(image).image
        assert np.abs(crop.astype(int) - expected).mean() < 8  # JPEG, at half the resolution in colour
        assert np.abs(crop[:, ::-1].astype(int) - expected).mean() > 30
    said = capsys.readouterr().err
    assert "crops of 64 x 48" in said
    assert said.count("warning") == 1  # of two videos by OpenCV, which writes no sound


def test_images_become_images_equal_to_opencv(here):
    assert run(["rectify", "photos", "--corners", CORNERS, "--size", "48,64", "--out", "out"]) == 0
    rows = rows_of("out")
    assert [row["rectified"]["file"] for row in rows] == [f"rectified/{n}.png" for n in ("0", "1", "2", "grey")]
    square = np.array([[0, 0], [64, 0], [64, 48], [0, 48]], np.float32) - 0.5
    matrix = cv2.getPerspectiveTransform(POINTS.astype(np.float32) - 0.5, square)
    for row in rows:
        image, crop = cv2.imread(f"photos/{row['source']}"), cv2.imread(f"out/{row['rectified']['file']}")
        assert np.abs(crop.astype(int) - cv2.warpPerspective(image, matrix, (64, 48))).max() <= 1
        drawn = cv2.imread(f"out/annotated/{Path(row['source']).stem}.jpg")
        assert np.abs(drawn.astype(int) - image).max() > 60


def test_rows_on_stdout_and_no_video(here, capfdbinary):
    assert run(["rectify", "clip.avi", "--corners", CORNERS, "--out", "-"]) == 0
    rows = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [row["rectified"]["size_hw"] for row in rows] == [[50, 70]] * COUNT
    assert run(["rectify", "clip.avi", "--corners", CORNERS, "--no-video", "--out", "out"]) == 0
    assert sorted(p.name for p in Path("out").iterdir()) == ["rectified.mp4", "results.jsonl", "run.json"]
    assert run(["rectify", "clip.avi", "--corners", CORNERS, "--no-video", "--out", "out"]) == 6
    assert run(["rectify", "photos", "--corners", CORNERS, "--no-video", "--out", "out", "--overwrite"]) == 0
    assert sorted(p.name for p in Path("out").iterdir()) == ["rectified", "results.jsonl", "run.json"]


def test_what_lies_outside_is_told_and_another_shape_is_marked(here, capsys):
    cv2.imwrite("photos/z.png", picture()[:, :40])
    args = ["--corners=-70,5,70,5,70,60,-70,60", "--size", "20", "--out", "out"]
    assert run(["rectify", "photos", *args]) == 4
    said = capsys.readouterr().err
    assert "50 % of the region lies outside of the first frame and is black." in said
    rows = rows_of("out")
    assert rows[-1]["error"] == ("rectify: the corners are for frames of 90 x 66; this one, 40 x 66, has another shape")
    assert sorted(p.name for p in Path("out/rectified").iterdir()) == ["0.png", "1.png", "2.png", "grey.png"]


def test_a_transformer_says_the_region(here, capsys):
    write_transformer_card(here / "card", THETA)
    args = ["--model", "./card", "--runtime", "litert", "--threads", "1"]
    assert run(["rectify", "photos/0.png", *args, "--out", "out"]) == 0
    (row,) = rows_of("out")
    assert row["rectified"]["size_hw"] == list(VIEW_HW)
    matrix = np.array(THETA).reshape(2, 3)
    corners = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]) @ matrix.T
    expected = (corners + 1) / 2 * [SIZE_HW[1], SIZE_HW[0]]
    np.testing.assert_allclose(
        apply_homography(row["rectified"]["homography"], size_corners(VIEW_HW)), expected, atol=1e-3
    )
    assert json.loads(Path("out/run.json").read_text())["model"]["name"] == "card"
    assert run(["classify", "photos", *args, "--show-transform", "--out", "seen"]) == 0
    assert run(["classify", "photos", *args, "--out", "plain"]) == 0
    for seen, plain in zip(rows_of("seen"), rows_of("plain"), strict=True):
        transform = seen.pop("transform")
        assert seen == plain
        assert (transform["direction"], transform["size_hw"]) == ("crop-to-image", list(VIEW_HW))
        np.testing.assert_allclose(transform["homography"], row["rectified"]["homography"], atol=1e-3)
    drawn, without = (cv2.imread(f"{folder}/annotated/1.jpg").astype(int) for folder in ("seen", "plain"))
    x, y = expected[2].astype(int)
    assert np.abs(drawn - without)[y - 2 : y + 3, x - 2 : x + 3].max() > 60  # a corner of the outline
    assert np.abs(drawn - without)[4:16, -20:-4].max() > 30  # the inset


@pytest.mark.parametrize(
    ("args", "slug", "words"),
    [
        (["--corners", "1,2,3"], "bad-corners", "Received: '1,2,3', 3 numbers instead of eight."),
        (["--corners", "a,b,c,d,e,f,g,h"], "bad-corners", "which are not all numbers."),
        (["--corners", "nan,0,9,0,9,9,0,9"], "bad-corners", "with a number that is not finite."),
        (["--corners", "0,0,10,10,20,20,30,30"], "bad-corners", "no three of them on a line"),
        (["--corners", "0,0,0,40,40,40,40,0"], "bad-corners", "the crop would be mirrored"),
        (["--corners", "0,0,40,40,40,0,0,40"], "bad-corners", "top left, top right, bottom right, bottom left"),
        (["--corners", "500,0,600,0,600,50,500,50"], "corners-outside", "nothing of the first frame, which is 90 wide"),
        (["--corners", CORNERS, "--size", "0"], "usage", "of at least 1"),
        (["--corners", CORNERS, "--size", "1,2,3"], "usage", "up to 2 whole numbers"),
        (["--corners", CORNERS, "--size", "40000,10"], "size-too-large", "sides of up to 32,766"),
        (["--corners", "0,0,90000,0,90000,90000,0,90000"], "size-too-large", "give a smaller size"),
        (["--corners", CORNERS, "--model", "sign_digits"], "option-unfit", "give one of them"),
        (["--corners", CORNERS, "--runtime", "litert"], "option-unfit", "--runtime is about a model"),
        (["--corners", CORNERS, "--format", "jsonl,csv"], "format-unfit", "--format csv is for objects"),
        ([], "no-region", "The region comes from --corners"),
        (["--model", "a.tflite"], "option-unfit", "a model file"),
    ],
)
def test_what_cannot_be_meant_is_told_in_one_line(here, capsys, args, slug, words):
    assert run(["rectify", "clip.avi", *args]) == 2
    told = capsys.readouterr().err.strip()
    assert told.startswith(f"visionkit: error[{slug}]: ")
    assert words in told
    assert told.count("\n") == 0
    assert not list(here.rglob("results.jsonl"))


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["rectify", "clip.avi", "--model", "sign_digits", "--runtime", "keras"], 5, "no layer called 'theta'"),
        (["classify", "clip.avi", "--model", "sign_digits", "--runtime", "keras", "--show-transform"], 5, "'theta'"),
        (["classify", "clip.avi", "--model", "a.tflite", "--show-transform"], 2, "needs a model card"),
        (["classify", "clip.avi", "--dense", "--show-transform"], 2, "windows are not transformed"),
    ],
)
def test_a_model_without_a_transformer_is_refused(here, capsys, args, code, words):
    assert run(args) == code
    assert words in capsys.readouterr().err
    assert not list(here.rglob("results.jsonl"))
