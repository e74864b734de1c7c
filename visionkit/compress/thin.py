"""A card's classifier with weights that zip well, as an artifact: what pruning and clustering share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.compress.operations import zipped_size
from visionkit.errors import ModelError
from visionkit.weights.artifact import Artifact, retell

if TYPE_CHECKING:
    import keras

    from visionkit.compress.trials import DataChoice
    from visionkit.train.augment import Augmentation
    from visionkit.train.class_images import TrainingBatches
    from visionkit.weights import Card

__all__ = ["ThinOptions", "Thinner", "kernels", "write_thinned"]

Floats = npt.NDArray[np.float32]
# From a twin and the number of steps to what is trained, and its callbacks.
Thinner = Callable[[Any, int], tuple[Any, Sequence[Any]]]


@dataclass(frozen=True)
class ThinOptions:
    """How a network is trained while its weights are thinned.

    Args:
        epochs: passes over the images.
        learning_rate: at first; it falls to a fiftieth.
        batch: images in a batch.
        seed: of order and augmentation.
        augmentation: of the images; None is the usual one.
    """

    epochs: int = 8
    learning_rate: float = 5e-4
    batch: int = 32
    seed: int = 0
    augmentation: Augmentation | None = None


def write_thinned(
    card: Card | str,
    data: DataChoice,
    path: Path,
    thinner: Thinner,
    *,
    kind: str,
    options: ThinOptions | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[Artifact, keras.Model]:
    """Train a card's classifier on, thinned, and export it; the artifact, and the network with its new weights.

    Args:
        data: class folders; learnt from is their part `train`, or that of the split.
        path: of the `.tflite`.
        thinner: what is done to the twin.
        kind: what the artifact says it is.

    Raises:
        ModelError: `model-unfit`, `twin-impossible`, `training-diverged`, and those of `export_model`.
        UsageError: `train-part-missing`; all images are measured, so none may be learnt from.
    """
    from visionkit.compress.tfmot_bridge import stripped
    from visionkit.compress.twin import bring_back, train_twin, twin_of
    from visionkit.export import export_model
    from visionkit.tasks.load_classify import card_network, card_rule
    from visionkit.weights import load_card

    options = options or ThinOptions()
    card = load_card(card) if isinstance(card, str) else card
    if card.task != "classify" or card.heads or not card.labels:
        raise ModelError("model-unfit", f"{card.name} is no classifier with one head and labels; {kind} takes one.")
    network = card_network(card, card_rule(card)).model()
    batches = _batches(card, data, options)
    steps = batches.steps_per_epoch
    model, callbacks = thinner(twin_of(network), options.epochs * steps)
    train_twin(
        model,
        batches.stream(0),
        epochs=options.epochs,
        steps_per_epoch=steps,
        learning_rate=options.learning_rate,
        callbacks=callbacks,
        report=report,
    )
    bring_back(stripped(model), network)
    with tempfile.TemporaryDirectory(prefix="visionkit-") as folder:
        weights = Path(folder) / "thin.weights.h5"
        network.save_weights(weights)
        made = export_model(card, path, format="litert", weights=weights)
    return retell(made, kind, thinned={"epochs": options.epochs, "seed": options.seed}), network


def kernels(network: keras.Model) -> dict[str, Floats]:
    """Kernels of the layers that are thinned, by the layer's name."""
    from visionkit.compress.tfmot_bridge import THINNED

    return {
        layer.name: np.asarray(layer.kernel, np.float32)
        for layer in network._flatten_layers(include_self=False, recursive=True)
        if type(layer).__name__ in THINNED
    }


def told_size(path: Path) -> str:
    """The file's size as it is and zipped, in words."""
    return f"{path.stat().st_size / 1e6:.2f} MB, {zipped_size(path) / 1e6:.2f} MB zipped"


def _batches(card: Card, data: DataChoice, options: ThinOptions) -> TrainingBatches:
    """Changed views of the images that may be learnt from."""
    from visionkit.compress.train_part import check_train_part
    from visionkit.tasks.load_classify import card_rule
    from visionkit.train.augment import Augmentation
    from visionkit.train.class_folders import read_class_folders
    from visionkit.train.class_images import TrainingBatches, check_images
    from visionkit.train.split import read_split

    check_train_part(data, card.labels)
    folders = read_class_folders(data.data, card.labels)
    samples = check_images(folders).samples
    if data.split is not None:
        learn = read_split(data.split, samples).select("train", samples)
    else:
        learn = [sample for sample in samples if folders.parts[sample.name] == "train"]
    return TrainingBatches(
        folders,
        learn,
        card_rule(card),
        options.augmentation or Augmentation(),
        batch=min(options.batch, len(learn)),
        seed=options.seed,
    )
