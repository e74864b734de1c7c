"""A classifier from a folder of class folders: data, split, network and loop put together. Any Keras backend."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError, ModelError
from visionkit.io import printable_name
from visionkit.tasks.input_rule import InputRule
from visionkit.train.augment import Augmentation
from visionkit.train.class_folders import PARTS, ClassFolders, Problem, Sample, read_class_folders
from visionkit.train.class_images import Checked, TrainingBatches, ValidationBatches, check_images
from visionkit.train.distort import Distortion
from visionkit.train.fit import FitOptions, FitResult, fit
from visionkit.train.split import Split, block_split, read_split, stratified_split
from visionkit.train.transfer import begun_by_seed, build_network, card_facts, new_card, source_card
from visionkit.weights import Card

__all__ = ["ClassifyPlan", "ClassifyTraining", "train_classifier"]

SCRATCH = {"depths": [1, 1, 1, 1], "width": 32}
SIZE = (96, 96)
SMALL = 64  # below this many pixels, the stem keeps the size
LOGITS = "logits"


@dataclass(frozen=True)
class ClassifyPlan:
    """What to train, on what, how.

    Args:
        data: folder of class folders.
        out: folder of the training, which becomes the model's.
        network: a function of `visionkit.nets`, with keyword arguments `args`; of a `source` its own.
        source: name or folder of a card to start from: its weights without the last layer, its input rule.
        freeze: with a source, let only the new last layer learn.
        size_hw: of the network's input; without, the source's or 96x96.
        resize: how images become that size; without, the source's or `shortest_side`.
        val: fraction of each class that chooses the epoch; `test` is held back from training altogether.
        split: a file written by an earlier training, in the place of both.
        split_by: `random` in each class, or `blocks` of file names over all classes.
        distort: put images down crooked, before `augmentation` and beside it: those that are learnt from in another
            way each time, not at all for the first fifth of the epochs and then more and more until half of them;
            those that choose the epoch always in the same, and wholly.
    """

    data: Path
    out: Path
    network: str = "resnet"
    args: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    freeze: bool = False
    size_hw: tuple[int, int] | None = None
    resize: str | None = None
    val: float = 0.2
    test: float = 0.0
    split: Path | None = None
    split_by: str = "random"
    batch: int = 32
    workers: int = 1
    distort: Distortion | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    options: FitOptions = field(default_factory=FitOptions)


@dataclass
class ClassifyTraining:
    """A training that has ended or was interrupted.

    Args:
        table: the card of the model, without weights and metrics, as a TOML table.
        logits: float32 (N, L) of the validation samples, with the best weights; empty when interrupted.
    """

    network: keras.Model
    table: dict[str, Any]
    folders: ClassFolders
    split: Split
    problems: list[Problem]
    held: list[Sample]
    logits: npt.NDArray[np.float32]
    result: FitResult


def train_classifier(
    plan: ClassifyPlan,
    *,
    report: Callable[[dict[str, Any]], None] | None = None,
    tell: Callable[[str], None] = lambda line: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ClassifyTraining:
    """Train as planned, or go on with what `plan.out` holds. Writes `split.json` and checkpoints there.

    On a GPU the arithmetic is mixed precision, on a CPU never.

    Args:
        report: is given a row of numbers after each epoch; `tell` lines about data and network.
        should_stop: asked after every step; true saves and returns.

    Raises:
        InputError: the data is not class folders, or not enough.
        ModelError: the card to start from does not fit; `training-diverged`.
        UsageError: `plan.out` holds another training; the network does not take the arguments.
    """
    folders = read_class_folders(plan.data)
    if len(folders.classes) < 2:
        raise InputError(
            "one-class",
            f"{printable_name(plan.data)} has images of one class only, {folders.classes[0]!r}; a classifier needs at "
            "least two. Add a folder of something else.",
        )
    source = None if plan.source is None else source_card(plan.source, ("classify",))
    table = _card_table(plan, source, folders.classes)
    checked = check_images(folders)
    split = _split(plan, folders, checked)
    rule = InputRule.from_card(Card(name=plan.out.name, folder=plan.out, **table))
    tell(_told(folders, split))
    with begun_by_seed(plan.options.seed) as precision:
        network = _network(plan, table, source)
        tell(f"{table['network']}, {network.count_params():,} parameters, {keras.backend.backend()}, {precision}")
        learn, held = split.select("train", checked.samples), split.select("val", checked.samples)
        batch = min(plan.batch, len(learn))
        batches = TrainingBatches(
            folders,
            learn,
            rule,
            plan.augmentation,
            batch=batch,
            seed=plan.options.seed,
            workers=plan.workers,
            distort=plan.distort,
            ramp=(plan.options.epochs // 5, plan.options.epochs // 2),
        )
        validation = ValidationBatches(folders, held, rule, batch=batch, distort=plan.distort)
        plan.out.mkdir(parents=True, exist_ok=True)
        facts = _facts(plan, table, split, checked, source)
        result = fit(
            network,
            batches,
            validation,
            out=plan.out,
            options=plan.options,
            facts=facts,
            report=report,
            should_stop=should_stop,
        )
        split.write(plan.out / "split.json", _split_facts(plan, folders))
        done = result.ended != "interrupted"
        logits = validation.logits(network.predict_on_batch) if done else np.zeros((0, len(folders.classes)))
    return ClassifyTraining(
        network, table, folders, split, checked.problems, held, np.asarray(logits, np.float32), result
    )


def _card_table(plan: ClassifyPlan, source: Card | None, classes: tuple[str, ...]) -> dict[str, Any]:
    """The new model's card: what of the source it keeps, and its own classes."""
    if source is not None:
        return new_card("classify", source.network, classes, plan, source, rule=source.input)
    size_hw = plan.size_hw or SIZE
    args = {**SCRATCH, "stem": "small" if min(size_hw) < SMALL else "imagenet"} if plan.network == "resnet" else {}
    rule = {"size_hw": list(size_hw), "resize": "shortest_side", "preset": "torch"}
    return new_card("classify", plan.network, classes, plan, None, rule=rule, args=args)


def _split(plan: ClassifyPlan, folders: ClassFolders, checked: Checked) -> Split:
    """Given, in the folders themselves, or made."""
    if plan.split is not None:
        split = read_split(plan.split, checked.samples)
    elif folders.parts:
        parts = {part: [sample for sample in checked.samples if folders.parts[sample.name] == part] for part in PARTS}
        split = Split(**{part: tuple(sample.name for sample in samples) for part, samples in parts.items()})
        if not split.val:
            made = stratified_split(parts["train"], val=plan.val, seed=plan.options.seed, digests=checked.digests)
            split = Split(made.train, made.val, split.test)
    elif plan.split_by == "blocks":
        split = block_split(checked.samples, val=plan.val, test=plan.test, seed=plan.options.seed)
    else:
        split = stratified_split(
            checked.samples, val=plan.val, test=plan.test, seed=plan.options.seed, digests=checked.digests
        )
    if not split.train or not split.val:
        raise InputError("split-invalid", "The split leaves no image to learn from, or none to choose the epoch on.")
    _tell_leaks(split, checked)
    return split


def _tell_leaks(split: Split, checked: Checked) -> None:
    """Note images that are in two parts of a split which somebody else made."""
    part_of = {name: part for part in PARTS for name in getattr(split, part)}
    seen: dict[str, str] = {}
    for name in part_of:
        first = seen.setdefault(checked.digests[name], name)
        if part_of[first] != part_of[name]:
            reason = f"({part_of[name]}) is the same image as {first} ({part_of[first]}): scores will be too good"
            checked.problems.append(Problem("leak", name, reason))


def _told(folders: ClassFolders, split: Split) -> str:
    counts = f"{len(split.train)} to learn from, {len(split.val)} to choose the epoch on"
    held = f", {len(split.test)} held back" if split.test else ""
    return f"{len(folders.classes)} classes, {counts}{held}."


def _network(plan: ClassifyPlan, table: Mapping[str, Any], source: Card | None) -> keras.Model:
    """The network for the new classes, with the source's weights in every layer but the last."""
    size_hw = tuple(table["input"]["size_hw"])
    network = _build(table["network"], table["args"], len(table["labels"]), size_hw)
    if source is None:
        return network
    from visionkit.weights.loading import load_weights

    classes = len(source.labels) or source.args.get("classes", 1000)
    original = _build(source.network, source.args, classes, tuple(source.input["size_hw"]))
    load_weights(original, source)
    _copy_weights(original, network, source.name)
    if plan.freeze:
        for layer in network.layers:
            layer.trainable = layer.name == LOGITS
    return network


def _build(name: str, args: Mapping[str, Any], classes: int, size_hw: tuple[int, ...]) -> keras.Model:
    return build_network(name, {**args, "classes": classes, "size_hw": size_hw}, "classifies")


def _copy_weights(original: keras.Model, network: keras.Model, name: str) -> None:
    """Every layer's weights but those of the last one; a layer of another shape (a flattened size) stays as it is."""
    layers = {layer.name: layer for layer in original.layers}
    taken = 0
    for layer in network.layers:
        there = layers.get(layer.name)
        weights = [] if there is None or layer.name == LOGITS else there.get_weights()
        if weights and [w.shape for w in weights] == [w.shape for w in layer.get_weights()]:
            layer.set_weights(weights)
            taken += 1
    if not taken:
        raise ModelError("model-unfit", f"No layer of {name} has the shape that this size needs; leave --imgsz out.")


def _facts(
    plan: ClassifyPlan, table: Mapping[str, Any], split: Split, checked: Checked, source: Card | None
) -> dict[str, Any]:
    """What makes a training itself besides the loop's options; images count by their bytes."""
    parts = {part: [(name, checked.digests[name]) for name in getattr(split, part)] for part in ("train", "val")}
    images = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    change = plan.augmentation
    return {
        **card_facts(table, source),
        "freeze": plan.freeze,
        "images": images[:16],
        "batch": plan.batch,
        "augment": change.strength,
        "flip": change.flip,
        **({} if plan.distort is None else {"distort": dataclasses.asdict(plan.distort)}),
    }


def _split_facts(plan: ClassifyPlan, folders: ClassFolders) -> dict[str, Any]:
    made = {"val_fraction": plan.val, "test_fraction": plan.test, "by": plan.split_by, "seed": plan.options.seed}
    given = plan.split is not None or bool(folders.parts)
    return {"classes": list(folders.classes), **({} if given else made)}
