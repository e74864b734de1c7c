"""From a model card, a `.keras` file or a Keras model to a dense classifier that is ready for images."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.errors import ModelError, UsageError
from visionkit.geometry.window_grid import WindowGrid
from visionkit.tasks.artifact_network import card_of, one_size
from visionkit.tasks.classify import ClassifyOptions
from visionkit.tasks.dense import DenseClassifier, DenseNetwork, DenseOptions
from visionkit.tasks.input_rule import PRESETS, InputRule
from visionkit.tasks.load_classify import DEFAULT_CLASSIFIER, card_network, card_rule, is_model_file
from visionkit.tasks.network import Network

if TYPE_CHECKING:
    import keras

    from visionkit.runtime import Runner
    from visionkit.weights.fetch import Progress

__all__ = ["dense_network", "load_dense_classifier"]

Size = tuple[int, int]


def load_dense_classifier(
    name: str | os.PathLike[str] = DEFAULT_CLASSIFIER,
    *,
    runtime: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    stride: int | None = None,
    exact: bool = False,
    short_side: int | None = None,
    window_hw: Size | None = None,
    weights: str | Path | None = None,
    labels: Any = (),
    preset: str = "raw",
    on_compile: Callable[[], None] | None = None,
    notice: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> DenseClassifier:
    """The dense classifier of a model card, or of a `.keras` file.

    Networks are compiled when the first image comes, for its size, and for other sizes when those come.

    Args:
        name: a card's name, the path of a folder with a `card.toml`, or a `.keras`.
        runtime: as `visionkit.runtime.compile_model` takes it; `auto` measures.
        precision: of the arithmetic, `float32` unless less is asked for.
        threads: cores to use; None is all that the process may use.
        stride, exact, short_side: as `DenseOptions`.
        window_hw: size of the crops, in the place of the card's.
        weights: a file with weights for the card's network in the place of the card's own.
        labels, preset: of a `.keras`, as `classifier_from_file` takes them.
        on_compile: called before the network is built, compiled and measured.
        notice, progress: of a download, as `load_classifier`.
        options: `topk`, `conf`, `classes` in the place of the card's.

    Raises:
        ModelError: there is no such card or no weights; `model-not-dense`.
        UsageError: a stride or a size that the network cannot have.
    """
    how: dict[str, Any] = {"runtime": runtime, "precision": precision, "threads": threads}
    dense = DenseOptions(stride=stride, exact=exact, short_side=short_side)
    if is_model_file(name):
        return _from_file(Path(name), dense, how, labels, preset, options)
    card, artifact = card_of(name, "classify")
    one_size(artifact, window_hw)
    if artifact is not None and artifact.format != "keras":
        raise _not_dense(artifact.path)
    rule = card_rule(card, window_hw)
    network = card_network(card, rule, artifact, weights=weights, on_build=on_compile, notice=notice, progress=progress)

    def compile_tile(size_hw: Size, chosen: str | None) -> Runner:
        return network.compiled(f"dense {size_hw}", lambda m: _dense(m, size_hw), **_taken(how, chosen))

    engine = DenseNetwork(_grid(network), compile_tile, lambda batch: network.compiled(**how, batch=batch))
    kept = ClassifyOptions(**{**card.options, **options})
    heads = tuple(card.heads) or None
    classifier = DenseClassifier(engine, rule, dense, labels=card.heads or card.labels, kept=kept, heads=heads)
    classifier.model = {"name": card.name, "sha256": network.sha256}
    return classifier


def dense_network(model: keras.Model, **how: Any) -> DenseNetwork:
    """Runners over a built classifier and its dense twin; `how` goes to `visionkit.runtime.compile_model`."""
    from visionkit.runtime import compile_model

    def compile_tile(size_hw: Size, chosen: str | None) -> Runner:
        return compile_model(_dense(model, size_hw), **_taken(how, chosen))

    return DenseNetwork(_window_grid(model), compile_tile, lambda batch: compile_model(model, **how, batch=batch))


def _from_file(
    path: Path, dense: DenseOptions, how: dict[str, Any], labels: Any, preset: str, options: Mapping[str, Any]
) -> DenseClassifier:
    from visionkit.runtime.files import ModelFile, load_keras_file
    from visionkit.tasks.load_classify import read_labels

    if path.suffix.lower() != ".keras":
        raise _not_dense(path)
    if preset not in PRESETS:
        raise UsageError("preset-unknown", f"preset must be one of {', '.join(PRESETS)}. Received: {preset!r}.")
    model = load_keras_file(path)
    engine = dense_network(model, **how)
    rule = InputRule.preset(preset, engine.grid.window_hw)
    if model.inputs[0].shape[3] == 1:
        rule = dataclasses.replace(rule, channel_order="gray")
    activation: Any = "none" if _ends_in_softmax(model) else "softmax"
    kept = ClassifyOptions(**options)
    classifier = DenseClassifier(engine, rule, dense, labels=read_labels(labels), kept=kept, activation=activation)
    classifier.model = {"name": path.name, "sha256": ModelFile(path).digest()}
    return classifier


def _not_dense(path: Path) -> ModelError:
    return ModelError(
        "model-not-dense",
        f"{path.name} is a compiled model, whose layers cannot be turned: dense classification needs a card or a "
        "`.keras`.",
    )


def _window_grid(model: keras.Model) -> WindowGrid:
    from visionkit.runtime.quiet import import_keras

    import_keras()
    from visionkit.nets.crop_windows import window_grid

    return window_grid(model)


def _dense(model: keras.Model, size_hw: Size) -> keras.Model:
    from visionkit.nets.convolutionize import fully_convolutional

    return fully_convolutional(model, size_hw)


def _taken(how: Mapping[str, Any], chosen: str | None) -> dict[str, Any]:
    return {**how, "runtime": chosen or how["runtime"]}


def _ends_in_softmax(model: keras.Model) -> bool:
    layer = model.layers[-1]
    activation = getattr(layer, "activation", None)
    return type(layer).__name__ == "Softmax" or getattr(activation, "__name__", "") == "softmax"


def _grid(network: Network) -> WindowGrid:
    """The windows of a card's network; remembered, since a known network starts without Keras."""
    from visionkit.runtime.cache import cache_root, put

    root = cache_root()
    key = hashlib.sha256(f"windows {network.digest}".encode()).hexdigest()[:40]
    place = None if root is None else root / "dense" / f"{key}.json"
    try:
        known = json.loads(place.read_bytes()) if place is not None else None
        if known is not None:
            return WindowGrid(_size(known["window_hw"]), _size(known["stride_hw"]), known["edge"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # whatever is wrong with it: made again
    grid = _window_grid(network.model())
    if place is not None:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            put(place, json.dumps(dataclasses.asdict(grid)).encode())
        except OSError:
            pass
    return grid


def _size(value: Any) -> Size:
    height, width = value
    return int(height), int(width)
