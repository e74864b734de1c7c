"""Training of classifiers on rendered shapes: it learns, it does not learn noise, it goes on where it stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest

from tests.train.rendered import shape, write_shapes
from visionkit.errors import InputError, ModelError, UsageError
from visionkit.tasks.input_rule import InputRule
from visionkit.train.augment import Augmentation, base_matrix
from visionkit.train.class_folders import read_class_folders
from visionkit.train.class_images import TrainingBatches, ValidationBatches, check_images
from visionkit.train.classify import ClassifyPlan, ClassifyTraining, train_classifier
from visionkit.train.fit import FitOptions, fit

TINY = {"depths": [1, 1, 1], "width": 8, "stem": "small"}
SIZE = (24, 28)
MILD = Augmentation(strength=0.4)


def plan(data: Path, out: Path, **changes: Any) -> ClassifyPlan:
    options = FitOptions(**{"epochs": 16, "learning_rate": 6e-3, "warmup": 1, **changes.pop("options", {})})
    return ClassifyPlan(
        data,
        out,
        **{
            "args": TINY,
            "size_hw": SIZE,
            "batch": 16,
            "options": options,
            "val": 0.25,
            "augmentation": MILD,
            **changes,
        },
    )


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapes(tmp_path_factory.mktemp("shapes"), 48)


@pytest.fixture(scope="module")
def trained(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> ClassifyTraining:
    return train_classifier(plan(shapes, tmp_path_factory.mktemp("out")))


def test_shapes_are_learnt(trained: ClassifyTraining) -> None:
    assert trained.result.ended == "complete"
    assert len(trained.result.history) == 16
    truth = np.array([sample.class_id for sample in trained.held])
    accuracy = float((trained.logits.argmax(1) == truth).mean())
    assert accuracy > 0.9
    assert trained.result.best is not None
    # the network holds the best epoch's weights, not the last one's
    assert accuracy == pytest.approx(trained.result.best["val_accuracy"], abs=1e-6)
    assert trained.result.best["val_accuracy"] == max(row["val_accuracy"] for row in trained.result.history)


def test_labels_drawn_at_random_are_not_learnt(tmp_path: Path) -> None:
    # the control: if anything leaked from validation into training, this would rise
    data = write_shapes(tmp_path / "data", 48, shuffled=True)
    training = train_classifier(plan(data, tmp_path / "out", options={"epochs": 8}))
    assert training.result.history[-1]["val_accuracy"] < 0.6


def test_no_sample_is_in_two_parts_and_the_file_says_so(trained: ClassifyTraining, shapes: Path) -> None:
    split = trained.split
    assert not set(split.train) & set(split.val)
    assert len(split.train) + len(split.val) == 3 * 48
    assert [sample.name for sample in trained.held] == list(split.val)


def test_a_training_goes_on_where_it_stopped(shapes: Path, tmp_path: Path) -> None:
    options = {"epochs": 2}
    whole = train_classifier(plan(shapes, tmp_path / "whole", options=options))
    steps = iter(range(100))
    # 108 images, batches of 16: six steps an epoch; ended in the middle of the second
    first = train_classifier(plan(shapes, tmp_path / "parts", options=options), should_stop=lambda: next(steps) == 7)
    assert first.result.ended == "interrupted"
    assert first.result.step == 8
    second = train_classifier(plan(shapes, tmp_path / "parts", options=options))
    for a, b in zip(whole.network.get_weights(), second.network.get_weights(), strict=True):
        assert np.allclose(a, b, atol=1e-5)
    for a, b in zip(whole.result.history, second.result.history, strict=True):
        assert {**a, "seconds": 0} == pytest.approx({**b, "seconds": 0}, abs=1e-4)


def test_other_settings_in_the_same_folder_are_refused(shapes: Path, tmp_path: Path) -> None:
    train_classifier(plan(shapes, tmp_path), should_stop=lambda: True)
    with pytest.raises(UsageError, match="epochs 16 then, 11 now") as caught:
        train_classifier(plan(shapes, tmp_path, options={"epochs": 11}))
    assert caught.value.slug == "training-differs"
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(UsageError, match=r"state\.json"):
        train_classifier(plan(shapes, tmp_path))


class Wild:
    """Batches that cannot be learnt from."""

    steps_per_epoch = 3

    def stream(self, first: int) -> Any:
        while True:
            yield np.full((2, 8, 8, 3), np.nan, np.float32), np.eye(2, dtype=np.float32)


class Nothing:
    labels = np.array([0, 1])

    def logits(self, predict: Any) -> np.ndarray:
        return np.zeros((2, 2), np.float32)


def small() -> keras.Model:
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(image))
    return keras.Model(image, keras.layers.Dense(2, name="logits")(x))


def test_a_loss_that_is_no_number_ends_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"step 1.*--learning-rate") as caught:
        fit(small(), Wild(), Nothing(), out=tmp_path, options=FitOptions(epochs=2))
    assert caught.value.slug == "training-diverged"


def test_patience_ends_it_early(tmp_path: Path) -> None:
    # the accuracy never changes and neither does the loss: the first epoch stays the best
    result = fit(small(), Noise(), Nothing(), out=tmp_path, options=FitOptions(epochs=9, patience=2))
    assert result.ended == "patience"
    assert result.best is not None
    assert result.best["epoch"] == 1
    assert len(result.history) == 3


def test_a_step_is_traced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[object] = []
    step = keras.Model.train_step
    monkeypatch.setattr(keras.Model, "train_step", lambda self, data: traced.append(self) or step(self, data))
    fit(small(), Noise(), Nothing(), out=tmp_path, options=FitOptions(epochs=2))
    assert len(traced) == 1


class Noise:
    steps_per_epoch = 4

    def stream(self, first: int) -> Any:
        step = first
        while True:
            rng = np.random.default_rng(step)
            yield rng.normal(size=(4, 8, 8, 3)).astype(np.float32), np.eye(2, dtype=np.float32)[rng.integers(0, 2, 4)]
            step += 1


def test_dropout_draws_the_same_after_a_stop(tmp_path: Path) -> None:
    def run(out: str, stop: int | None) -> keras.Model:
        keras.utils.set_random_seed(1)
        network, count = small(), iter(range(1, 99))
        fit(
            network,
            Noise(),
            Nothing(),
            out=tmp_path / out,
            options=FitOptions(epochs=2),
            should_stop=lambda: next(count) == stop,
        )
        return network

    whole = run("whole", None).get_weights()
    run("parts", 5)
    for a, b in zip(whole, run("parts", None).get_weights(), strict=True):
        assert np.allclose(a, b, atol=1e-6)


@pytest.mark.slow  # another process that imports TensorFlow and compiles
def test_a_killed_training_goes_on(shapes: Path, tmp_path: Path) -> None:
    # as test_a_training_goes_on_where_it_stopped, but the process is killed where it stands
    code = f"""
import sys
from pathlib import Path
from tests.train.test_classify import plan
from visionkit.train.classify import train_classifier
train_classifier(plan(Path({str(shapes)!r}), Path({str(tmp_path)!r}), options={{"epochs": 400}}))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 200
        while not (tmp_path / "state.json").exists() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.3)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    state = json.loads((tmp_path / "state.json").read_text())
    assert 0 < state["step"] < 2400
    assert (tmp_path / state["checkpoint"]).is_file()
    going = train_classifier(plan(shapes, tmp_path, options={"epochs": 400}), should_stop=iter([False, True]).__next__)
    assert going.result.step == state["step"] + 2
    assert going.result.history[: len(state["history"])] == state["history"]


def test_one_class_is_refused(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "cross").symlink_to(shapes / "cross")
    with pytest.raises(InputError, match="'cross'") as caught:
        train_classifier(plan(tmp_path / "only", tmp_path / "out"))
    assert caught.value.slug == "one-class"


@pytest.mark.parametrize(
    ("change", "slug"),
    [({"network": "siamfc"}, "unknown-network"), ({"args": {"depth": 3}}, "network-arguments")],
)
def test_a_network_that_cannot_be_built_is_refused(
    shapes: Path, tmp_path: Path, change: dict[str, Any], slug: str
) -> None:
    with pytest.raises(UsageError) as caught:
        train_classifier(plan(shapes, tmp_path, **change))
    assert caught.value.slug == slug


# What the network is shown


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "shortest_side"])
def test_without_changes_a_view_is_what_inference_sees(resize: str) -> None:
    rng = np.random.default_rng(0)
    # smooth, and of almost the network's size: what is left is geometry, of which half a pixel would show
    image = cv2.GaussianBlur(rng.integers(0, 256, (40, 60, 3)).astype(np.uint8), (0, 0), 4)
    image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
    rule = InputRule.preset("torch", (36, 44), resize=resize)
    base = base_matrix(rule.window((40, 60)), (36, 44))
    border = (104.0, 116.0, 124.0) if resize == "letterbox" else None
    view = Augmentation(strength=0)(image, base, (36, 44), rng, border=border)
    seen = rule.pixels(image)
    inner = (slice(8, 28), slice(2, -2))
    assert np.abs(view[inner].astype(int) - seen[inner]).mean() < 2
    off = Augmentation(strength=0)(image, base + np.array([[0, 0, 0.5], [0, 0, 0.5]]), (36, 44), rng, border=border)
    assert np.abs(off[inner].astype(int) - seen[inner]).mean() > 2.5


def test_changes_depend_on_the_seed_and_spare_the_mirror_unless_asked() -> None:
    image = shape("circle", np.random.default_rng(0), (32, 40))
    base = base_matrix((0, 0, 40, 32), (24, 30))
    change = Augmentation()
    one, two, other = (change(image, base, (24, 30), np.random.default_rng(k)) for k in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    signs = [np.linalg.det(change.matrix((24, 30), np.random.default_rng(k))[:, :2]) > 0 for k in range(40)]
    assert all(signs)
    flipped = dataclasses.replace(change, flip=True)
    mirrored = [np.linalg.det(flipped.matrix((24, 30), np.random.default_rng(k))[:, :2]) < 0 for k in range(40)]
    assert 8 < sum(mirrored) < 32
    with pytest.raises(ValueError, match="strength=3"):
        Augmentation(strength=3)


def test_batches_are_the_same_for_any_number_of_workers_and_from_any_step(shapes: Path) -> None:
    folders = read_class_folders(shapes)
    rule = InputRule.preset("torch", SIZE, resize="stretch")

    def batches(workers: int) -> TrainingBatches:
        return TrainingBatches(
            folders, folders.samples[:20], rule, Augmentation(), batch=6, seed=4, workers=workers, cache_bytes=9000
        )

    stream = batches(1).stream(0)
    first = [next(stream) for _ in range(6)]
    later = batches(3).stream(4)
    for a, b in zip(first[4:], [next(later), next(later)], strict=True):
        assert np.array_equal(a[0], b[0])
        assert np.array_equal(a[1], b[1])
    assert first[0][0].shape == (6, *SIZE, 3)
    assert first[0][1].sum(axis=1).tolist() == [1] * 6
    assert not np.array_equal(first[0][0], first[3][0])  # three batches an epoch: the next epoch is another
    stream.close()
    later.close()


def test_validation_sees_what_inference_sees(shapes: Path) -> None:
    folders = read_class_folders(shapes)
    rule = InputRule.preset("tf", SIZE, resize="letterbox")
    held = ValidationBatches(folders, folders.samples[:7], rule, batch=4)
    seen: list[np.ndarray] = []
    logits = held.logits(lambda x: seen.append(x) or x.mean(axis=(1, 2)))
    assert [len(x) for x in seen] == [4, 4]  # one shape; the last is filled up
    image = cv2.imread(str(shapes / "circle" / "ci2.png"))
    assert np.array_equal(seen[0][2], rule(image))
    assert logits.shape == (7, 3)


def test_damage_is_told_and_passed_over(shapes: Path, tmp_path: Path) -> None:
    data = write_shapes(tmp_path / "data", 8)
    (data / "cross" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    training = train_classifier(plan(data, tmp_path / "out", options={"epochs": 1}))
    assert [(p.kind, p.name) for p in training.problems] == [("damaged", "cross/bad.png")]
    assert "cross/bad.png" not in {*training.split.train, *training.split.val}
    assert len(check_images(read_class_folders(data)).samples) == 24
