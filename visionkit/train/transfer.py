"""Networks by name, and weights of one network as the start of another."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from visionkit.errors import ModelError, UsageError
from visionkit.tasks.detect import BACKGROUND_NAMES
from visionkit.weights import Card, load_card

__all__ = ["build_network", "source_card", "start_from"]

LISTED = 6  # new layers that are told by name
# What tells a backbone from a classifier in torchvision's names.
PREFIXES = ("backbone.", "body.", "features.")


def source_card(name: str, tasks: Sequence[str]) -> Card:
    """The card to start from, which must be one of `tasks`. Raises ModelError `model-unfit`."""
    card = load_card(name)
    if card.task not in tasks:
        raise ModelError("model-unfit", f"{card.name} is a model to {card.task}, not to {' or '.join(tasks)}.")
    return card


def build_network(name: str, arguments: Mapping[str, Any], verb: str) -> keras.Model:
    """The network `name` of `visionkit.nets` with these arguments, `classes` and `size_hw` among them.

    Raises:
        UsageError: `unknown-network`, no network that can `verb`; `network-arguments`.
    """
    function = getattr(importlib.import_module("visionkit.nets"), name, None)
    if function is None or "classes" not in inspect.signature(function).parameters:
        raise UsageError("unknown-network", f"visionkit.nets has no network {name!r} that {verb}.")
    try:
        model: keras.Model = function(**arguments)
    except (TypeError, ValueError) as error:
        raise UsageError("network-arguments", f"{name} does not take {dict(arguments)}: {error}") from error
    return model


def start_from(network: keras.Model, source: Card, tell: Callable[[str], None]) -> None:
    """Put the source's weights into every layer that has its name, but for `PREFIXES`, and its shapes.

    Raises:
        ModelError: `model-unfit`, where no layer has.
    """
    from visionkit.weights.loading import load_weights

    classes = {} if "classes" in source.args or not source.labels else {"classes": _outputs(source)}
    size = {"size_hw": tuple(source.input["size_hw"])}
    original = build_network(source.network, {**source.args, **classes, **size}, f"{source.task}s")
    load_weights(original, source)
    there = {_plain(layer.name): layer.get_weights() for layer in original.layers if layer.weights}
    taken, new = 0, []
    for layer in (layer for layer in network.layers if layer.weights):
        weights = there.get(_plain(layer.name), [])
        if weights and [w.shape for w in weights] == [tuple(w.shape) for w in layer.weights]:
            layer.set_weights(weights)
            taken += 1
        else:
            new.append(layer.name)
    if not taken:
        raise ModelError("model-unfit", f"No layer of {source.name} has the name and shape of one of this network.")
    tell(
        f"{taken} layers start from {source.name}; new: {', '.join(new[:LISTED])}{', …' if len(new) > LISTED else ''}."
    )


def _outputs(source: Card) -> int:
    """Classes of the source's network: of a detector with the background, which the labels may leave out."""
    with_background = source.labels[0].strip().casefold() in BACKGROUND_NAMES
    return len(source.labels) + (source.task == "detect" and not with_background)


def _plain(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name
