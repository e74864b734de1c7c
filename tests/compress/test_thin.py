"""Pruned and clustered classifiers as artifacts: what is in their kernels, what they weigh zipped, what they answer."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.export.unsaturated import LABELS, small_card
from visionkit.compress.cluster import cluster_classifier
from visionkit.compress.operations import zipped_size
from visionkit.compress.prune import prune_classifier
from visionkit.compress.thin import ThinOptions
from visionkit.compress.trials import DataChoice
from visionkit.errors import ModelError, UsageError
from visionkit.export import export_model
from visionkit.export.verify import check_probes, read_described
from visionkit.tasks import load_classifier
from visionkit.train.augment import Augmentation

SHADES = ((200, 60, 40), (60, 190, 60), (40, 50, 220), (30, 30, 30), (225, 230, 220))
OPTIONS = ThinOptions(epochs=2, batch=10, augmentation=Augmentation(strength=0))


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small_card(tmp_path_factory.mktemp("cards") / "tiny")[0].folder
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def data(card: Path) -> Path:
    """Class folders of shades, with parts."""
    random = np.random.default_rng(0)
    root = card.parent / "shades"
    for part, count in (("train", 6), ("test", 2)):
        for name, shade in zip(LABELS, SHADES, strict=True):
            folder = root / part / name
            folder.mkdir(parents=True)
            for k in range(count):
                image = np.clip(shade + random.normal(0, 25, (40, 56, 3)), 0, 255).astype(np.uint8)
                cv2.imwrite(str(folder / f"{k}.png"), image)
    return root


def zipped_float(card: Path) -> int:
    path = card.parent / "float.tflite"
    if not path.exists():
        export_model(card, path, format="litert")
    return zipped_size(path)


def test_a_pruned_classifier_says_so_and_zips_well(card: Path, data: Path, tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    made, zeros = prune_classifier(
        str(card), DataChoice(data), tmp_path / "p.tflite", sparsity=0.8, options=OPTIONS, report=rows.append
    )
    assert len(rows) == OPTIONS.epochs
    assert all(0.78 < share < 0.82 for share in zeros.values())
    assert made.kind == read_described(made.path).kind == "pruned"
    assert all(row.ok for row in check_probes(made))
    assert zipped_size(made.path) < 0.75 * zipped_float(card)  # of which more than half is graph, not weights
    task = load_classifier(made.path)
    assert task.model["name"] == "tiny"
    answer = task(cv2.imread(str(data / "test" / LABELS[0] / "0.png")))
    assert len(answer.class_id) == len(LABELS)


def test_a_clustered_classifier_has_few_values(card: Path, data: Path, tmp_path: Path) -> None:
    made, values = cluster_classifier(
        str(card), DataChoice(data), tmp_path / "c.tflite", clusters=4, keep=("conv1",), options=OPTIONS
    )
    assert values.pop("conv1") > 50
    assert set(values.values()) == {4}
    assert made.kind == "clustered"
    assert zipped_size(made.path) < 0.75 * zipped_float(card)


def test_images_that_are_measured_are_not_learnt_from(card: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --split"):
        prune_classifier(str(card), DataChoice(data / "test"), tmp_path / "p.tflite", options=OPTIONS)
    with pytest.raises(ModelError, match="no classifier"):
        prune_classifier("skin", DataChoice(data), tmp_path / "p.tflite", options=OPTIONS)
    with pytest.raises(ValueError, match="sparsity"):
        prune_classifier(str(card), DataChoice(data), tmp_path / "p.tflite", sparsity=1.0)
    with pytest.raises(ValueError, match="clusters"):
        cluster_classifier(str(card), DataChoice(data), tmp_path / "p.tflite", clusters=1)
    assert not list(tmp_path.iterdir())
