"""DET-12: a small Faster R-CNN learns discs and squares, proposals and answers both."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from tests.train.rendered_boxes import write_voc
from visionkit.geometry.boxes import iou_pairwise
from visionkit.geometry.detection_rules import RCNNRule
from visionkit.nets.rcnn import RCNNPlan, rcnn
from visionkit.tasks.input_rule import InputRule
from visionkit.train.detect_augment import DetectAugmentation
from visionkit.train.detect_goal import DetectGoal
from visionkit.train.detect_rcnn import RCNNLearner, freeze_norms
from visionkit.train.detection_folders import DetectionFolders, read_detection_folders
from visionkit.train.detection_images import DetectBatches, DetectMaterial
from visionkit.train.fit import FitOptions, fit

SIZE = (96, 128)
REGIONS = 32
RULE = RCNNRule(
    anchor_sizes=((16.0,), (24.0,), (32.0,), (48.0,), (64.0,)),
    canonical=(32, 3),
    pre_nms=100,
    post_nms=60,
    max_det=20,
)


def small_network() -> keras.Model:
    return rcnn(RCNNPlan("tiny", "resnet18"), classes=3, size_hw=SIZE, rule=RULE)


def training(
    root: Path, learner: RCNNLearner, train: int, val: int
) -> tuple[DetectionFolders, DetectBatches, DetectGoal]:
    write_voc(root, {"train": train, "val": val})
    folders, material = read_detection_folders(root), DetectMaterial()
    rule = InputRule.preset("torch", SIZE)
    change = DetectAugmentation(strength=0.5, mosaic=0)
    options = {"batch": 4, "seed": 0, "packed": learner.packed}
    batches = DetectBatches(material, folders.select("train"), rule, change, learner.targets, **options)  # type: ignore[arg-type]
    return folders, batches, DetectGoal(learner, material, folders.select("val"), rule=rule, classes=2, batch=4)


@pytest.mark.slow  # builds and runs a ResNet with gradients: half a minute
def test_the_four_losses_of_the_graph_are_those_of_its_parts(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    learner = RCNNLearner(small_network(), RULE, classes=3, regions=REGIONS)
    _, batches, _ = training(tmp_path, learner, 4, 1)
    x, y = next(batches.stream(0))
    answer = learner.joined.predict_on_batch(x)
    part = {name: ops.convert_to_numpy(value) for name, value in learner.loss.parts(answer).items()}
    terms = {name: float(value) for name, value in learner.loss.terms(y, answer).items()}
    # the first stage, anchor by anchor
    labels, logits = y[..., 0], part["objectness"].astype(float)
    assert ((labels >= 0).sum(axis=1) == 256).all()
    entropy = np.where(labels == 1, np.log1p(np.exp(-logits)), np.log1p(np.exp(logits)))
    assert terms["objectness"] == pytest.approx(entropy[labels >= 0].mean(), abs=1e-5)
    # the second stage, region by region; weights are small, so that classes are nearly alike
    kinds = part["labels"].astype(int)
    assert set(np.unique(kinds)) <= {-1, 0, 1, 2}
    assert (kinds > 0).sum(axis=1).max() <= REGIONS // 4
    shifted = part["logits"].astype(float)
    losses = (
        np.log(np.exp(shifted).sum(axis=-1)) - np.take_along_axis(shifted, np.maximum(kinds, 0)[..., None], -1)[..., 0]
    )
    assert terms["class"] == pytest.approx(losses[kinds >= 0].mean(), abs=1e-5)
    change = np.abs(part["deltas"] - part["targets"]).astype(float)
    each = np.where(change < 1 / 9, 4.5 * change**2, change - 1 / 18).sum(axis=-1)
    assert terms["box"] == pytest.approx(each[kinds > 0].sum() / (kinds >= 0).sum(), abs=1e-4)
    freeze_norms(learner.network)
    assert not any("gamma" in variable.path for variable in learner.joined.trainable_variables)


@pytest.mark.slow  # four epochs of a small Faster R-CNN: two to four minutes on two cores
def test_a_small_faster_rcnn_learns_shapes(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    network = small_network()
    learner = RCNNLearner(network, RULE, classes=3, regions=REGIONS)
    folders, batches, goal = training(tmp_path / "data", learner, 200, 40)
    options = FitOptions(epochs=4, learning_rate=1e-3, smoothing=0.0, warmup=1)
    result = fit(learner.joined, batches, goal, out=tmp_path / "out", options=options)
    assert result.best is not None
    assert result.best["val_map50"] >= 0.9
    assert recall_of_proposals(network, folders, goal.rule, 50) >= 0.9
    # proposals of weights that have learnt nothing miss most of the objects
    assert recall_of_proposals(small_network(), folders, goal.rule, 50) < 0.6


def recall_of_proposals(network: keras.Model, folders: DetectionFolders, rule: InputRule, count: int) -> float:
    """The fraction of the validation objects that one of the best proposals overlaps by half."""
    by_rank = {len(x.shape): x for x in network.get_layer("proposals").output}
    proposals = keras.Model(network.input, [by_rank[3], by_rank[1]])
    material, found = DetectMaterial(), []
    for sample in folders.select("val"):
        inputs = [rule(material(sample))[None], np.array([SIZE], np.float32)]
        boxes, there = (np.asarray(value) for value in proposals.predict_on_batch(inputs))
        scale = np.array([SIZE[1] / sample.size_hw[1], SIZE[0] / sample.size_hw[0]] * 2)
        found += (iou_pairwise(sample.xyxy * scale, boxes[0, : min(count, int(there[0]))]).max(axis=1) >= 0.5).tolist()
    return float(np.mean(found))
