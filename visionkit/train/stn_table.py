"""Table 1 of Jaderberg et al., Spatial transformer networks, NIPS 2015, over again: one training for each of its cells.

A cell is a network, the transform of its transformer, a distortion and a seed. Every network of a column has about as
many parameters as the others (`TablePlan.parameters`): what a transformer's localisation network takes, the classifier
behind it lacks. Each training sees every digit distorted anew in every epoch; all cells of a column are measured on the
same distorted digits of the test part.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from visionkit.errors import UsageError
from visionkit.io import write_json
from visionkit.nets.blocks import classifier_head, image_input
from visionkit.nets.spatial_transformer import with_transformer
from visionkit.train.digit_distortions import DISTORTIONS, canvas_hw, distort_digits
from visionkit.train.digit_files import Digits
from visionkit.train.fit import FitOptions, fit

__all__ = [
    "ROWS",
    "TABLE_TRANSFORMS",
    "Cell",
    "TablePlan",
    "cell_network",
    "cell_width",
    "read_cells",
    "run_cells",
    "table_cells",
]

ROWS = ("fcn", "cnn", "st-fcn", "st-cnn")
TABLE_TRANSFORMS = ("affine", "projective", "tps")
CLASSES, BATCH = 10, 64
NARROWEST = 4
HELD = {"val": 1000, "test": 4000}  # pictures to measure on, at least: small parts are distorted several times
SEEDS = {"val": 1, "test": 2}
NUMBERS = ("error", "val_error", "pictures", "count", "seconds", "processor_seconds")
Size = tuple[int, int]


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One training. `transform` is `none` for the rows without a transformer."""

    row: str
    transform: str
    distortion: str
    seed: int

    @property
    def name(self) -> str:
        """Of its files: letters, digits, hyphens and underscores."""
        how = "" if self.transform == "none" else f"-{self.transform}"
        return f"{self.row}{how}_{self.distortion}_{self.seed}"


@dataclass(frozen=True, slots=True)
class TablePlan:
    """What is trained, and how. Rates and decay are ours; the paper has SGD over 150,000 batches of 256.

    Args:
        parameters: of each network, as nearly as its width allows; the paper has about 400,000.
    """

    rows: Sequence[str] = ROWS
    transforms: Sequence[str] = TABLE_TRANSFORMS
    distortions: Sequence[str] = DISTORTIONS
    seeds: Sequence[int] = (0, 1, 2)
    epochs: int = 60
    parameters: int = 400_000
    learning_rate: float = 2e-3


def table_cells(plan: TablePlan) -> list[Cell]:
    """All trainings, seed by seed, so that those of the first seeds are a whole table."""
    kinds = [
        (row, transform) for row in plan.rows for transform in (plan.transforms if row.startswith("st-") else ("none",))
    ]
    return [
        Cell(row, transform, distortion, seed)
        for seed, distortion, (row, transform) in itertools.product(plan.seeds, plan.distortions, kinds)
    ]


def cell_width(cell: Cell, size_hw: Size, parameters: int) -> int:
    """Units or filters of each layer of a cell's classifier: as many as `parameters` of the whole network allow.

    Raises:
        UsageError: `parameters-few`; the localisation network leaves nothing for a classifier.
    """
    one, two, three = (int(_network(cell, size_hw, width).count_params()) for width in (1, 2, 3))
    bend = three - 2 * two + one  # the count is a polynomial of degree 2: Newton's form of it

    def count(width: int) -> int:
        return one + (width - 1) * (two - one) + (width - 1) * (width - 2) // 2 * bend

    if count(NARROWEST) > parameters:
        raise UsageError(
            "parameters-few",
            f"A network {cell.row} of {parameters:,} parameters has no room for a classifier, which needs "
            f"{count(NARROWEST):,} with what comes before it. Give --parameters more.",
        )
    width = NARROWEST
    while count(width + 1) <= parameters:
        width += 1
    return width


def cell_network(cell: Cell, size_hw: Size, width: int) -> keras.Model:
    """The network of a cell for digits of `size_hw`; its weights depend on the cell's seed alone.

    `fcn` has two fully connected layers; `cnn` convolutions of 9 x 9 and 7 x 7, each with a pooling of 2. With a
    transformer, the classifier sees a picture of the digits' own size, whatever the canvas. The localisation network of
    `st-fcn` is three fully connected layers of 32, that of `st-cnn` two convolutions (`with_transformer`'s `digits`).
    """
    keras.utils.set_random_seed(cell.seed)
    return _network(cell, size_hw, width)


def _network(cell: Cell, size_hw: Size, width: int) -> keras.Model:
    classifier = _classifier(cell, size_hw, width)
    if cell.transform == "none":
        return classifier
    return with_transformer(
        classifier,
        transform=cell.transform,
        size_hw=canvas_hw(cell.distortion, size_hw),
        localisation="dense" if cell.row == "st-fcn" else "digits",
        border="zero",
    )


def _classifier(cell: Cell, size_hw: Size, width: int) -> keras.Model:
    seen = canvas_hw(cell.distortion, size_hw) if cell.transform == "none" else size_hw
    image = image_input(cell.row, seen, minimum=28, channels=1, fixed=True)
    x = image
    if cell.row.endswith("cnn"):
        for k, side in enumerate((9, 7), 1):
            x = layers.Conv2D(width, side, activation="relu", kernel_initializer="he_normal", name=f"conv{k}")(x)
            x = layers.MaxPooling2D(2, name=f"pool{k}")(x)
        return keras.Model(image, classifier_head(layers.Flatten(name="flatten")(x), CLASSES), name="cnn")
    x = layers.Flatten(name="flatten")(x)
    for k in (1, 2):
        x = layers.Dense(width, activation="relu", kernel_initializer="he_normal", name=f"fc{k}")(x)
    return keras.Model(image, classifier_head(x, CLASSES), name="fcn")


class DigitBatches:
    """Batches to learn from: each epoch all digits in another order and distorted anew, by seed and epoch alone."""

    def __init__(self, digits: Digits, cell: Cell, batch: int = BATCH) -> None:
        self._images, self._labels = digits.parts["train"]
        self._cell, self._batch = cell, min(batch, len(self._labels))
        self.steps_per_epoch = len(self._labels) // self._batch

    def stream(self, first: int) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """Batches number `first`, `first` + 1 …: pictures (B, H, W, 1), and classes as (B, 10)."""
        for step in itertools.count(first):
            epoch, part = divmod(step, self.steps_per_epoch)
            order = np.random.default_rng((self._cell.seed, epoch)).permutation(len(self._labels))
            rows = order[part * self._batch : (part + 1) * self._batch]
            rng = np.random.default_rng((self._cell.seed, epoch, part))
            pictures = distort_digits(self._images[rows], self._cell.distortion, rng)
            yield pictures, np.eye(CLASSES, dtype=np.float32)[self._labels[rows]]


class HeldDigits:
    """The digits of a part, distorted the same way for every cell of a column."""

    def __init__(self, digits: Digits, part: str, distortion: str, batch: int = 500) -> None:
        images, labels = digits.parts[part]
        copies = -(-HELD[part] // len(labels))
        rng = np.random.default_rng((SEEDS[part], DISTORTIONS.index(distortion)))
        self.labels = np.tile(labels, copies)
        self._pictures = distort_digits(np.tile(images, (copies, 1, 1)), distortion, rng)
        self._batch = batch

    def logits(self, predict: Callable[[npt.NDArray[np.float32]], Any]) -> npt.NDArray[np.float32]:
        """Logits (N, 10)."""
        parts = range(0, len(self.labels), self._batch)
        return np.concatenate([np.asarray(predict(self._pictures[k : k + self._batch])) for k in parts])


def run_cells(
    plan: TablePlan,
    digits: Digits,
    out: Path,
    *,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train every cell of the plan that has no result in `out` yet; whether all have one now.

    Args:
        report: is given each new result.
        should_stop: asked after every step; true saves where the training stands and returns.

    Raises:
        UsageError: `training-differs`; `out` holds a table of other settings. `parameters-few`; see `cell_width`.
    """
    size_hw = digits.parts["train"][0].shape[1:3]
    todo = [cell for cell in table_cells(plan) if not _finished(cell, plan, digits, out)]
    widths = {kind: cell_width(Cell(*kind, 0), size_hw, plan.parameters) for kind in dict.fromkeys(map(_kind, todo))}
    for cell in todo:
        if should_stop():
            return False
        network = cell_network(cell, size_hw, widths[_kind(cell)])
        result = _train(cell, network, plan, digits, out=out, should_stop=should_stop)
        if result is None:
            return False
        report(result)
        keras.utils.clear_session()
    return True


def read_cells(out: Path) -> list[dict[str, Any]]:
    """The results in `out`.

    Raises:
        UsageError: `training-unreadable`; a file there is none.
    """
    return [_read(path) for path in sorted(out.glob("*_*_[0-9]*.json"))]


def _read(path: Path) -> dict[str, Any]:
    try:
        result = dict(json.loads(path.read_text(encoding="utf-8")))
        cell = Cell(*(result[field.name] for field in dataclasses.fields(Cell)))
        numbers = [float(result[key]) for key in NUMBERS]
        if cell.name != path.stem or not all(np.isfinite(numbers)):
            raise ValueError("another cell's, or without numbers")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            "training-unreadable", f"{path} is not a result of this table ({error!r}). Remove it, and go on."
        ) from error
    return result


def _finished(cell: Cell, plan: TablePlan, digits: Digits, out: Path) -> bool:
    """Whether `out` has a result of the cell, and one of this plan."""
    path = out / f"{cell.name}.json"
    if not path.exists():
        return False
    result = _read(path)
    asked = {**_facts(cell, plan, digits), "epochs": plan.epochs, "learning_rate": plan.learning_rate}
    differing = [
        f"{key} {result.get(key)} then, {value} now" for key, value in asked.items() if result.get(key) != value
    ]
    if differing:
        raise UsageError(
            "training-differs",
            f"{path} was trained with other settings: {', '.join(differing)}. Give the same ones, or another --out.",
        )
    return True


def _facts(cell: Cell, plan: TablePlan, digits: Digits) -> dict[str, Any]:
    """What makes a training itself, besides `FitOptions`."""
    return {
        **dataclasses.asdict(cell),
        "data": digits.name,
        "learnt": len(digits.parts["train"][1]),
        "batch": BATCH,
        "parameters": plan.parameters,
    }


def _kind(cell: Cell) -> tuple[str, str, str]:
    return cell.row, cell.transform, cell.distortion


def _train(
    cell: Cell,
    network: keras.Model,
    plan: TablePlan,
    digits: Digits,
    *,
    out: Path,
    should_stop: Callable[[], bool],
) -> dict[str, Any] | None:
    """The result of a cell, written beside the folder of its training; None if it was stopped."""
    spent, folder = time.process_time(), out / cell.name
    options = FitOptions(
        epochs=plan.epochs,
        learning_rate=plan.learning_rate,
        seed=cell.seed,
        weight_decay=1e-3,
        smoothing=0.0,
        warmup=1,
    )
    facts = _facts(cell, plan, digits)
    training = fit(
        network,
        DigitBatches(digits, cell),
        HeldDigits(digits, "val", cell.distortion),
        out=folder,
        options=options,
        facts=facts,
        should_stop=should_stop,
    )
    before = _spent(folder)
    if training.ended == "interrupted" or training.best is None:
        write_json(folder / "spent.json", {"seconds": before + time.process_time() - spent}, overwrite=True)
        return None
    held = HeldDigits(digits, "test", cell.distortion)
    wrong = held.logits(network.predict_on_batch).argmax(axis=1) != held.labels
    result = {
        **facts,
        "error": round(100 * float(wrong.mean()), 4),
        "val_error": round(100 * (1 - training.best["val_accuracy"]), 4),
        "pictures": len(wrong),
        "count": int(network.count_params()),
        "epochs": plan.epochs,
        "learning_rate": plan.learning_rate,
        "best_epoch": training.best["epoch"],
        "seconds": round(training.seconds, 1),
        "processor_seconds": round(before + time.process_time() - spent, 1),
    }
    write_json(out / f"{cell.name}.json", result, overwrite=True)
    for checkpoint in folder.glob("step-*.weights.h5"):  # three times the weights, which stay
        checkpoint.unlink()
    return result


def _spent(folder: Path) -> float:
    """Processor seconds of the runs before this one; nothing depends on them."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return float(json.loads((folder / "spent.json").read_text(encoding="utf-8"))["seconds"])
    return 0.0
