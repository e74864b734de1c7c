"""Measuring a classifier: what it is given, what is counted, what is told."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.train.rendered import write_shapes
from visionkit.errors import InputError, ModelError
from visionkit.evaluate.classify import evaluate_classifier, probabilities
from visionkit.structures import Classification
from visionkit.train.class_folders import ClassFolders, read_class_folders


@pytest.fixture
def folders(tmp_path: Path) -> ClassFolders:
    return read_class_folders(write_shapes(tmp_path, 4))


def by_brightness(images: list[np.ndarray]) -> list[Classification]:
    """A classifier that anyone can compute again: the brightest pixel modulo 3, with 60 % confidence."""
    ids = [int(image.max()) % 3 for image in images]
    return [Classification(np.array([k, (k + 1) % 3]), np.array([0.6, 0.4], np.float32)) for k in ids]


@pytest.mark.parametrize("batch", [1, 5, 100])
def test_every_image_is_counted_once_in_its_class(folders: ClassFolders, batch: int) -> None:
    sizes: list[int] = []

    def classify(images: list[np.ndarray]) -> list[Classification]:
        sizes.append(len(images))
        return by_brightness(images)

    result = evaluate_classifier(classify, folders, folders.samples, batch=batch)
    confusion = np.zeros((3, 3), int)
    for sample in folders.samples:
        confusion[sample.class_id, int(cv2.imread(str(folders.path(sample))).max()) % 3] += 1
    assert np.array_equal(result.scores.confusion, confusion)
    assert sum(sizes) == 12
    assert max(sizes) == min(batch, 12)
    assert result.scores.top1 == pytest.approx(np.trace(confusion) / 12)
    assert np.isnan(result.images_per_s) == (batch == 100)  # one call only, which warms up


def test_damaged_files_are_told_and_not_counted(folders: ClassFolders) -> None:
    bad = folders.samples[3]
    folders.path(bad).write_bytes(b"\x89PNG\r\n\x1a\nno more")
    result = evaluate_classifier(by_brightness, folders, folders.samples)
    assert [(problem.kind, problem.name) for problem in result.problems] == [("damaged", bad.name)]
    assert result.scores.count == len(result.samples) == 11
    assert bad not in result.samples


def test_nothing_to_measure_is_an_error(folders: ClassFolders) -> None:
    with pytest.raises(InputError, match="among 0 samples"):
        evaluate_classifier(by_brightness, folders, [])


def test_classes_left_out_have_no_probability() -> None:
    answer = Classification(np.array([3, 0]), np.array([0.7, 0.2], np.float32))
    assert probabilities(answer, 5).tolist() == pytest.approx([0.2, 0, 0, 0.7, 0])
    with pytest.raises(ModelError, match="class 3"):
        probabilities(answer, 3)
