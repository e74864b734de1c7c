"""The network of a training: by name, with a card and weights of another to start from."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras

from visionkit.errors import ModelError, UsageError
from visionkit.runtime.keras_net import has_gpu
from visionkit.tasks.detect import BACKGROUND_NAMES
from visionkit.weights import Card, load_card

__all__ = ["begun_by_seed", "build_network", "card_facts", "new_card", "source_card", "start_from"]

LISTED = 6  # new layers that are told by name
# What tells a backbone from a classifier in torchvision's names.
PREFIXES = ("backbone.", "body.", "features.")


class Asked(Protocol):
    """What a plan asks of the new model, if anything."""

    @property
    def args(self) -> Mapping[str, Any]: ...
    @property
    def size_hw(self) -> tuple[int, int] | None: ...
    @property
    def resize(self) -> str | None: ...


def source_card(name: str, tasks: Sequence[str]) -> Card:
    """The card to start from, which must be one of `tasks`. Raises ModelError `model-unfit`."""
    card = load_card(name)
    if card.task not in tasks:
        raise ModelError("model-unfit", f"{card.name} is a model to {card.task}, not to {' or '.join(tasks)}.")
    return card


def new_card(
    task: str,
    network: str,
    labels: Sequence[str],
    plan: Asked,
    source: Card | None,
    *,
    rule: Mapping[str, Any],
    args: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The new model's card as a TOML table: what of the source it keeps, what the plan asks for, its own classes.

    Args:
        rule: of the input, where the plan says nothing.
        args: of the network, where neither the source nor the plan says anything.
    """
    same = source is not None and network == source.network
    kept = {k: v for k, v in source.args.items() if k not in ("classes", "size_hw")} if source and same else {}
    asked: dict[str, Any] = {"size_hw": list(plan.size_hw)} if plan.size_hw else {}
    asked |= {"resize": plan.resize} if plan.resize else {}
    return {
        "task": task,
        "network": network,
        "licence": "NONE",
        "labels": list(labels),
        "args": {**(args or {}), **kept, **plan.args},
        # the size to cut out of goes with the rest of the source's rule, or not at all
        "input": {key: value for key, value in rule.items() if key != "resize_size" or not asked} | asked,
    }


def card_facts(table: Mapping[str, Any], source: Card | None) -> dict[str, Any]:
    """What of the new card makes a training itself, and what it started from."""
    return {
        "network": table["network"],
        "args": dict(table["args"]),
        "input": dict(table["input"]),
        "classes": list(table["labels"]),
        "from": None if source is None else [source.name, *(entry.sha256 for entry in source.weights[:1])],
    }


@contextlib.contextmanager
def begun_by_seed(seed: int) -> Iterator[str]:
    """Within, networks begin with weights of this seed, in mixed precision where there is a GPU; gives its name."""
    before, precision = keras.config.dtype_policy(), "mixed_float16" if has_gpu() else "float32"
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(seed)
    try:
        yield precision
    finally:
        keras.config.set_dtype_policy(before)


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
        f"{taken} layers start from {source.name}; new: {', '.join(new[:LISTED]) or 'none'}"
        f"{', …' if len(new) > LISTED else ''}."
    )


def _outputs(source: Card) -> int:
    """Classes of the source's network: of a detector with the background, which the labels may leave out."""
    with_background = source.labels[0].strip().casefold() in BACKGROUND_NAMES
    return len(source.labels) + (source.task == "detect" and not with_background)


def _plain(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name
