"""From a model card to a task that is ready for images."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.errors import ModelError, RecipeError
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
    build: str
    halves: tuple[str, str]  # functions of the whole network: what runs once, what runs on each frame
    matcher: Callable[..., Any]
    tracker: Callable[..., Any]
    options: type


FAMILIES = {
    "siambox": _Family(
        "visionkit.nets.siambox",
        "siambox",
        ("siambox_exemplar", "siambox_search"),
        BoxMatcher,
        SiamTracker,
        TrackerOptions,
    ),
    "siamfc": _Family(
        "visionkit.nets.siamfc",
        "siamfc",
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
    on_compile: Callable[[], None] | None = None,
    **options: Any,
) -> SiamTracker | SiamFCTracker:
    """The tracker of a model card, compiled for this machine.

    Args:
        name: a card's name, or the path of a folder with a `card.toml`.
        runtime: as `visionkit.runtime.compile_model` takes it; `auto` measures.
        precision: of the arithmetic, `float32` unless less is asked for.
        threads: cores to use; None is all that the process may use.
        weights: a `.weights.h5` for the card's network in the place of the card's own.
        on_compile: called before the network is built, compiled and measured, which takes seconds and happens once.
        options: tracker options in the place of the card's.

    Returns:
        A tracker whose `describe()` tells name, sha256, runtime and precision.

    Raises:
        ModelError: there is no such card or no weights, or they do not fit.
        RecipeError: the card names an option that the tracker does not have.
    """
    from visionkit.runtime import compile_cached
    from visionkit.weights import load_card

    card = load_card(name)
    family = FAMILIES.get(card.network)
    if card.task != "track" or family is None:
        raise ModelError("model-unfit", f"{card.name} is a model to {card.task}, not to track. Give a tracker's name.")
    path = card.weights_path() if weights is None else Path(weights)
    sha256 = _sha256(path)
    network = _Network(card, family, path, on_compile)
    facts = {"args": dict(card.args), "sizes": _sizes(card), "weights": sha256, "code": _code_digest(card.network)}
    digest = f"{card.network} {json.dumps(facts, sort_keys=True)}"
    compiled: dict[str, Any] = {"precision": precision, "threads": threads}
    search = compile_cached(f"{digest} search", lambda: network.half(1), runtime=runtime, **compiled)
    # the exemplar runs once: the winner of the search is good enough for it
    exemplar = compile_cached(f"{digest} exemplar", lambda: network.half(0), runtime=search.name, **compiled)
    tracker = family.tracker(family.matcher(exemplar, search), _options(card, family, options))
    tracker.model = {"name": card.name, "sha256": sha256, "runtime": search.name, "precision": search.precision}
    return tracker


class _Network:
    """The card's Keras network, built when first needed."""

    def __init__(self, card: Card, family: _Family, path: Path, on_build: Callable[[], None] | None) -> None:
        self._card, self._family, self._path, self._on_build = card, family, path, on_build
        self._model: keras.Model | None = None

    def half(self, which: int) -> keras.Model:
        from visionkit.runtime.quiet import import_keras

        if self._on_build is not None and self._model is None:
            self._on_build()
        import_keras()
        module = importlib.import_module(self._family.module)
        if self._model is None:
            self._model = self._load(getattr(module, self._family.build))
        return getattr(module, self._family.halves[which])(self._model)

    def _load(self, build: Callable[..., keras.Model]) -> keras.Model:
        model = build(**_sizes(self._card), **self._card.args)
        try:
            model.load_weights(self._path)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ModelError(
                "model-unfit", f"{self._path.name} does not hold the weights of {self._card.network}: {reason}"
            ) from error
        return model


def _sizes(card: Card) -> dict[str, int]:
    """The card's sizes of exemplar and search region, as the network's arguments."""
    return {key: card.input[key] for key in ("exemplar_size", "search_size") if key in card.input}


def _code_digest(network: str) -> str:
    """A digest of the network's source and its layers', read without importing them: that would import Keras."""
    package = Path(__file__).parents[1]
    files = [package / "nets" / f"{network}.py", *sorted((package / "layers").glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.is_file())).hexdigest()


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


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError("weights-missing", f"The weights {path} cannot be read: {error.strerror}.") from error
