"""`card.toml` read and checked. models/README.md describes the file."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from visionkit.errors import RecipeError
from visionkit.weights.card import Card, Metric, Trained, Weights
from visionkit.weights.schema import Field, SchemaError, check

__all__ = ["FORMATS", "INPUT", "TASKS", "parse_card", "read_card"]

TASKS = ("classify", "segment", "detect", "track")
FORMATS = ("visionkit", "torchvision", "keras", "tflite")
MAX_CARD_BYTES = 1_000_000


def _positive(value: Any) -> bool:
    return all(item > 0 for item in (value if isinstance(value, list) else [value]))


def _hexadecimal(value: str) -> bool:
    return len(value) in (8, 64) and all(char in "0123456789abcdef" for char in value)


def _inside(value: str) -> bool:
    path = PurePosixPath(value)
    return bool(value) and not path.is_absolute() and ".." not in path.parts and "\\" not in value and ":" not in value


_CARD = {
    "summary": Field(str),
    "task": Field(str, required=True, choices=TASKS),
    "network": Field(str, required=True, test=str.isidentifier, says="the name of a function of visionkit.nets"),
    "args": Field(dict),
    "input": Field(dict, required=True),
    "options": Field(dict),
    "labels": Field(list),
    "labels_file": Field(str, test=_inside, says="a path inside the card's folder"),
    "licence": Field(str, required=True, test=bool, says="an SPDX identifier, such as Apache-2.0"),
    "paper": Field(str),
    "metrics": Field(list),
    "weights": Field(list),
    "trained": Field(dict),
}
_PIXELS = {
    "mean": Field([float, float, float]),
    "std": Field([float, float, float], test=_positive, says="positive"),
}
_IMAGE = {
    "size_hw": Field([int, int], required=True, test=_positive, says="two positive integers"),
    "resize": Field(str, required=True, choices=("stretch", "letterbox", "shortest_side")),
    **_PIXELS,
}
INPUT = {
    "classify": _IMAGE,
    "segment": _IMAGE,
    "detect": _IMAGE,
    "track": {
        "exemplar_size": Field(int, required=True, test=_positive, says="positive"),
        "search_size": Field(int, required=True, test=_positive, says="positive"),
        "context": Field(float, test=lambda value: value >= 0, says="at least 0"),
        **_PIXELS,
    },
}
_METRIC = {
    "name": Field(str, required=True),
    "data": Field(str, required=True),
    "value": Field(float, required=True, test=math.isfinite, says="finite"),
    "original": Field(float, test=math.isfinite, says="finite"),
    "command": Field(str),
}
_WEIGHTS = {
    "file": Field(str, test=_inside, says="a path inside the card's folder"),
    "url": Field(str, test=lambda value: value.startswith("https://"), says="an https address"),
    "sha256": Field(str, required=True, test=_hexadecimal, says="64 (or torchvision's 8) lower-case hex digits"),
    "format": Field(str, required=True, choices=FORMATS),
    "bytes": Field(int, test=_positive, says="positive"),
}
_TRAINED = {
    "command": Field(str, required=True),
    "data": Field(str, required=True),
    "seed": Field(int, required=True),
    "hours": Field(float, required=True, test=lambda value: value >= 0, says="at least 0"),
}


def read_card(path: Path) -> Card:
    """The card in the file `path`.

    Raises:
        RecipeError: `card-unreadable` if the file cannot be read, `card-invalid` if it is not a card; both name it.
    """
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if size <= MAX_CARD_BYTES else b""
    except OSError as error:
        raise RecipeError("card-unreadable", f"The card {path} cannot be read: {error.strerror}.") from error
    if size > MAX_CARD_BYTES:
        raise RecipeError("card-invalid", f"The card {path} has {size} bytes; a card has at most {MAX_CARD_BYTES}.")
    try:
        table = tomllib.loads(raw.decode("utf-8-sig"))
        return parse_card(table, path.parent)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError("card-invalid", f"The card {path} is not TOML in UTF-8: {error}.") from error
    except SchemaError as error:
        raise RecipeError("card-invalid", f"The card {path} does not fit: {error}") from error


def parse_card(table: Mapping[str, Any], folder: Path) -> Card:
    """The card held by a parsed TOML table.

    Raises:
        SchemaError: a key is unknown, missing or of the wrong type.
    """
    top = check(table, _CARD, "the card")
    trained = top.pop("trained", None)
    labels = _labels(top.pop("labels", None), top.pop("labels_file", None), folder)
    metrics = _tables(top.pop("metrics", []), _METRIC, "metrics")
    weights = _tables(top.pop("weights", []), _WEIGHTS, "weights")
    for number, entry in enumerate(weights, 1):
        if ("file" in entry) == ("url" in entry):
            raise SchemaError(f"[[weights]] {number} must have either `file` or `url`.")
        if "file" in entry and len(entry["sha256"]) != 64:
            raise SchemaError(f"`sha256` of [[weights]] {number} must have all 64 digits, as it has a `file`.")
    top["input"] = check(top["input"], INPUT[top["task"]], f"[input] (task {top['task']})")
    return Card(
        name=folder.name,
        folder=folder,
        labels=labels,
        metrics=tuple(Metric(**entry) for entry in metrics),
        weights=tuple(Weights(**{"file": None, "url": None, **entry}) for entry in weights),
        trained=None if trained is None else Trained(**check(trained, _TRAINED, "[trained]")),
        **top,
    )


def _tables(entries: list[Any], fields: Mapping[str, Field], name: str) -> list[dict[str, Any]]:
    for entry in entries:
        if not isinstance(entry, dict):
            raise SchemaError(f"`{name}` must be tables, each headed [[{name}]]. Received: {entry!r}.")
    return [check(entry, fields, f"[[{name}]] {number}") for number, entry in enumerate(entries, 1)]


def _labels(labels: list[Any] | None, file: str | None, folder: Path) -> tuple[str, ...]:
    """Class names from the card itself or from a text file beside it, one a line."""
    if labels is not None and file is not None:
        raise SchemaError("the card must have either `labels` or `labels_file`.")
    if file is not None:
        try:
            labels = (folder / file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SchemaError(f"`labels_file` {file!r} cannot be read: {error}.") from error
    for label in labels or []:
        if not isinstance(label, str) or not label:
            raise SchemaError(f"`labels` must be strings with something in them. Received: {label!r}.")
    return tuple(labels or ())
