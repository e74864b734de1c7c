"""Weights of any format into a network that is built, and the network of a card built for them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from visionkit.errors import ModelError
from visionkit.weights.card import Card
from visionkit.weights.fetch import Progress, obtain
from visionkit.weights.file_kind import file_kind, open_size
from visionkit.weights.hdf5_check import Hdf5Facts, check_hdf5
from visionkit.weights.keras_applications import is_keras_application, load_keras_application
from visionkit.weights.torch_zip import read_checkpoint

if TYPE_CHECKING:
    import keras

__all__ = ["build_network", "check_finite", "load_weights", "weights_format"]

MAX_LISTED = 20
NO_WEIGHTS = ("optimizer", "metrics", "_")  # top-level groups that hold no layer


def load_weights(
    model: keras.Model,
    card: Card,
    path: Path | None = None,
    *,
    allow_nonfinite: bool = False,
    notice: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> None:
    """Fill `model`, the built network of the card, with weights; all of it, or an error.

    Args:
        model: throw it away after an error: some of its layers may have been filled.
        card: names the network, and its weights where no path is given; they are fetched if they are not here.
        path: weights of any format in the place of the card's own; what they are is seen from their content.
        allow_nonfinite: whether weights may hold NaN or infinity.
        notice: called with what is about to be fetched.
        progress: of a download, called with the bytes here and in all.

    Raises:
        ModelError: `weights-missing`, `fetch-failed` or `hash-mismatch`; `model-unsafe` or `model-corrupt` before
            anything is loaded; `model-unfit` with every mismatch if they are of another network; `model-not-finite`
            naming the variable.
    """
    path = obtain(card, notice=notice, progress=progress) if path is None else Path(path)
    kind = weights_format(path)
    if kind == "torchvision":
        from visionkit.weights.torchvision import load_torchvision

        load_torchvision(model, card.network, read_checkpoint(path))
    elif kind == "keras":
        load_keras_application(model, card.network, path)
    else:
        _load_own(model, card, path, check_hdf5(path))
    if not allow_nonfinite:
        check_finite(model, path.name)


def weights_format(path: Path) -> str:
    """The format of a weights file by its content: `torchvision`, `keras` (applications, checked) or `visionkit`.

    Raises:
        ModelError: `weights-missing`, `model-unsafe` or `model-corrupt` as the readers of each format say.
    """
    open_size(path)
    kind = file_kind(path)
    if kind.startswith("an HDF5 file"):
        return "keras" if is_keras_application(check_hdf5(path)) else "visionkit"
    if kind.startswith(("a zip archive", "a pickle", "a tar archive")):
        return "torchvision"
    raise ModelError(
        "model-corrupt",
        f"{path} holds no weights that can be read here: it is {kind}. Known: `.weights.h5` of Keras, PyTorch's "
        "checkpoints (`.pth`), `.h5` of Keras applications.",
    )


def build_network(card: Card) -> keras.Model:
    """The Keras network of a card, of the card's size and classes, without weights.

    It imports Keras: whoever wants that without a word imports it by `visionkit.runtime.quiet` before.
    """
    build = getattr(importlib.import_module("visionkit.nets"), card.network)
    known = inspect.signature(build).parameters
    given: dict[str, Any] = {}
    for key in ("exemplar_size", "search_size", "size_hw"):
        if key in card.input:
            value = card.input[key]
            given[key] = tuple(value) if isinstance(value, list) else value
    if card.heads:
        given["classes"] = {name: len(labels) for name, labels in card.heads.items()}
    elif card.labels:
        given["classes"] = len(card.labels)
    model: keras.Model = build(**{key: value for key, value in given.items() if key in known} | dict(card.args))
    return model


def check_finite(model: keras.Model, where: str) -> None:
    """Refuse a model with a weight that is NaN or infinite.

    Raises:
        ModelError: `model-not-finite`.
    """
    for variable in model.variables:
        values = np.asarray(variable)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            count = int(values.size - np.isfinite(values).sum())
            raise ModelError(
                "model-not-finite",
                f"{where}: {count} of {values.size} numbers of {variable.path} are NaN or infinite, so every result "
                "would be. Fetch or train the weights again.",
            )


def _load_own(model: keras.Model, card: Card, path: Path, facts: Hdf5Facts) -> None:
    """`.weights.h5`, as Keras saved them from the same network."""
    if not path.name.endswith(".weights.h5"):
        raise ModelError(
            "model-unfit", f"{path} holds weights of Keras; Keras wants its name to end in `.weights.h5`: rename it."
        )
    misfits = _misfits(model, facts)
    reason = ""
    if not misfits:
        try:
            model.load_weights(path)
            return
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
    listed = "; ".join(misfits[:MAX_LISTED])
    if len(misfits) > MAX_LISTED:
        listed += f"; and {len(misfits) - MAX_LISTED} more"
    raise ModelError("model-unfit", f"{path.name} does not hold the weights of {card.network}: {listed or reason}.")


def _misfits(model: keras.Model, facts: Hdf5Facts) -> list[str]:
    """Every layer that is only in the file, only in the network, or of other shapes there.

    Layers meet by name where the shapes as a whole differ: names that Keras made up count up within a process, so they
    alone prove nothing.
    """
    theirs = _file_layers(facts)
    ours = {
        layer.name: [tuple(item.shape) for item in layer.weights]
        for layer in model._flatten_layers(include_self=False, recursive=True)
        if layer.weights and not getattr(layer, "_layers", None)
    }
    if _shapes(theirs) == _shapes(ours):
        return []
    lines = [f"{name} is missing in the file" for name in ours if name not in theirs]
    lines += [f"{name} is not in the network" for name in theirs if name not in ours]
    for name in ours.keys() & theirs.keys():
        if sorted(ours[name]) != sorted(theirs[name]):
            lines.append(f"{name} has {_text(theirs[name])} in the file, {_text(ours[name])} in the network")
    return sorted(lines) or ["the file holds other shapes"]


def _file_layers(facts: Hdf5Facts) -> dict[str, list[tuple[int, ...]]]:
    layers: dict[str, list[tuple[int, ...]]] = {}
    for place, shape in facts.shapes.items():
        group = place.rpartition("/")[0]
        if place.startswith(NO_WEIGHTS) and not place.startswith("_layer"):
            continue
        if "seed_generator" not in place:
            layers.setdefault(facts.names.get(group, group), []).append(shape)
    return layers


def _shapes(layers: dict[str, list[tuple[int, ...]]]) -> list[tuple[int, ...]]:
    return sorted(shape for shapes in layers.values() for shape in shapes)


def _text(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join("x".join(map(str, shape)) or "one number" for shape in shapes)
