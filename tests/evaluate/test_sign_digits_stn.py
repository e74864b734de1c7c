"""The bundled classifier with a transformer on distorted photos that it has never seen, and whether it straightens."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest

from visionkit import nets
from visionkit.cli.shell import run
from visionkit.io import read_image
from visionkit.resources import models_dir
from visionkit.tasks.input_rule import InputRule
from visionkit.train.distort import Distortion
from visionkit.weights import load_card
from visionkit.weights.loading import load_weights

NAME = "sign_digits_stn"


@pytest.mark.parametrize(("distorted", "metric"), [(["--distort", "0"], 0), ([], 1)])
def test_the_held_back_fifth_is_recognised(
    shared: Path, capsys: pytest.CaptureFixture[str], distorted: list[str], metric: int
) -> None:
    data, split = shared / "data" / "classification" / "sign_digits", models_dir() / NAME / "split.json"
    command = ["eval", "classify", "--model", NAME, "--data", str(data), "--split", str(split), *distorted]
    assert run([*command, "--part", "test", "--runtime", "keras", "--batch", "24", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["images"] == 240
    assert table["top1"] >= 0.98
    assert table["top1"] == pytest.approx(load_card(NAME).metrics[metric].value, abs=0.005)


def test_it_turns_hands_upright_and_finds_them(shared: Path) -> None:
    """Theta of each photo against what its distortion did: no one told the network either."""
    card = load_card(NAME)
    network = nets.stn_classifier(**card.args, classes=10, size_hw=tuple(card.input["size_hw"]))
    load_weights(network, card)
    data, distort, rule = shared / "data" / "classification" / "sign_digits", Distortion(0), InputRule.from_card(card)
    names = json.loads((models_dir() / NAME / "split.json").read_text())["test"][::5]
    views, angles, places = [], [], []
    for name in names:
        image = read_image(data / name)
        views.append(rule(distort.named(image, name)))
        matrix = distort.matrix(image.shape[:2], np.random.default_rng((0, zlib.crc32(name.encode()))))
        angles.append(np.arctan2(matrix[1, 0], matrix[0, 0]))
        places.append(matrix @ [(image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2, 1])
    theta = np.asarray(keras.Model(network.input, network.get_layer("theta").output)(np.stack(views)))
    turned = np.arctan2(theta[:, 3] - theta[:, 1], theta[:, 0] + theta[:, 4])
    assert np.corrcoef(angles, turned)[0, 1] > 0.8
    for axis, column in ((0, 2), (1, 5)):
        assert np.corrcoef(np.array(places)[:, axis], theta[:, column])[0, 1] > 0.9


def test_the_split_is_that_of_sign_digits_and_the_weights_are_small() -> None:
    folder = models_dir() / NAME
    splits = [json.loads((models_dir() / name / "split.json").read_text()) for name in (NAME, "sign_digits")]
    assert all(splits[0][part] == splits[1][part] for part in ("train", "val", "test"))
    assert (folder / f"{NAME}.weights.h5").stat().st_size <= 3_000_000
