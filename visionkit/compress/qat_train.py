"""A card's classifier trained on to live with eight bits, from a folder of class folders."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from visionkit.compress.qat import freeze_ranges, quantize_aware
from visionkit.errors import ModelError, UsageError
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.load_classify import card_network, card_rule
from visionkit.train.augment import Augmentation
from visionkit.train.class_folders import PARTS, ClassFolders, read_class_folders
from visionkit.train.class_images import Checked, TrainingBatches, ValidationBatches, check_images
from visionkit.train.fit import Batches, FitOptions, FitResult, Goal, Held, fit
from visionkit.train.split import Split, read_split, stratified_split
from visionkit.weights import Card, load_card

__all__ = ["QatOptions", "QatTraining", "fine_tune", "input_range", "train_quantized"]

Floats = npt.NDArray[np.float32]
CALIBRATION = 8  # batches


@dataclass(frozen=True)
class QatOptions:
    """How a network is trained to live with eight bits.

    Args:
        epochs: passes over the images.
        learning_rate: at its highest, far below that of the first training.
        batch: images in a batch.
        seed: of order and augmentation.
        frozen: share of the epochs, at the end, in which the ranges of activations stay where they are.
        val: fraction of each class that chooses the epoch, where no split is given.
        split: file of an earlier training; its `test` is not looked at.
        batch_norm, ranges, keep_float: as `quantize_aware` takes them.
        augmentation: of the images.
    """

    epochs: int = 8
    learning_rate: float = 1e-4
    batch: int = 32
    seed: int = 0
    frozen: float = 0.3
    val: float = 0.2
    split: Path | None = None
    batch_norm: str = "fold"
    ranges: str = "moving"
    keep_float: tuple[str, ...] = ()
    augmentation: Augmentation = field(default_factory=Augmentation)
    workers: int = 1


@dataclass
class QatTraining:
    """A training that has ended.

    Args:
        network: with the weights of its best epoch.
        card, rule: of the classifier.
        samples: inputs (1, H, W, 3) that were learnt from, a few, to try a conversion on.
    """

    network: keras.Model
    card: Card
    rule: InputRule
    split: Split
    result: FitResult
    samples: list[Floats]


def train_quantized(
    card: Card | str | os.PathLike[str],
    data: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    kind: str = "qat-int8",
    overwrite: bool = False,
    teacher: Card | str | os.PathLike[str] | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
    tell: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Path:
    """Train a card's classifier on with rounding, and write it as an artifact of eight bits; its path.

    Args:
        card: of a classifier with one head, its name or its folder.
        data: class folders, called as the card's labels.
        path: of the `.tflite`.
        out: folder for checkpoints, from which an interrupted training goes on; `path` without its suffix otherwise.
        kind: `qat-int8` takes and gives float32 at the network's ends, `qat-int8-io` int8.
        overwrite: replace `path`.
        teacher: a float classifier of the same classes and preparation, the card itself among them, whose answers are
            learnt beside the labels (`visionkit.compress.distil`).
        report: is given a row of numbers after each epoch; `tell` lines about the conversion.
        options: of `QatOptions`.

    Raises:
        InputError: the data is not class folders, or not of these classes.
        ModelError: `model-unfit`; `training-diverged`; the artifact differs from the network.
        UsageError: `out` holds another training; no such kind.
    """
    from visionkit.compress.qat_artifact import KINDS, export_quantized

    if kind not in KINDS:
        raise UsageError("kind-unknown", f"kind must be one of {', '.join(KINDS)}. Received: {kind!r}.")
    folder = Path(path).with_suffix("") if out is None else Path(out)
    card = card if isinstance(card, Card) else load_card(card)
    taught_by = None if teacher is None else _teacher(teacher, card)
    training = fine_tune(card, data, folder, QatOptions(**options), teacher=taught_by, report=report, tell=tell)
    made = export_quantized(training.network, training.card, path, kind=kind, overwrite=overwrite, tell=tell)
    return made.path


def fine_tune(
    card: Card | str | os.PathLike[str],
    data: str | os.PathLike[str],
    out: Path,
    options: QatOptions,
    *,
    teacher: keras.Model | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
    tell: Callable[[str], None] = lambda line: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> QatTraining:
    """The network of a card's classifier, made to round and trained on, with the weights of its best epoch.

    The epoch is chosen on the split's `val`; what is held back is not opened.

    Args:
        teacher: a float classifier of the same inputs and classes, whose answers are learnt, too.
        should_stop: asked after every step; true saves to `out` and returns.
    """
    card = card if isinstance(card, Card) else load_card(card)
    _check_card(card)
    folders = read_class_folders(Path(data), card.labels)
    checked = check_images(folders)
    split = _split(options, folders, checked)
    rule = card_rule(card)
    keras.utils.set_random_seed(options.seed)
    learn, held = split.select("train", checked.samples), split.select("val", checked.samples)
    batch = min(options.batch, len(learn))
    batches = TrainingBatches(
        folders, learn, rule, options.augmentation, batch=batch, seed=options.seed, workers=options.workers
    )
    validation = ValidationBatches(folders, held, rule, batch=batch)
    samples = [images for images, _ in islice(batches.stream(0), CALIBRATION)]
    network = quantize_aware(
        card_network(card, rule).model(),
        batch_norm=options.batch_norm,
        ranges=options.ranges,
        keep_float=options.keep_float,
        input_range=input_range(rule),
        samples=samples,
    )
    tell(f"{card.name}: {len(learn)} images to learn from, {len(held)} to choose the epoch on.")
    fitting = FitOptions(
        epochs=options.epochs, learning_rate=options.learning_rate, seed=options.seed, weight_decay=1e-3, warmup=1
    )
    start = round(options.epochs * (1 - options.frozen)) * batches.steps_per_epoch
    stream: Batches = _Freezing(batches, network, start)
    goal: Held | Goal = validation
    if teacher is not None:
        from visionkit.compress.distil import taught

        stream, goal = taught(stream, validation, teacher, fitting)
    facts = {"card": card.name, "images": _digest(split, checked), **_facts(options), "taught": teacher is not None}
    result = fit(network, stream, goal, out=out, options=fitting, facts=facts, report=report, should_stop=should_stop)
    return QatTraining(network, card, rule, split, result, [images[:1] for images in samples])


def _teacher(teacher: Card | str | os.PathLike[str], card: Card) -> keras.Model:
    """The teacher's network at the pupil's size. Raises ModelError `model-unfit` where it sees or answers otherwise."""
    found = teacher if isinstance(teacher, Card) else load_card(teacher)
    rule, theirs = card_rule(card), card_rule(found)
    if (rule.mean, rule.std, rule.channel_order) != (theirs.mean, theirs.std, theirs.channel_order):
        raise ModelError("model-unfit", f"{found.name} takes images prepared otherwise than {card.name}: no teacher.")
    if found.labels != card.labels:
        raise ModelError("model-unfit", f"{found.name} knows other classes than {card.name}: no teacher.")
    return card_network(found, rule).model()


def input_range(rule: InputRule) -> tuple[float, float]:
    """Between which numbers the network's input lies, whatever the image."""
    ends = [rule.normalize(np.full((*rule.size_hw, 3), level, np.uint8)) for level in (0, 255)]
    return min(0.0, *(float(end.min()) for end in ends)), max(0.0, *(float(end.max()) for end in ends))


class _Freezing:
    """Batches that hold the network's ranges where they are from a step on."""

    def __init__(self, batches: TrainingBatches, network: keras.Model, start: int) -> None:
        self._batches, self._network, self._start = batches, network, start
        self.steps_per_epoch = batches.steps_per_epoch

    def stream(self, first: int) -> Iterator[tuple[Floats, Floats]]:
        """As `TrainingBatches.stream`."""
        inner = self._batches.stream(first)
        try:
            for step, batch in enumerate(inner, first):
                if step == max(self._start, first):
                    freeze_ranges(self._network, frozen=step >= self._start)
                yield batch
        finally:
            inner.close()  # type: ignore[attr-defined]


def _check_card(card: Card) -> None:
    if card.task != "classify" or card.heads or not card.labels:
        what = f"a model to {card.task}" if card.task != "classify" else "of several heads, or without labels"
        raise ModelError(
            "model-unfit", f"{card.name} is {what}; quantization-aware training takes a classifier with one head."
        )


def _split(options: QatOptions, folders: ClassFolders, checked: Checked) -> Split:
    """Given, in the folders themselves, or made."""
    if options.split is not None:
        return read_split(options.split, checked.samples)
    if not folders.parts:
        return stratified_split(checked.samples, val=options.val, seed=options.seed, digests=checked.digests)
    parts = {part: [sample for sample in checked.samples if folders.parts[sample.name] == part] for part in PARTS}
    if parts["val"]:
        return Split(*(tuple(sample.name for sample in parts[part]) for part in ("train", "val")))
    return stratified_split(parts["train"], val=options.val, seed=options.seed, digests=checked.digests)


def _digest(split: Split, checked: Checked) -> str:
    """Of the images, by their bytes."""
    names: Sequence[Any] = [[(name, checked.digests[name]) for name in part] for part in (split.train, split.val)]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]


def _facts(options: QatOptions) -> dict[str, Any]:
    names = ("batch", "frozen", "batch_norm", "ranges", "keep_float")
    change = options.augmentation
    found = {name: getattr(options, name) for name in names}
    return {**found, "keep_float": list(options.keep_float), "augment": change.strength, "flip": change.flip}
