"""`visionkit classify --dense` on rendered clips with a known answer: heat maps, rows, what is told and refused."""

from __future__ import annotations

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from visionkit.cli.shell import run
from visionkit.io import VideoWriter
from visionkit.pipeline import HeatClass
from visionkit.pipeline.step_dense import find_class

SIZE_HW = (96, 160)
WINDOW, STRIDE = 32, 8
COUNT = 4
COLOURS = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0)}


def scene(index):
    """Grey, with a red and a green square of the window's size; the red one moves 16 pixels a frame."""
    image = np.full((*SIZE_HW, 3), 110, np.uint8)
    image[32:64, 16 * index : 16 * index + WINDOW] = COLOURS["red"]
    image[56:88, 120:152] = COLOURS["green"]
    return image


def colour_network(padding="valid", heads=False):
    """Stride 8, three means of colour and their mean: logits tell red, green, blue and grey."""
    import keras
    from keras import layers

    image = keras.Input((WINDOW, WINDOW, 3), name="image")
    x = layers.AveragePooling2D(2)(image)
    x = layers.Conv2D(3, 4, strides=4, padding=padding, use_bias=False, name="mean")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(4, name="logits")(x)
    model = keras.Model(image, x)
    kernel = np.zeros((4, 4, 3, 3), np.float32)
    kernel[..., range(3), range(3)] = 1 / 16
    model.get_layer("mean").set_weights([kernel])
    weights = np.float32([[20, -10, -10, 0], [-10, 20, -10, 0], [-10, -10, 20, 0]])
    model.get_layer("logits").set_weights([weights, np.float32([0, 0, 0, 9])])
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    colour_network().save(folder / "colours.keras")
    padded = colour_network("same")
    import keras
    from keras import layers

    image = keras.Input((WINDOW, WINDOW, 3), name="image")
    x = padded.layers[1](layers.ZeroPadding2D(2, name="edge")(image))
    for layer in padded.layers[2:]:
        x = layer(x)
    keras.Model(image, x).save(folder / "padded.keras")
    (folder / "names.txt").write_text("red\ngreen\nblue\ngrey wall\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "squares.mp4"
    with VideoWriter(path, size_hw=SIZE_HW, fps=25) as writer:
        for index in range(COUNT):
            writer.write(scene(index), 40.0 * index, 40.0)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VISIONKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def classify(source, models, *args, name="colours.keras"):
    how = ["--model", str(models / name), "--labels", str(models / "names.txt"), "--preset", "unit"]
    return run(["classify", str(source), "--dense", *how, "--runtime", "litert", *args])


def rows_of(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_a_clip_gets_a_heat_map_a_frame_that_follows_its_object(clip, models, here, capsys):
    assert classify(clip, models, "--heat", "RED", "--out", "out") == 0
    told = capsys.readouterr().err
    assert "Windows of 32 x 32 pixels, 8 apart; the map equals the crops exactly" in told
    assert "heat maps of red in 4" in told
    rows = rows_of(here / "out")
    assert [row["heatmap"] for row in rows] == [f"heatmaps/{index:06d}.png" for index in range(COUNT)]
    for index, row in enumerate(rows):
        assert row["heatmap_class"] == {"class_id": 0, "class_name": "red"}
        assert (row["grid"], row["stride"], row["window"]) == ([9, 17], [8.0, 8.0], [32.0, 32.0])
        assert row["exact"] is True
        assert row["classes"][0]["class_name"] == "grey wall"
        heat = cv2.imread(str(here / "out" / row["heatmap"]), cv2.IMREAD_UNCHANGED)
        assert heat.shape == (9, 17)
        assert heat.dtype == np.uint8
        assert np.unravel_index(heat.argmax(), heat.shape) == (4, 2 * index)  # (32, 16 * index) / 8
        assert heat.max() > 200
        assert heat[:, 10:].max() < 60
    manifest = json.loads((here / "out" / "run.json").read_text())
    settings = {"mode": "dense", "window_hw": [32, 32], "stride": 8, "exact": True}
    assert settings.items() <= manifest["settings"]["dense"].items()
    assert manifest["files"]["heatmaps"] == {
        "file": "heatmaps",
        "codec": "png",
        "frames": COUNT,
        "levels": "255 * probability",
    }
    assert manifest["model"]["name"] == "colours.keras"
    assert manifest["annotated"]["frames"] == COUNT


def test_the_annotated_video_shows_the_map_over_the_object(clip, models, here):
    assert classify(clip, models, "--heat", "red", "--out", "out") == 0
    reader = cv2.VideoCapture(str(here / "out" / "annotated.mp4"))
    frames = [reader.read()[1].astype(int) for _ in range(COUNT)]
    warmth = frames[3][..., 2] - frames[3][..., 0]  # the map's colours are warm
    assert warmth[40:56, 56:72].mean() > 60
    assert warmth[8:24, 120:150].mean() < 30


def test_finer_strides_interlace_and_exact_runs_the_crops(clip, models, here, capsys):
    for name, args in {"fine": ["--stride", "4"], "crops": ["--stride", "4", "--exact"]}.items():
        assert classify(clip, models, "--heat", "0", "--no-video", "--out", name, *args) == 0
    assert "each run as a crop" in capsys.readouterr().err
    fine, crops = (
        [cv2.imread(str(here / n / f"heatmaps/00000{i}.png"), 0) for i in range(COUNT)] for n in ("fine", "crops")
    )
    assert fine[0].shape == (17, 33)
    assert all(np.abs(a.astype(int) - b).max() <= 1 for a, b in zip(fine, crops, strict=True))
    assert rows_of(here / "crops")[0]["exact"] is True
    assert json.loads((here / "crops" / "run.json").read_text())["settings"]["dense"]["mode"] == "crops"


def test_a_padded_network_is_told_once_with_the_layer_and_the_remedy(clip, models, here, capsys):
    assert classify(clip, models, "--no-video", "--out", "out", name="padded.keras") == 0
    told = capsys.readouterr().err
    assert told.count("The map does not equal the crops exactly: the layer 'edge' (ZeroPadding2D) pads its map") == 1
    assert "--exact runs the crops" in told
    rows = rows_of(here / "out")
    assert {row["exact"] for row in rows} == {False}
    assert rows[0]["heatmap_class"]["class_name"] == "grey wall"  # without --heat: the frame's likeliest
    assert "'edge'" in json.loads((here / "out" / "run.json").read_text())["settings"]["dense"]["reason"]


def test_rows_on_stdout_come_without_files(clip, models, here, capsys):
    assert classify(clip, models, "--heat", "green", "--out", "-") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == COUNT
    assert "heatmap" not in rows[0]
    assert rows[0]["heatmap_class"]["class_name"] == "green"
    assert sorted(path.name for path in here.iterdir()) in ([], ["cache"])


def test_images_of_several_sizes_and_too_small_ones(models, here):
    (here / "pictures").mkdir()
    for name, size_hw in {"a": (96, 160), "b": (64, 40), "c": (16, 48)}.items():
        cv2.imwrite(str(here / "pictures" / f"{name}.png"), cv2.resize(scene(1), size_hw[::-1]))
    assert classify("pictures", models, "--out", "out") == 0
    rows = rows_of(here / "out")
    assert [row["grid"] for row in rows] == [[9, 17], [5, 2], [1, 9]]
    assert rows[2]["window"] == [16.0, 16.0]  # enlarged twice to hold one window of 32
    assert rows[2]["stride"] == [4.0, 4.0]
    assert sorted(path.name for path in (here / "out" / "annotated").iterdir()) == ["a.jpg", "b.jpg", "c.jpg"]


def test_imgsz_is_the_shorter_side(clip, models, here):
    assert classify(clip, models, "--imgsz", "48", "--no-video", "--out", "out") == 0
    row = rows_of(here / "out")[0]
    assert row["grid"] == [3, 7]  # 48 x 80
    assert row["window"] == [64.0, 64.0]


@pytest.mark.parametrize(
    ("args", "slug", "words"),
    [
        (["--stride", "5"], "stride-impossible", "Possible: 8, 4, 2, 1"),
        (["--stride", "0"], "usage", "--stride"),
        (["--heat", "rad"], "class-unknown", "Did you mean 'red'"),
        (["--heat", "re"], "class-unknown", "may be 'red' (0) or 'green' (1)"),
        (["--heat", "17"], "class-unknown", "no class '17'"),
        (["--imgsz", "20"], "size-too-small", "32 x 32"),
        (["--imgsz", "48,64"], "option-unfit", "shorter side"),
        (["--batch", "4"], "option-unfit", "one frame is many windows"),
        (["--smooth", "1"], "option-unfit", "not averaged over time"),
        (["--resize", "stretch"], "option-unfit", "--imgsz"),
    ],
)
def test_usage_errors_exit_2_and_leave_nothing(clip, models, here, capsys, args, slug, words):
    assert classify(clip, models, *args) == 2
    told = capsys.readouterr().err
    assert f"error[{slug}]" in told
    assert words in told
    assert not (here / "runs").exists()


@pytest.mark.parametrize("args", [["--stride", "8"], ["--exact"], ["--heat", "red"]])
def test_options_of_dense_need_it(clip, models, here, capsys, args):
    assert run(["classify", str(clip), "--model", str(models / "colours.keras"), *args]) == 2
    assert "give --dense with it" in capsys.readouterr().err


def test_a_compiled_model_cannot_be_turned(clip, models, here, capsys):
    (here / "net.tflite").write_bytes(b"\0" * 4 + b"TFL3")
    assert run(["classify", str(clip), "--dense", "--model", "net.tflite"]) == 5
    assert "error[model-not-dense]" in capsys.readouterr().err


def test_part_of_a_name_is_enough():
    loaded = SimpleNamespace(labels={"kind": ("cat", "dog"), "colour": ("black cat", "white")})
    assert find_class("dog", loaded) == HeatClass(1, "kind")
    assert find_class("colour:1", loaded) == HeatClass(1, "colour")
    assert find_class("cat", loaded) == HeatClass(0, "kind")  # an equal name goes before one that holds it
    assert find_class("black", loaded) == HeatClass(0, "colour")


def test_a_real_clip_through_the_network_of_sign_digits(shared, here, capsys):
    from visionkit.resources import models_dir

    if not (models_dir() / "sign_digits" / "card.toml").is_file():
        pytest.skip("needs the bundled model sign_digits")
    clip = shared / "data" / "video" / "bottle-detection.mp4"
    how = ["--model", "sign_digits", "--runtime", "litert", "--imgsz", "192", "--end", "0.3"]
    assert run(["classify", str(clip), "--dense", *how, "--stride", "16", "--out", "out"]) == 0
    rows = rows_of(here / "out")
    assert rows
    assert all(row["exact"] is False and min(row["grid"]) > 5 for row in rows)
    heat = cv2.imread(str(here / "out" / rows[0]["heatmap"]), cv2.IMREAD_UNCHANGED)
    assert list(heat.shape) == rows[0]["grid"]
