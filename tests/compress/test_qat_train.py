"""A card's classifier trained on with rounding, from a folder of class folders to an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest

from visionkit import nets
from visionkit.compress.operations import list_operations
from visionkit.compress.qat_export import levels_apart
from visionkit.compress.qat_train import QatOptions, fine_tune, input_range, train_quantized
from visionkit.errors import ModelError, UsageError
from visionkit.export import export_model
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.load_classify import load_classifier
from visionkit.train.model_folder import write_model
from visionkit.weights import load_card
from visionkit.weights.artifact import model_bytes, read_artifact

COLOURS = {"blue": (200, 60, 60), "green": (60, 200, 60), "red": (60, 60, 200)}
SIZE = (32, 40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data/`: three colours in noise; `card/`: a network that has not learnt them well."""
    place = tmp_path_factory.mktemp("qat")
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (place / "data" / name).mkdir(parents=True)
        for number in range(20):
            image = np.clip(np.array(colour) + random.normal(0, 60, (48, 44, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(place / "data" / name / f"{number}.png"), image)
    keras.utils.set_random_seed(0)
    args = {"depths": [1, 1], "width": 8, "stem": "small"}
    network = nets.resnet(**args, classes=3, size_hw=SIZE)
    rule = {"size_hw": list(SIZE), "resize": "stretch", "preset": "torch"}
    table = {"task": "classify", "network": "resnet", "licence": "NONE", "labels": list(COLOURS)}
    (place / "card").mkdir()
    write_model(network, place / "card", {**table, "args": args, "input": rule})
    return place


def test_the_range_of_the_input_is_that_of_black_and_white(folder: Path) -> None:
    """Torch's rule: from -0.485 / 0.229 = -2.118 to (1 - 0.406) / 0.225 = 2.64."""
    assert input_range(InputRule.from_card(load_card(folder / "card"))) == pytest.approx((-2.118, 2.64), abs=1e-3)


def test_from_a_folder_to_an_artifact_that_classifies(folder: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    options = {"epochs": 3, "batch": 8, "learning_rate": 3e-3}
    path = train_quantized(folder / "card", folder / "data", tmp_path / "small.tflite", report=rows.append, **options)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    artifact = read_artifact(path)
    assert artifact is not None
    assert (artifact.kind, artifact.card.labels) == ("qat-int8", tuple(COLOURS))
    assert artifact.made["quantization"]["dropped"] == {}
    networks = [row for row in list_operations(model_bytes(path)) if row.signature == "raw"]
    assert [row.kind for row in networks if row.is_float] == []
    classifier = load_classifier(path)
    right = 0
    for class_id, colour in enumerate(COLOURS.values()):
        right += int(classifier(np.full((50, 60, 3), colour, np.uint8)).class_id[0] == class_id)
    assert right == 3
    with pytest.raises(UsageError, match="kind must be one of qat-int8, qat-int8-io"):
        train_quantized(folder / "card", folder / "data", tmp_path / "b.tflite", kind="int4")


def test_what_is_held_back_is_not_looked_at_and_ranges_freeze(folder: Path, tmp_path: Path) -> None:
    """Two splits that differ only in what is held back train to the same numbers."""
    names = [f"{name}/{number}.png" for name in COLOURS for number in range(20)]
    learn, val = [n for n in names if n[-5] in "02468"], [n for n in names if n[-5] in "13"]
    found = []
    for number, test in enumerate((["blue/5.png", "red/7.png"], ["green/9.png"])):
        split = tmp_path / f"split{number}.json"
        split.write_text(str({"train": learn, "val": val, "test": test}).replace("'", '"'))
        options = QatOptions(epochs=2, batch=8, split=split, frozen=0.5)
        training = fine_tune(folder / "card", folder / "data", tmp_path / str(number), options)
        found.append([np.array(weight) for weight in training.network.get_weights()])
        assert training.result.history[0]["val_accuracy"] <= 1
        assert len(training.samples) > 0
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def test_a_teacher_is_listened_to(folder: Path, tmp_path: Path) -> None:
    teacher = nets.resnet(depths=[1, 1], width=8, stem="small", classes=3, size_hw=SIZE)
    options = QatOptions(epochs=1, batch=8)
    alone = fine_tune(folder / "card", folder / "data", tmp_path / "alone", options)
    taught = fine_tune(folder / "card", folder / "data", tmp_path / "taught", options, teacher=teacher)
    assert alone.result.history[0]["loss"] != taught.result.history[0]["loss"]
    path = train_quantized(
        folder / "card", folder / "data", tmp_path / "taught.tflite", teacher=folder / "card", epochs=1, batch=8
    )
    assert path.is_file()
    with pytest.raises(ModelError, match=r"prepared otherwise|knows other classes"):
        train_quantized(folder / "card", folder / "data", tmp_path / "b.tflite", teacher="sign_digits", epochs=1)


def test_what_is_no_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a model to segment"):
        fine_tune("skin", tmp_path, tmp_path / "out", QatOptions())


@pytest.mark.slow  # eight epochs on 770 images, then 240 at two precisions
def test_sign_digits_keep_their_accuracy_in_eight_bits(shared: Path, tmp_path: Path) -> None:
    """On images that neither taught nor chose, at most 0.3 point below float, in 0.30 of its size.

    Its time is measured by `benchmarks/quantized_latency.py`.
    """
    from visionkit.evaluate.classify import evaluate_classifier
    from visionkit.train.augment import Augmentation
    from visionkit.train.class_folders import read_class_folders
    from visionkit.train.split import read_split

    card, data = load_card("sign_digits"), shared / "data" / "classification" / "sign_digits"
    split = card.folder / "split.json"
    path = train_quantized(card, data, tmp_path / "sign.tflite", split=split, augmentation=Augmentation(flip=True))
    source = export_model(card, tmp_path / "float.tflite", format="litert").path
    folders = read_class_folders(data, card.labels)
    held = read_split(split, folders.samples).select("test", folders.samples)
    scores = [evaluate_classifier(load_classifier(model), folders, held).scores.top1 for model in (source, path)]
    assert len(held) == 240
    assert scores[1] >= scores[0] - 0.003
    assert path.stat().st_size <= 0.30 * source.stat().st_size


def test_the_converted_network_is_the_trained_one(folder: Path, tmp_path: Path) -> None:
    from visionkit.compress.qat_export import convert_quantized

    options = QatOptions(epochs=2, batch=8, learning_rate=3e-3)
    training = fine_tune(folder / "card", folder / "data", tmp_path / "out", options)
    (found,) = levels_apart(training.network, convert_quantized(training.network), training.samples).values()
    assert found.worst < 1.5  # steps of eight bits
    assert found.agreement >= 7 / 8  # of the eight samples: two answers within a step may change places
