"""Which cards there are, and where their weights lie on this machine."""

from __future__ import annotations

import difflib
import hashlib
import os
from pathlib import Path

from visionkit.errors import ModelError
from visionkit.resources import cache_dir, models_dir
from visionkit.weights.card import Card, Weights, read_card

__all__ = ["card_names", "list_cards", "load_card", "locate_weights", "weights_here", "weights_state"]


def card_names() -> list[str]:
    """Names of the cards that came with VisionKit, in alphabetical order."""
    return sorted(path.parent.name for path in models_dir().glob("*/card.toml"))


def list_cards() -> list[Card]:
    """The cards that came with VisionKit, in alphabetical order."""
    return [load_card(name) for name in card_names()]


def load_card(name: str | os.PathLike[str]) -> Card:
    """The card called `name`, or the card in the folder or `card.toml` at that path.

    Raises:
        ModelError: `unknown-model` if there is none.
        RecipeError: the card does not parse or does not fit its schema.
    """
    text = os.fspath(name)
    path = Path(text)
    if path.name == "card.toml" and path.is_file():
        return read_card(path.resolve())
    if os.sep in text and (path / "card.toml").is_file():
        return read_card(path.resolve() / "card.toml")
    names = card_names()
    if text in names:
        return read_card(models_dir() / text / "card.toml")
    near = difflib.get_close_matches(text, names, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(names) or 'none'}."
    raise ModelError("unknown-model", f"There is no model {text!r}. {hint} `visionkit models list` tells about each.")


def locate_weights(card: Card, format: str | None = None) -> Path:  # noqa: A002 - the card's own word
    """Path of the card's weights on this machine, checked (`Card.weights_path`)."""
    entry = _pick(card, format)
    path = weights_here(card, entry)
    if path is None:
        raise ModelError("weights-missing", _missing(card, entry))
    found = _sha256(path)
    if not found.startswith(entry.sha256):
        raise ModelError(
            "hash-mismatch",
            f"The weights {path} are not those of the card {card.name!r}: their sha256 is {found[:16]}…, the card says "
            f"{entry.sha256[:16]}…. Put the right file there, or install VisionKit again.",
        )
    return path


def weights_here(card: Card, entry: Weights) -> Path | None:
    """Where these weights lie on this machine, unchecked; None if they do not."""
    path = card.folder / entry.file if entry.file else _fetched_path(entry)
    return path if path is not None and path.is_file() else None


def weights_state(card: Card) -> str:
    """In one word, of the card's first weights: `none`, `missing`, `ok` or `mismatch` (their hash is looked at)."""
    if not card.weights:
        return "none"
    path = weights_here(card, card.weights[0])
    if path is None:
        return "missing"
    return "ok" if _sha256(path).startswith(card.weights[0].sha256) else "mismatch"


def _pick(card: Card, wanted: str | None) -> Weights:
    for entry in card.weights:
        if wanted in (None, entry.format):
            return entry
    formats = ", ".join(entry.format for entry in card.weights) or "none"
    raise ModelError(
        "weights-missing", f"The card {card.name!r} has no weights of format {wanted or 'any'}. It has: {formats}."
    )


def _fetched_path(entry: Weights) -> Path | None:
    """Where weights with an address are kept: the hash is in the name, so that two versions never meet."""
    folder = cache_dir(create=False)
    return None if folder is None else folder / "weights" / f"{entry.sha256[:8]}-{entry.name}"


def _missing(card: Card, entry: Weights) -> str:
    if entry.file:
        place = card.folder / entry.file
        return f"The card {card.name!r} names the file {place}, which is not there. Install VisionKit again."
    fetched = _fetched_path(entry) or "the cache folder (set VISIONKIT_CACHE, as there is no home folder)"
    bundled = [other.name for other in list_cards() if any(weights.file for weights in other.weights)]
    return (
        f"The weights of {card.name!r} are not on this machine. Fetch {entry.url} and put it at {fetched}. "
        f"Models that need nothing: {', '.join(bundled) or 'none'}."
    )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError("weights-missing", f"The weights {path} cannot be read: {error.strerror}.") from error
