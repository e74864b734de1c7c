"""From a model card to a task that is ready for images."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.errors import ModelError, RecipeError
from visionkit.tasks.artifact_network import card_of, described, network_of, options_of
from visionkit.tasks.matchers import BoxMatcher, CorrelationMatcher
from visionkit.tasks.presence import PresenceOptions
from visionkit.tasks.siamfc import SiamFCOptions, SiamFCTracker
from visionkit.tasks.track import SiamTracker, TrackerOptions

if TYPE_CHECKING:
    import keras

    from visionkit.weights import Card

__all__ = ["DEFAULT_TRACKER", "load_tracker"]

DEFAULT_TRACKER = "siambox_light"


@dataclasses.dataclass(frozen=True)
class _Family:
    """How the networks of one family become a tracker."""

    module: str
    halves: tuple[str, str]  # functions of the whole network: what runs once, what runs on each frame
    matcher: Callable[..., Any]
    tracker: Callable[..., Any]
    options: type

    def half(self, which: int) -> Callable[[keras.Model], keras.Model]:
        """From the whole network to one of its halves."""
        return lambda model: getattr(importlib.import_module(self.module), self.halves[which])(model)


FAMILIES = {
    "siambox": _Family(
        "visionkit.nets.siambox",
        ("siambox_exemplar", "siambox_search"),
        BoxMatcher,
        SiamTracker,
        TrackerOptions,
    ),
    "siamfc": _Family(
        "visionkit.nets.siamfc",
        ("siamfc_exemplar", "siamfc_search"),
        CorrelationMatcher,
        SiamFCTracker,
        SiamFCOptions,
    ),
}


def load_tracker(
    name: str | os.PathLike[str] = DEFAULT_TRACKER,
    *,
    runtime: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    weights: str | Path | None = None,
    trust: bool = False,
    on_compile: Callable[[], None] | None = None,
    **options: Any,
) -> SiamTracker | SiamFCTracker:
    """The tracker of a model card, compiled for this machine.

    Args:
        name: a card's name, the path of a folder with a `card.toml`, or an exported model that says what it is.
        runtime: as `visionkit.runtime.compile_model` takes it; `auto` measures.
        precision: of the arithmetic, `float32` unless less is asked for.
        threads: cores to use; None is all that the process may use.
        weights: a `.weights.h5` for the card's network in the place of the card's own.
        trust: a model file may run code (SavedModel) or crash (`.tflite`).
        on_compile: called before the network is built, compiled and measured, which takes seconds and happens once.
        options: tracker options in the place of the card's.

    Returns:
        A tracker whose `describe()` tells name, sha256, runtime and precision.

    Raises:
        ModelError: there is no such card or no weights, or they do not fit.
        RecipeError: the card names an option that the tracker does not have.
    """
    card, artifact = card_of(name, "track")
    family = FAMILIES.get(card.network)
    if family is None:
        raise ModelError("network-unfit", f"{card.name}: {card.network} is no tracker that VisionKit runs.")
    chosen = options_of(card, artifact, options, lambda card, given: _options(card, family, given))
    sizes = network_sizes(card)
    network = network_of(card, artifact, weights=weights, arguments=sizes, trust=trust, on_build=on_compile)
    how: dict[str, Any] = {"precision": precision, "threads": threads}
    search = network.compiled("search", family.half(1), runtime=runtime, **how)
    # the exemplar runs once: the winner of the search is good enough for it
    exemplar = network.compiled("exemplar", family.half(0), runtime=search.name, **how)
    with described(artifact):
        tracker = family.tracker(family.matcher(exemplar, search), chosen)
    tracker.model = network.facts(search)
    return tracker


def network_sizes(card: Card) -> dict[str, int]:
    """The card's sizes of exemplar and search region, as the network's arguments."""
    return {key: card.input[key] for key in ("exemplar_size", "search_size") if key in card.input}


def _options(card: Card, family: _Family, given: Mapping[str, Any]) -> Any:
    """The tracker's options: its own, the card's over them, the caller's over those."""
    values = {**card.options, **given}
    known = {field.name for field in dataclasses.fields(family.options)} - {"presence"}
    inner = {field.name for field in dataclasses.fields(PresenceOptions)}
    if unknown := set(values) - known - inner:
        raise RecipeError(
            "unknown-option",
            f"{card.name}: {', '.join(sorted(unknown))} is no option of this tracker. "
            f"Known: {', '.join(sorted(known | inner))}.",
        )
    presence = PresenceOptions(**{key: values[key] for key in values if key in inner})
    return family.options(presence=presence, **{key: values[key] for key in values if key in known})
