"""Training pairs and the loss: seeded, the same for any number of workers, and right by hand."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import pytest

from visionkit.nets.siambox import cell_centers, siambox
from visionkit.train.pairs import PairSampler
from visionkit.train.siamese import SiameseTrainer, box_iou, train_siamese
from visionkit.train.stream import Material, make_batch, pair_batches


@pytest.fixture(scope="module")
def material() -> Material:
    rng = np.random.default_rng(0)
    return Material([rng.integers(0, 255, (90, 140, 3)).astype(np.uint8), np.full((70, 60, 3), 90, np.uint8)])


def test_batches_depend_on_seed_and_number_alone(material: Material) -> None:
    sampler = PairSampler(material.images)
    x, y = make_batch(sampler, 3, 5, 6)
    again, _ = make_batch(sampler, 3, 5, 6)
    other, _ = make_batch(sampler, 3, 6, 6)
    assert np.array_equal(x["search"], again["search"])
    assert not np.array_equal(x["search"], other["search"])
    assert x["exemplar"].shape == (6, 96, 96, 3)
    assert x["search"].shape == (6, 192, 192, 3)
    assert x["exemplar_cover"].shape == (6, 8, 8, 1)
    assert y["box"].shape == (6, 4)


def test_two_workers_give_the_batches_of_one(material: Material) -> None:
    one = pair_batches(material, seed=1, batch=2, workers=1, skip=1)
    two = pair_batches(material, seed=1, batch=2, workers=2, skip=1)
    for a, b in itertools.islice(zip(one, two, strict=False), 4):
        assert np.array_equal(a[0]["search"], b[0]["search"])
    one.close()
    two.close()


def test_the_truth_lies_on_the_object(material: Material) -> None:
    sampler, rng = PairSampler(material.images), np.random.default_rng(2)
    inside = 0
    for _ in range(40):
        pair = sampler(rng)
        assert (pair.box[2:] > pair.box[:2]).all()
        middle = (pair.box[:2] + pair.box[2:]) / 2
        inside += bool((middle > 0).all() and (middle < 192).all())
        # half a pixel of the source, which the smallest exemplars enlarge six times
        assert np.abs((pair.exemplar_box[:2] + pair.exemplar_box[2:]) / 2 - 48).max() <= 3.1
    assert inside >= 38


def test_iou_and_giou_by_hand() -> None:
    # 10 x 10 boxes 5 apart: inter 50, union 150, hull 150; 30 apart: union 200, hull 400
    a = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    b = np.array([[5, 0, 15, 10], [30, 0, 40, 10]], np.float32)
    iou, giou = box_iou(a, b)
    assert np.allclose(iou, [1 / 3, 0])
    assert np.allclose(giou, [1 / 3, -0.5])


def test_the_loss_of_the_truth_is_almost_none() -> None:
    trainer = SiameseTrainer(siambox(stem=4, features=8, width=8, depth=1))
    box = np.array([[60, 70, 120, 110]], np.float32)
    centers = cell_centers(24)[None]
    ltrb = np.concatenate([centers - box[:, None, None, :2], box[:, None, None, 2:] - centers], axis=-1)
    core = (np.abs(centers - [90, 90]) <= [15, 10]).all(-1)
    logits = np.where(core, 12.0, -12.0)[..., None].astype(np.float32)
    truth = {"box": box, "present": np.ones(1, np.float32)}
    right = float(trainer.compute_loss(None, truth, {"ltrb": ltrb, "logits": logits}))
    assert right < 1e-3
    unsure = float(trainer.compute_loss(None, truth, {"ltrb": ltrb, "logits": 0 * logits}))
    # where nothing is there, every cell is judged and the high scores are all wrong
    absent = {"box": box, "present": np.zeros(1, np.float32)}
    wrong = float(trainer.compute_loss(None, absent, {"ltrb": ltrb, "logits": logits}))
    assert unsure > 1
    assert wrong > 10


STEPS, KILLED, STOP = 10, 2, 5
RATE = 1.5e-3


@dataclass
class Trained:
    """A training of ten steps: learning rates after each, the weights at step `STOP`, its folder at step `KILLED`."""

    rates: list[float] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    killed: Path = Path()


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    return siambox(stem=4, features=8, width=8, depth=1)


@pytest.fixture(scope="module")
def whole(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("siamese")
    seen = Trained(killed=root / "killed")

    def watch(trainer: SiameseTrainer) -> None:
        seen.rates.append(float(keras.ops.convert_to_numpy(trainer.optimizer.learning_rate)))
        if len(seen.rates) == KILLED + 1:  # not yet saved
            shutil.copytree(root / "whole", seen.killed)
        if len(seen.rates) == STOP:
            seen.weights = trainer.network.get_weights()

    out = root / "whole"
    train_siamese(
        network(), material, steps=STEPS, out=out, batch=2, seed=1, save_every=KILLED, learning_rate=RATE, watch=watch
    )
    return seen


def test_training_goes_on_where_it_stopped(whole: Trained, material: Material) -> None:
    out = whole.killed
    assert json.loads((out / "state.json").read_text())["step"] == KILLED
    parts = train_siamese(network(), material, steps=STEPS, out=out, batch=2, seed=1, learning_rate=RATE, stop_at=STOP)
    for a, b in zip(whole.weights, parts.get_weights(), strict=True):
        assert np.allclose(a, b, atol=1e-5)
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == json.loads((out / "state.json").read_text())["step"] == STOP


def test_the_learning_rate_ends_at_a_hundredth(whole: Trained) -> None:
    assert len(whole.rates) == STEPS
    assert max(whole.rates) == pytest.approx(RATE, rel=1e-3)
    assert whole.rates[-1] == pytest.approx(RATE / 100, rel=0.05)
