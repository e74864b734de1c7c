"""Which cards there are."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from visionkit.errors import ModelError
from visionkit.resources import models_dir
from visionkit.weights.artifact import read_artifact
from visionkit.weights.card import Card
from visionkit.weights.card_file import read_card

__all__ = ["card_names", "list_cards", "load_card"]


def card_names() -> list[str]:
    """Names of the cards that came with VisionKit, in alphabetical order."""
    return sorted(path.parent.name for path in models_dir().glob("*/card.toml"))


def list_cards() -> list[Card]:
    """The cards that came with VisionKit, in alphabetical order."""
    return [load_card(name) for name in card_names()]


def load_card(name: str | os.PathLike[str]) -> Card:
    """The card called `name`, or the card in the folder, `card.toml` or exported model at that path.

    Raises:
        ModelError: `unknown-model` if there is none; `artifact-corrupt`, `hash-mismatch` of an exported model.
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
    if (artifact := read_artifact(path)) is not None:
        return artifact.card
    near = difflib.get_close_matches(text, names, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(names) or 'none'}."
    raise ModelError("unknown-model", f"There is no model {text!r}. {hint} `visionkit models list` tells about each.")
