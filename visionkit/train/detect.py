"""A detector from a data set of images and boxes: data, split, network and loop. Any Keras backend."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras

from visionkit.errors import InputError, UsageError
from visionkit.geometry.detection_rules import RCNN_RULES, rcnn_rule
from visionkit.tasks.input_rule import InputRule
from visionkit.train.class_folders import Problem
from visionkit.train.detect_augment import DetectAugmentation
from visionkit.train.detect_goal import DetectGoal, Learner
from visionkit.train.detection_folders import DetectionSample, read_detection_folders
from visionkit.train.detection_images import CheckedDetections, DetectBatches, DetectMaterial, check_detections
from visionkit.train.fit import FitOptions, FitResult, fit
from visionkit.train.split import hold_back, write_parts
from visionkit.train.transfer import begun_by_seed, build_network, card_facts, new_card, source_card, start_from
from visionkit.weights import Card

__all__ = ["DetectPlan", "DetectTraining", "train_detector"]

STANDARD = FitOptions(epochs=60, learning_rate=1.5e-3, smoothing=0.0)
SIZE = (320, 320)


@dataclass(frozen=True)
class DetectPlan:
    """What to train, on what, how.

    Args:
        data: folder or annotation file of images and boxes (`read_detection_folders`); `images`, where the images lie
            if not there; `layout` and `classes` as there.
        out: folder of the training, which becomes the model's.
        network: a function of `visionkit.nets`, with keyword arguments `args`.
        source: name or folder of a card to start from: weights of layers with the same name and shape, its input rule,
            and its network where `network` is None.
        size_hw: of the network's input; without, the source's or 320x320.
        resize: `stretch` or `letterbox`; without, the source's or `stretch`.
        val: fraction that chooses the epoch, where the data is not split itself.
        repeats: how often an epoch shows each image.
    """

    data: Path
    out: Path
    images: Path | None = None
    layout: str | None = None
    classes: tuple[str, ...] | None = None
    network: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    size_hw: tuple[int, int] | None = None
    resize: str | None = None
    val: float = 0.2
    batch: int = 8
    repeats: int = 1
    workers: int = 1
    augmentation: DetectAugmentation = field(default_factory=DetectAugmentation)
    options: FitOptions = STANDARD


@dataclass
class DetectTraining:
    """A training that has ended or was interrupted.

    Args:
        table: the card of the model, without weights and metrics, as a TOML table.
        goal: holds the validation samples and answers about them, with the best weights.
    """

    learner: Learner
    table: dict[str, Any]
    material: DetectMaterial
    learnt: list[DetectionSample]
    problems: list[Problem]
    goal: DetectGoal
    result: FitResult

    @property
    def network(self) -> keras.Model:
        """The detector, with the best weights."""
        return self.learner.network


def train_detector(
    plan: DetectPlan,
    *,
    report: Callable[[dict[str, Any]], None] | None = None,
    tell: Callable[[str], None] = lambda line: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> DetectTraining:
    """Train as planned, or go on with what `plan.out` holds. Writes `split.json` and checkpoints there.

    On a GPU the arithmetic is mixed precision, on a CPU never.

    Args:
        report: is given a row of numbers after each epoch; `tell` lines about data and network.
        should_stop: asked after every step; true saves and returns.

    Raises:
        InputError: the data holds no images with boxes, or not enough.
        ModelError: the card to start from does not fit; `training-diverged`.
        UsageError: `plan.out` holds another training; the network does not take the arguments.
    """
    folders = read_detection_folders(plan.data, images=plan.images, layout=plan.layout, classes=plan.classes)
    if not folders.classes:
        raise InputError("no-boxes", f"{plan.data} has images but no box with a class; there is nothing to learn.")
    source = None if plan.source is None else source_card(plan.source, ("detect", "classify"))
    material = DetectMaterial()
    checked = check_detections(folders, material)
    learn, held = hold_back(
        checked.samples,
        folders.parts,
        val=plan.val,
        seed=plan.options.seed,
        digests=checked.digests,
        problems=checked.problems,
    )
    if not any(map(len, learn)):
        raise InputError("split-invalid", "There must be boxes to learn from; all are in the part that chooses.")
    table = _card_table(plan, source, folders.classes)
    rule = InputRule.from_card(Card(name=plan.out.name, folder=plan.out, **table))
    told = f"{len(learn)} images with {sum(map(len, learn))} boxes to learn from, {len(held)} to choose the epoch on"
    tell(f"{len(folders.classes)} classes, {told}.")
    with begun_by_seed(plan.options.seed) as precision:
        learner = _learner(table, len(folders.classes) + 1)
        if source is not None:
            _start(learner, table["network"], source, tell)
        count = learner.network.count_params()
        tell(f"{table['network']}, {count:,} parameters, {keras.backend.backend()}, {precision}")
        batches = DetectBatches(
            material,
            learn,
            rule,
            plan.augmentation,
            learner.targets,
            batch=plan.batch,
            seed=plan.options.seed,
            packed=learner.packed,
            repeats=plan.repeats,
            workers=plan.workers,
        )
        goal = DetectGoal(learner, material, held, rule=rule, classes=len(folders.classes), batch=plan.batch)
        plan.out.mkdir(parents=True, exist_ok=True)
        write_parts(plan.out / "split.json", folders.classes, learn, held)
        result = fit(
            learner.joined,
            batches,
            goal,
            out=plan.out,
            options=plan.options,
            facts=_facts(plan, table, (learn, held), checked, source),
            report=report,
            should_stop=should_stop,
        )
    return DetectTraining(learner, table, material, learn, checked.problems, goal, result)


def _card_table(plan: DetectPlan, source: Card | None, classes: tuple[str, ...]) -> dict[str, Any]:
    """The new model's card: what of the source it keeps, and its own classes."""
    network = plan.network or (source.network if source is not None and source.task == "detect" else "ssdlite")
    if source is None:
        preset = "tf" if network.startswith("ssd") else "caffe" if "vgg" in network else "torch"
        rule: dict[str, Any] = {"size_hw": list(SIZE), "resize": "stretch", "preset": preset}
    else:
        rule = {key: value for key, value in source.input.items() if key != "resize_size"}
        rule |= {"resize": "stretch"} if rule["resize"] == "shortest_side" else {}
    background = {"classes": len(classes) + 1}
    return new_card("detect", network, classes, plan, source, rule=rule, args=background)


def _learner(table: Mapping[str, Any], classes: int) -> Learner:
    """The network of a card, ready to learn."""
    from visionkit.train.detect_rcnn import RCNNLearner
    from visionkit.train.detect_ssd import SSDLearner

    name, size_hw = table["network"], tuple(table["input"]["size_hw"])
    arguments = {**table["args"], "classes": classes, "size_hw": size_hw}
    network = build_network(name, arguments, "detects")
    outputs = set(network.output) if isinstance(network.output, dict) else set()
    if outputs == {"class_logits", "box_deltas"} and name.startswith("ssd"):
        return SSDLearner(network, arguments)
    if outputs == {"boxes", "scores", "class_id", "count"} and name in RCNN_RULES and len(network.inputs) == 2:
        return RCNNLearner(network, rcnn_rule(name, arguments.get("rule")), classes=classes)
    raise UsageError("unknown-network", f"{name} is no detector that VisionKit trains.")


def _start(learner: Learner, name: str, source: Card, tell: Callable[[str], None]) -> None:
    """Begin with the source's weights."""
    from visionkit.train.detect_rcnn import freeze_norms

    start_from(learner.network, source, tell)
    if name in RCNN_RULES:
        freeze_norms(learner.network)


def _facts(
    plan: DetectPlan,
    table: Mapping[str, Any],
    parts: tuple[list[DetectionSample], list[DetectionSample]],
    checked: CheckedDetections,
    source: Card | None,
) -> dict[str, Any]:
    """What makes a training itself besides the loop's options; images and boxes count by what is in them."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps([[sample.name, checked.digests[sample.name]] for sample in part]).encode())
        for sample in part:
            for array in (sample.xyxy, sample.class_id, sample.difficult, sample.crowd):
                digest.update(array.tobytes())
    return {
        **card_facts(table, source),
        "images": digest.hexdigest()[:16],
        "batch": plan.batch,
        "repeats": plan.repeats,
        "augment": asdict(plan.augmentation),
    }
