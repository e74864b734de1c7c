"""Photos put down crooked: the same for a name and a seed, wholly on their canvas, and seen so by training and eval."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.train.rendered import write_shapes
from visionkit.cli.shell import run
from visionkit.tasks.input_rule import InputRule
from visionkit.train.augment import Augmentation
from visionkit.train.class_folders import read_class_folders
from visionkit.train.class_images import TrainingBatches, ValidationBatches, check_images, load_image
from visionkit.train.distort import Distortion
from visionkit.weights import Card

RNG = np.random.default_rng(0)


def photo(height: int = 40, width: int = 60) -> np.ndarray:
    """Grey, with a white middle."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[10:-10, 15:-15] = 250
    return image


def test_a_name_and_a_seed_make_one_picture():
    image, distort = photo(), Distortion(3, canvas=2.0)
    first = distort.named(image, "a/1.jpg")
    assert first.shape == (80, 120, 3)
    np.testing.assert_array_equal(first, distort.named(image, "a/1.jpg"))
    assert (first != distort.named(image, "a/2.jpg")).any()
    assert (first != Distortion(4, canvas=2.0).named(image, "a/1.jpg")).any()
    np.testing.assert_array_equal(image, photo())


def test_what_is_drawn_lies_within_what_is_said():
    distort = Distortion(turn=30, smallest=0.5, largest=0.8, canvas=1.5, over=0)
    size_hw = (40, 60)
    for _ in range(200):
        matrix = distort.matrix(size_hw, RNG)
        scale = np.sqrt(np.linalg.det(matrix[:, :2]))
        angle = np.rad2deg(np.arctan2(matrix[1, 0], matrix[0, 0]))
        assert 0.5 <= scale <= 0.8
        assert abs(angle) <= 30
        middle = matrix @ [29.5, 19.5, 1]
        room = (1.5 - scale) / 2 * np.array([60, 40])
        assert (np.abs(middle - [44.5, 29.5]) <= room + 1e-9).all()


def test_at_no_share_the_picture_fills_its_canvas_upright():
    matrix = Distortion(canvas=2.0).matrix((40, 60), RNG, 0.0)
    np.testing.assert_allclose(matrix @ [29.5, 19.5, 1], [59.5, 39.5], atol=1e-9)
    np.testing.assert_allclose(matrix[:, :2], np.eye(2) * 2, atol=1e-12)


def test_the_canvas_has_the_colour_of_the_edge():
    out = Distortion(smallest=0.5, largest=0.5, turn=0, canvas=2.0)(photo(), RNG)
    assert set(np.unique(out[0])) == {90}
    assert 0.011 < (out > 170).mean() < 0.018  # 20 x 30 pixels at half the size are 150 of 80 x 120


@pytest.mark.parametrize("wrong", [{"smallest": 0}, {"smallest": 2}, {"turn": -1}, {"over": -0.1}, {"canvas": 0.5}])
def test_bad_arguments_are_told_by_value(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Distortion(**wrong)


def test_training_begins_upright_and_what_is_held_is_always_distorted(tmp_path):
    folders = read_class_folders(write_shapes(tmp_path, 4))
    samples = check_images(folders).samples
    card = {"size_hw": [24, 32], "resize": "stretch", "preset": "tf"}
    rule = InputRule.from_card(
        Card(name="x", folder=tmp_path, task="classify", network="resnet", licence="NONE", input=card)
    )
    given = (folders, samples, rule)
    augmentation, distort = Augmentation(strength=0), Distortion(1)

    def batch(number: int, **options) -> np.ndarray:
        stream = TrainingBatches(*given, augmentation, batch=len(samples), seed=5, **options).stream(number)
        images = next(stream)[0]
        stream.close()
        return images

    plain = [batch(number) for number in (0, 3)]
    ramped = [batch(number, distort=distort, ramp=(0, 4)) for number in (0, 3, 4)]
    whole = [batch(number, distort=distort) for number in (0, 4)]
    assert np.abs(ramped[0] - plain[0]).mean() < 0.05  # enlarged to the canvas and shrunk again
    assert np.abs(ramped[1] - plain[1]).mean() > 0.05
    np.testing.assert_array_equal(ramped[2], whole[1])
    held = [
        ValidationBatches(*given, batch=4, distort=each).logits(lambda x: x.reshape(4, -1))
        for each in (None, distort, distort, Distortion(2))
    ]
    np.testing.assert_array_equal(held[1], held[2])
    assert np.abs(held[1] - held[0]).mean() > 0.05
    assert np.abs(held[1] - held[3]).mean() > 0.05
    image = load_image(folders, samples[3], distort)[0]
    np.testing.assert_array_equal(held[1][3], rule(image).ravel())


@pytest.mark.timeout(120)
def test_the_commands_train_and_measure_on_distorted_images(tmp_path, capsys):
    data, out = write_shapes(tmp_path / "data", 8), tmp_path / "model"
    network = ["--network", "stn_classifier", "--arg", "width=4", "--arg", "view_hw=24", "--imgsz", "32"]
    common = ["--data", str(data), "--distort", "7"]
    assert run(["train", "classify", *common, "--out", str(out), *network, "--epochs", "2", "--batch", "8"]) == 0
    state = json.loads((out / "state.json").read_text())
    assert state["settings"]["distort"]["seed"] == 7
    assert "--distort 7" in (out / "card.toml").read_text()
    capsys.readouterr()
    split = ["--split", str(out / "split.json"), "--part", "val", "--runtime", "keras", "--json"]
    assert run(["eval", "classify", "--model", str(out), *common, *split]) == 0
    top1 = json.loads(capsys.readouterr().out)["top1"]
    assert top1 == pytest.approx(max(row["val_accuracy"] for row in state["history"]), abs=1e-4)
