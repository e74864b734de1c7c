"""`visionkit inspect MODEL`: cards, files, tables, pictures, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from keras import layers

from visionkit import nets
from visionkit.cli.inspect_pictures import overlay
from visionkit.cli.shell import run
from visionkit.runtime.programs import KerasProgram
from visionkit.runtime.quiet import quiet


def inspect(capsys, *words: str | Path) -> dict:
    code = run(["inspect", "--json", *map(str, words)])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


def told(capsys, *words: str | Path) -> tuple[int, str, str]:
    code = run(["inspect", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def network():
    """Three classes of the 32 x 48 image: redness, greenness, blueness."""
    image = keras.Input((32, 48, 3), name="image")
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv")(image)
    x = layers.MaxPooling2D(4, name="pool")(x)
    dense = layers.Dense(3, name="logits")
    model = keras.Model(image, dense(layers.GlobalAveragePooling2D()(x)), name="colours")
    kernel = np.zeros((3, 3, 3, 6), np.float32)
    kernel[1, 1] = np.hstack([np.eye(3), -np.eye(3)])  # the last three see nothing of positive levels
    model.get_layer("conv").set_weights([kernel, np.zeros(6, np.float32)])
    dense.set_weights([np.vstack([np.eye(3), np.zeros((3, 3))]).astype(np.float32), np.zeros(3, np.float32)])
    return model


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    network.save(folder / "colours.keras")
    with quiet():
        network.export(folder / "saved", verbose=False)
        (folder / "colours.tflite").write_bytes(KerasProgram(network, 1).artifact(".tflite", "float32"))
    photo = np.full((64, 96, 3), (60, 40, 0), np.uint8)
    photo[8:24, 8:24] = (60, 40, 255)  # red, top left
    cv2.imwrite(str(folder / "photo.png"), photo)
    return folder


def test_a_card_is_told_without_its_weights(capsys):
    found = inspect(capsys, "mobilenet_v3_small")
    assert (found["model"]["kind"], found["model"]["trust"], found["model"]["network"]) == (
        "card", "data", "mobilenet_v3_small",
    )  # fmt: skip
    assert found["totals"]["trainable"] == 2_542_856
    assert found["totals"]["training_macs"] == 3 * found["totals"]["macs"] == 3 * 56_510_400
    last = next(row for row in found["layers"] if row["name"] == "features.12.1.hard_swish")
    assert last["receptive_field"]["image"]["whole_input"] is True
    code, out, _ = told(capsys, "mobilenet_v3_small")
    assert code == 0
    assert re.search(r"^weights +(on this machine|not on this machine \(visionkit models fetch)", out, re.MULTILINE)


def test_a_card_s_folder_and_a_size(capsys):
    from visionkit.resources import models_dir

    found = inspect(capsys, models_dir() / "resnet18", "--imgsz", "97,160")
    assert found["inputs"] == {"image": [97, 160, 3]}
    conv = next(row for row in found["layers"] if row["name"] == "conv1")
    assert conv["output_shape"] == [49, 80, 64]
    assert (conv["window"]["exact_hw"], conv["window"]["divides"]) == ([49, 80.5], False)
    assert conv["receptive_field"]["image"] == {
        "size_hw": [7, 7], "stride_hw": [2, 2], "padding_hw": [3, 3], "center_hw": [0, 0], "whole_input": False,
        "bound": False,
    }  # fmt: skip


def test_several_inputs_have_sizes_by_name(capsys):
    found = inspect(capsys, "siambox_light", "--imgsz", "search=256")
    assert found["inputs"]["search"] == [256, 256, 3]
    code, _, err = told(capsys, "siambox_light", "--imgsz", "256")
    assert (code, "error[size-unclear]" in err, "'search'" in err) == (2, True, True)


def test_a_keras_file_as_a_table(files, capsys):
    code, out, err = told(capsys, files / "colours.keras")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    head = lines[0].split()
    assert head == ["LAYER", "TYPE", "OUTPUT", "PARAMS", "MACS", "WINDOW", "FIELD", "STRIDE", "PAD", "CENTRE"]
    assert lines[2].split() == ["conv", "Conv2D", "32x48x6", "168", "248,832", "3x3", "pad", "1", "3", "1", "1", "0"]
    assert lines[3].split() == ["pool", "MaxPooling2D", "8x12x6", "4x4", "/4", "floor", "6", "4", "1", "1.5"]
    assert "parameters  189, 189 trainable" in lines
    assert "forward     248,850 multiply-adds a sample" in lines
    assert any(line.startswith("trust       restricted") for line in lines)
    assert "\x1b" not in out


def test_a_tflite_has_the_same_sums(files, capsys):
    found, network = inspect(capsys, files / "colours.tflite"), inspect(capsys, files / "colours.keras")
    assert found["totals"]["macs"] == network["totals"]["macs"] == 248_850
    assert found["model"]["trust"] == "restricted"
    assert found["layers"][-1]["type"] == "FULLY_CONNECTED"
    assert next(iter(found["layers"][-1]["receptive_field"].values()))["size_hw"] == [6 + 7 * 4, 6 + 11 * 4]


def test_a_saved_model_is_a_program(files, capsys):
    found = inspect(capsys, files / "saved")
    assert (found["model"]["trust"], found["model"]["parameters"], "layers" in found) == ("program", 189, False)
    assert found["model"]["signatures"]["serving_default"]["inputs"] == {"image": ["float32", [None, 32, 48, 3]]}
    code, out, _ = told(capsys, files / "saved")
    assert code == 0
    assert "this model can run code" in out
    assert "--trust-model" in out
    trusted = inspect(capsys, files / "saved", "--trust-model")
    assert trusted["totals"]["macs"] == 248_850


def test_filters_as_a_picture(files, capsys, tmp_path):
    found = inspect(capsys, files / "colours.keras", "--filters", tmp_path / "f.png")
    assert (found["filters"]["layer"], found["filters"]["count"]) == ("conv", 6)
    picture = cv2.imread(str(tmp_path / "f.png"))
    assert (picture.reshape(-1, 3) == (0, 0, 255)).all(axis=1).any()  # the red filter's middle
    code, _, err = told(capsys, files / "colours.keras", "--filters", tmp_path / "f.png")
    assert (code, "error[exists]" in err) == (6, True)
    assert told(capsys, files / "colours.keras", "--filters", tmp_path / "f.png", "--overwrite")[0] == 0


def test_dead_units_on_images(files, capsys):
    found = inspect(capsys, files / "colours.keras", "--activations", files / "photo.png")
    assert found["activations"]["images"] == 1
    (row,) = found["activations"]["layers"]
    assert (row["name"], row["units"], row["dead"]) == ("conv", 6, 3)
    code, out, _ = told(capsys, files / "colours.keras", "--activations", files / "photo.png")
    assert code == 0
    assert "conv: 3 of 6 units dead, 66% of activations 0" in out


@pytest.mark.parametrize("method", ["gradcam", "guided"])
def test_the_evidence_is_drawn_where_it_is(files, capsys, tmp_path, method):
    out = tmp_path / "why.png"
    found = inspect(
        capsys, files / "colours.keras", "--explain", files / "photo.png", "--method", method, "--class", "0",
        "--preset", "unit", "--out", out,
    )  # fmt: skip
    assert (found["explanation"]["class_id"], found["explanation"]["method"]) == (0, method)
    assert found["explanation"]["score"] == pytest.approx(
        4 / 96, rel=0.3
    )  # red fills 2 x 2 of the 8 x 12 pooled cells, and its blurred rim
    picture, photo = cv2.imread(str(out)).astype(int), cv2.imread(str(files / "photo.png")).astype(int)
    assert picture.shape == photo.shape
    change = np.abs(picture - photo * 0.75).sum(axis=2)
    assert change[10:22, 10:22].mean() > 5 * change[40:, 60:].mean()
    assert change[40:, 60:].max() <= 3  # rounding, three channels


def test_without_a_class_the_best_is_explained(files, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = inspect(capsys, files / "colours.keras", "--explain", files / "photo.png")
    assert found["explanation"]["class_id"] == 2  # blue, everywhere
    assert (tmp_path / "photo-explained.png").is_file()


def test_what_was_not_seen_is_grey():
    image = np.full((20, 40, 3), (200, 100, 50), np.uint8)
    picture = overlay(image, np.zeros((5, 5), np.float32), (10.0, 0.0, 30.0, 20.0))  # the crop in the middle
    assert (picture[:, :10] == picture[:, :10, :1]).all()
    assert (picture[:, 30:] == picture[:, 30:, :1]).all()
    assert picture[10, 20].tolist() == [150, 75, 38]


@pytest.mark.parametrize(
    ("words", "code", "slug"),
    [
        (["resnet5O"], 2, "unknown-target"),
        (["{}/colours.keras", "--count"], 2, "option-unfit"),
        (["{}/photo.png", "--imgsz", "64"], 2, "option-unfit"),
        (["{}/photo.png", "--class", "3"], 2, "option-unfit"),
        (["{}/colours.keras", "--class", "1"], 2, "option-unfit"),
        (["{}/colours.tflite", "--imgsz", "64"], 2, "option-unfit"),
        (["{}/saved", "--filters", "f.png"], 2, "option-unfit"),
        (["{}/colours.keras", "--imgsz", "64,"], 2, "bad-imgsz"),
        (["{}/colours.keras", "--imgsz", "0"], 2, "bad-imgsz"),
        (["{}/colours.keras", "--imgsz", "2"], 5, "size-unfit"),
        (["{}/colours.keras", "--filters", "{}/f.jpg"], 2, "bad-picture"),
        (["{}/colours.keras", "--explain", "{}/photo.png", "--class", "9", "--out", "{}/x.png"], 2, "class-unknown"),
        (["{}/colours.keras", "--explain", "{}/photo.png", "--class", "red", "--out", "{}/x.png"], 2, "class-unknown"),
        (["{}/colours.keras", "--explain", "{}/none.png", "--out", "{}/x.png"], 3, "input-missing"),
        (["{}/missing.keras"], 5, "model-missing"),
        (["{}/missing.tflite"], 5, "model-missing"),
        (["mobilenet_v3_small", "--preset", "tf"], 2, "option-unfit"),
    ],
)
def test_mistakes_are_told(files, capsys, words, code, slug):
    found, out, err = told(capsys, *(word.format(files) for word in words))
    assert (found, out) == (code, ""), err
    assert err.startswith(f"visionkit: error[{slug}]: ")
    assert err.count("\n") == 1


def test_a_near_name_is_offered(capsys):
    assert "did you mean 'resnet50'" in told(capsys, "resnet5O")[2]


def test_a_damaged_tflite_is_refused(files, capsys, tmp_path):
    content = bytearray((files / "colours.tflite").read_bytes())
    (tmp_path / "cut.tflite").write_bytes(content[: len(content) // 2])
    code, _, err = told(capsys, tmp_path / "cut.tflite")
    assert (code, "error[model-corrupt]" in err) == (5, True)


def test_a_network_that_flattens_cannot_change_its_size(capsys, tmp_path):
    nets.lenet5().save(tmp_path / "lenet.keras")
    code, _, err = told(capsys, tmp_path / "lenet.keras", "--imgsz", "64")
    assert (code, "error[size-unfit]" in err, "flattens" in err) == (5, True, True)


def test_a_network_without_a_card_is_told_as_it_is_built(capsys):
    code, out, err = told(capsys, "unet", "--imgsz", "97,131")
    assert code == 0, err
    assert re.search(r"^model +unet \(network\)$", out, re.MULTILINE)
    assert re.search(r"^outputs +logits 97x131x21$", out, re.MULTILINE)
    assert re.search(r"^weights +none: the network as it is built", out, re.MULTILINE)
    assert inspect(capsys, "lenet5")["totals"]["parameters"] == 61_706
    code, _, err = told(capsys, "unet", "--filters", "f.png")
    assert (code, err[: len("visionkit: error[option-unfit]")]) == (2, "visionkit: error[option-unfit]")
