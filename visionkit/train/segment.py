"""A segmentation network from a folder of images and masks: data, split, network and loop. Any Keras backend."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from visionkit.errors import InputError, UsageError
from visionkit.tasks.input_rule import InputRule
from visionkit.train.class_folders import Problem
from visionkit.train.fit import FitOptions, FitResult, fit
from visionkit.train.mask_folders import (
    VOID,
    LabelSet,
    MaskSample,
    read_labels,
    read_mask_folders,
)
from visionkit.train.mask_images import CheckedMasks, MaskBatches, SegmentMaterial, check_masks, class_weights
from visionkit.train.segment_augment import SegmentAugmentation
from visionkit.train.segment_goal import SegmentGoal
from visionkit.train.split import hold_back, write_parts
from visionkit.train.transfer import begun_by_seed, build_network, card_facts, new_card, source_card, start_from
from visionkit.weights import Card

__all__ = ["SegmentPlan", "SegmentTraining", "train_segmenter"]

STANDARD = FitOptions(epochs=80, learning_rate=2e-3, schedule="poly", smoothing=0.0)
SIDE = 256  # of the shorter side of the network's input, at most, where nothing is said


@dataclass(frozen=True)
class SegmentPlan:
    """What to train, on what, how.

    Args:
        data: folder of images and masks (`read_mask_folders`).
        out: folder of the training, which becomes the model's.
        labels: as `read_labels` takes it; without, the classes are the numbers in the masks.
        void: further numbers in masks that mean "no class".
        network: a function of `visionkit.nets`, with keyword arguments `args`.
        source: name or folder of a card to start from: weights of layers with the same name and shape, its input rule,
            and its network where `network` is None.
        size_hw: of whole images as the network sees them; without, the source's, or the images' own up to 256.
        crop_hw: of the views in training; without, `size_hw`.
        weighting: of the classes in the loss: `none`, `median` or `sqrt` (`class_weights`).
        val: fraction that chooses the epoch, where the data is not split itself.
    """

    data: Path
    out: Path
    labels: str | None = None
    void: tuple[int, ...] = ()
    network: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    size_hw: tuple[int, int] | None = None
    crop_hw: tuple[int, int] | None = None
    resize: str | None = None
    weighting: str = "sqrt"
    val: float = 0.2
    batch: int = 4
    workers: int = 1
    augmentation: SegmentAugmentation = field(default_factory=SegmentAugmentation)
    options: FitOptions = STANDARD


@dataclass
class SegmentTraining:
    """A training that has ended or was interrupted.

    Args:
        table: the card of the model, without weights and metrics, as a TOML table.
        goal: holds the validation samples and answers about them, with the best weights.
    """

    network: keras.Model
    table: dict[str, Any]
    material: SegmentMaterial
    learnt: list[MaskSample]
    problems: list[Problem]
    goal: SegmentGoal
    result: FitResult


def train_segmenter(
    plan: SegmentPlan,
    *,
    report: Callable[[dict[str, Any]], None] | None = None,
    tell: Callable[[str], None] = lambda line: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> SegmentTraining:
    """Train as planned, or go on with what `plan.out` holds. Writes `split.json` and checkpoints there.

    On a GPU the arithmetic is mixed precision, on a CPU never.

    Args:
        report: is given a row of numbers after each epoch; `tell` lines about data and network.
        should_stop: asked after every step; true saves and returns.

    Raises:
        InputError: the data holds no pairs, or not enough.
        ModelError: the card to start from does not fit; `training-diverged`.
        UsageError: `plan.out` holds another training; the network does not take the arguments.
    """
    folders = read_mask_folders(plan.data)
    source = None if plan.source is None else source_card(plan.source, ("segment", "classify"))
    material = SegmentMaterial(folders, _given_labels(plan))
    checked = check_masks(material)
    labels = _numbered(checked) if not material.labels.names else material.labels.names
    if len(labels) < 2:
        raise InputError("one-class", f"The masks hold one class only, {labels}; a network needs two to tell apart.")
    pixels = checked.pixels[:, : len(labels)]
    learn, held = hold_back(
        checked.samples,
        folders.parts,
        val=plan.val,
        seed=plan.options.seed,
        digests=checked.digests,
        problems=checked.problems,
    )
    table = _card_table(plan, source, labels, material(learn[0])[0].shape[:2])
    rule = InputRule.from_card(Card(name=plan.out.name, folder=plan.out, **table))
    tell(f"{len(labels)} classes, {len(learn)} images to learn from, {len(held)} to choose the epoch on.")
    rows = {sample.name: k for k, sample in enumerate(checked.samples)}
    weights = class_weights(pixels[[rows[sample.name] for sample in learn]], plan.weighting)
    crop_hw = plan.crop_hw or rule.size_hw
    with begun_by_seed(plan.options.seed) as precision:
        network = _build(table["network"], table["args"], len(labels), crop_hw)
        viewer = _build(table["network"], table["args"], len(labels), rule.size_hw)
        if source is not None:
            start_from(network, source, tell)
        tell(f"{table['network']}, {network.count_params():,} parameters, {keras.backend.backend()}, {precision}")
        batches = MaskBatches(
            material,
            learn,
            rule,
            plan.augmentation,
            crop_hw=crop_hw,
            batch=plan.batch,
            seed=plan.options.seed,
            workers=plan.workers,
        )
        goal = SegmentGoal(network, viewer, material, held, rule=rule, weights=weights)
        plan.out.mkdir(parents=True, exist_ok=True)
        write_parts(plan.out / "split.json", labels, learn, held)
        result = fit(
            network,
            batches,
            goal,
            out=plan.out,
            options=plan.options,
            facts=_facts(plan, table, (learn, held), checked, source),
            report=report,
            should_stop=should_stop,
        )
        viewer.set_weights(network.get_weights())
    return SegmentTraining(viewer, table, material, learn, checked.problems, goal, result)


def _given_labels(plan: SegmentPlan) -> LabelSet:
    if plan.labels is None:
        return LabelSet((), frozenset(plan.void))
    given = read_labels(plan.labels)
    return LabelSet(given.names, given.void | frozenset(plan.void))


def _numbered(checked: CheckedMasks) -> tuple[str, ...]:
    """Names for classes that nobody named: their numbers, up to the largest one in the masks."""
    there = np.flatnonzero(checked.pixels[:, :VOID].sum(axis=0))
    return tuple(str(k) for k in range(int(there.max()) + 1)) if len(there) else ()


def _card_table(
    plan: SegmentPlan, source: Card | None, labels: tuple[str, ...], first_hw: tuple[int, ...]
) -> dict[str, Any]:
    """The new model's card: what of the source it keeps, and its own classes."""
    network = plan.network or (source.network if source is not None and source.task == "segment" else "unet")
    scale = min(1.0, SIDE / min(first_hw))
    scratch = {"size_hw": [max(1, round(n * scale)) for n in first_hw], "resize": "stretch", "preset": "torch"}
    rule = scratch if source is None else source.input
    return new_card("segment", network, labels, plan, source, rule=rule)


def _build(name: str, args: Mapping[str, Any], classes: int, size_hw: tuple[int, ...]) -> keras.Model:
    model = build_network(name, {**args, "classes": classes, "size_hw": tuple(size_hw)}, "segments")
    if isinstance(model.output, dict) or tuple(model.output.shape[1:]) != (*size_hw, classes):
        raise UsageError("unknown-network", f"{name} gives no map of classes at its input's size; it cannot segment.")
    return model


def _facts(
    plan: SegmentPlan,
    table: Mapping[str, Any],
    parts: tuple[list[MaskSample], list[MaskSample]],
    checked: CheckedMasks,
    source: Card | None,
) -> dict[str, Any]:
    """What makes a training itself besides the loop's options; images and masks count by their bytes."""
    listed = [[(sample.name, checked.digests[sample.name]) for sample in part] for part in parts]
    change = plan.augmentation
    return {
        **card_facts(table, source),
        "images": hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16],
        "batch": plan.batch,
        "crop": list(plan.crop_hw or table["input"]["size_hw"]),
        "weighting": plan.weighting,
        "augment": change.strength,
        "flip": change.flip,
    }
