"""Training of segmentation networks on rendered shapes: it learns, goes on where it stopped, tells what it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.train.rendered_masks import NAMES, write_camvid
from visionkit.errors import InputError, ModelError, UsageError
from visionkit.geometry.label_maps import class_iou, confusion_counts
from visionkit.train.fit import FitOptions, Poly
from visionkit.train.model_folder import write_model
from visionkit.train.segment import SegmentPlan, SegmentTraining, train_segmenter
from visionkit.train.segment_augment import SegmentAugmentation
from visionkit.train.segment_goal import PixelLoss, pixel_accuracy
from visionkit.train.segment_report import Picture, SegmentReport, class_colours, render_segment_report
from visionkit.weights import load_card

TINY = {"width": 8, "depth": 2, "stem_stride": 1}
SIZE = (40, 56)


def plan(data: Path, out: Path, **changes: Any) -> SegmentPlan:
    options = {"epochs": 12, "learning_rate": 1e-2, "warmup": 1, "schedule": "poly", **changes.pop("options", {})}
    given = {"args": TINY, "size_hw": SIZE, "crop_hw": (32, 40), "batch": 4, **changes}
    mild = SegmentAugmentation(strength=0.5)
    return SegmentPlan(data, out, **{"augmentation": mild, "options": FitOptions(**options), **given})


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_camvid(tmp_path_factory.mktemp("shapes"), {"train": 24, "val": 8}, SIZE)
    (root / "names.txt").write_text("\n".join(NAMES))
    return root


@pytest.fixture(scope="module")
def trained(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> SegmentTraining:
    return train_segmenter(plan(shapes, tmp_path_factory.mktemp("out"), labels=str(shapes / "names.txt")))


def mean_iu(training: SegmentTraining) -> float:
    counts = np.zeros((4, 4), np.int64)
    for sample in training.goal.samples:
        logits, truth = training.goal.logits(sample)
        counts += confusion_counts(truth, logits.argmax(-1), 4)
    return float(np.nanmean(class_iou(counts)))


def test_shapes_are_learnt_and_the_best_epoch_is_kept(trained: SegmentTraining) -> None:
    history, best = trained.result.history, trained.result.best
    assert trained.result.ended == "complete"
    assert best is not None
    assert best["val_mean_iu"] == max(row["val_mean_iu"] for row in history) > 0.6
    # the returned network, for whole images, holds those weights
    assert mean_iu(trained) == pytest.approx(best["val_mean_iu"], abs=1e-5)
    assert trained.network.input.shape[1:3] == SIZE
    assert trained.table["labels"] == list(NAMES)


def test_masks_of_other_images_teach_nothing(shapes: Path, tmp_path: Path) -> None:
    # the control: if the truth leaked into what is measured, this would rise as well
    data = write_camvid(tmp_path / "data", {"train": 24, "val": 8}, SIZE)
    masks = sorted((data / "valannot").iterdir())
    contents = [mask.read_bytes() for mask in masks]
    for mask, other in zip(masks, [*contents[1:], contents[0]], strict=True):
        mask.write_bytes(other)
    training = train_segmenter(plan(data, tmp_path / "out", options={"epochs": 5}))
    assert max(row["val_mean_iu"] for row in training.result.history) < 0.4


def test_a_training_goes_on_where_it_stopped(shapes: Path, tmp_path: Path) -> None:
    options = {"epochs": 2}
    whole = train_segmenter(plan(shapes, tmp_path / "whole", options=options))
    steps = iter(range(100))
    first = train_segmenter(plan(shapes, tmp_path / "parts", options=options), should_stop=lambda: next(steps) == 7)
    assert first.result.ended == "interrupted"
    assert first.result.step == 8
    second = train_segmenter(plan(shapes, tmp_path / "parts", options=options))
    for a, b in zip(whole.network.get_weights(), second.network.get_weights(), strict=True):
        assert np.allclose(a, b, atol=1e-4)
    assert second.result.best is not None
    assert whole.result.best is not None
    assert second.result.best["val_mean_iu"] == pytest.approx(whole.result.best["val_mean_iu"], abs=1e-3)
    with pytest.raises(UsageError, match="weighting"):
        train_segmenter(plan(shapes, tmp_path / "parts", options=options, weighting="none"))


def test_a_card_to_start_from_gives_all_layers_that_fit(trained: SegmentTraining, shapes: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_model(trained.network, source, {"summary": "shapes", **trained.table})
    assert load_card(str(source)).labels == NAMES
    told: list[str] = []
    tuned = plan(shapes, tmp_path / "tuned", args={}, size_hw=None, source=str(source), options={"epochs": 1})
    training = train_segmenter(tuned, tell=told.append)
    assert training.table["args"] == TINY
    assert any("layers start from source" in line for line in told)
    # one epoch from there is better than the first epochs from scratch
    assert training.result.history[0]["val_mean_iu"] > trained.result.history[0]["val_mean_iu"] + 0.1


def test_a_card_that_fits_nowhere_and_networks_that_do_not_segment_are_refused(shapes: Path, tmp_path: Path) -> None:
    for network, slug in (("mobilenet_v3_small", "unknown-network"), ("nothing", "unknown-network")):
        with pytest.raises(UsageError) as caught:
            train_segmenter(plan(shapes, tmp_path, network=network, args={}))
        assert caught.value.slug == slug
    with pytest.raises(UsageError) as caught:
        train_segmenter(plan(shapes, tmp_path, args={"breadth": 3}))
    assert caught.value.slug == "network-arguments"
    with pytest.raises(ModelError):
        train_segmenter(plan(shapes, tmp_path, source="siambox_light", args={}))


def test_data_of_one_class_is_refused(tmp_path: Path) -> None:
    data = write_camvid(tmp_path / "data", {"train": 2, "val": 1}, SIZE)
    for mask in data.glob("*annot/*.png"):
        mask.write_bytes(_grey(np.zeros(SIZE, np.uint8)))
    with pytest.raises(InputError) as caught:
        train_segmenter(plan(data, tmp_path / "out"))
    assert caught.value.slug == "one-class"


def _grey(numbers: np.ndarray) -> bytes:
    import cv2

    return bytes(cv2.imencode(".png", numbers)[1].tobytes())


def test_the_loss_is_the_weighted_mean_over_pixels_that_are_not_void() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 5, 4)).astype(np.float32)
    labels = rng.choice([0, 1, 2, 3, 255], size=(2, 3, 5)).astype(np.int32)
    weights = [1.0, 0.5, 3.0, 2.0]
    total, mass, right, counted = 0.0, 0.0, 0, 0
    for place in np.ndindex(labels.shape):
        k = int(labels[place])
        if k != 255:
            row = logits[place].astype(float)
            total += weights[k] * (np.log(np.exp(row).sum()) - row[k])
            mass += weights[k]
            right += int(row.argmax() == k)
            counted += 1
    assert float(PixelLoss(weights)(labels, logits)) == pytest.approx(total / mass, rel=1e-5)
    assert float(pixel_accuracy(labels, logits)) == pytest.approx(right / counted, rel=1e-6)
    void = np.full_like(labels, 255)
    assert float(PixelLoss(weights)(void, logits)) == 0.0
    assert (
        keras.losses.deserialize(
            keras.losses.serialize(PixelLoss(weights)), custom_objects={"PixelLoss": PixelLoss}
        ).weights.tolist()
        == weights
    )


def test_the_poly_schedule_by_hand() -> None:
    poly = Poly(0.1, steps=110, warmup=10)
    rates = [float(poly(k)) for k in (0, 9, 10, 60, 110)]
    assert rates == pytest.approx([0.1 / 11, 1.0 / 11, 0.1, 0.1 * 0.5**0.9, 0.0], abs=1e-7)


def test_the_report_holds_pictures_and_escapes_names() -> None:
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 2, (2, 9, 12)).astype(np.uint8)
    maps[0, 0, 0] = 255
    row = {"epoch": 1, "loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5, "val_mean_iu": 0.4}
    report = SegmentReport(
        title="<script>alert(1)</script>",
        labels=["road", "<img src=x>"],
        history=[{**row, "learning_rate": 0.1}] * 2,
        best=2,
        confusion=np.array([[3, 1], [0, 4]]),
        pictures=[Picture("a\x1b[31m.png", rng.integers(0, 255, (9, 12, 3)).astype(np.uint8), maps[0], maps[1])],
        settings={"network": "unet"},
        command="visionkit train segment",
        notes=["<b>x</b>"],
    )
    html = render_segment_report(report)
    assert html.count("<img ") == 3
    assert "<script" not in html
    assert "<img src=x" not in html
    assert "<b>x" not in html
    assert "\x1b" not in html
    assert "http" not in html.replace('http-equiv="Content', "")
    assert f"{(3 / 4 + 4 / 5) / 2:.1%}" in html


def test_colours_are_those_of_pascal_voc() -> None:
    colours = class_colours(21)[..., ::-1]
    assert colours[[0, 1, 2, 15]].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128]]
    assert colours[255].tolist() == [224, 224, 224]
