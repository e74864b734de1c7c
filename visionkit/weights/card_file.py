"""`card.toml` read and checked. models/README.md describes the file."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from visionkit.errors import RecipeError
from visionkit.resources import models_dir
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
    "label_set": Field(str),
    "heads": Field(dict),
    "licence": Field(str, required=True, test=bool, says="an SPDX identifier, such as Apache-2.0"),
    "licence_note": Field(str),
    "paper": Field(str),
    "metrics": Field(list),
    "weights": Field(list),
    "trained": Field(dict),
}
RESIZES = ("stretch", "letterbox", "shortest_side")
PRESETS = ("torch", "tf", "caffe", "fcn")
_PIXELS = {
    "mean": Field([float, float, float]),
    "std": Field([float, float, float], test=_positive, says="positive"),
}
_IMAGE = {
    "size_hw": Field([int, int], required=True, test=_positive, says="two positive integers"),
    "resize": Field(str, required=True, choices=RESIZES),
    "resize_size": Field(int, test=_positive, says="positive"),
    "preset": Field(str, choices=PRESETS),
    "channel_order": Field(str, choices=("rgb", "bgr")),
    **_PIXELS,
}
INPUT = {
    "classify": _IMAGE,
    "segment": _IMAGE,
    "detect": {**_IMAGE, "resize": Field(str, required=True, choices=(*RESIZES, "corner"))},
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
    "value": Field(float, test=math.isfinite, says="finite"),
    "original": Field(float, test=math.isfinite, says="finite"),
    "command": Field(str),
    "source": Field(str),
}
_WEIGHTS = {
    "file": Field(str, test=_inside, says="a path inside the card's folder"),
    "url": Field(str, test=lambda value: value.startswith("https://"), says="an https address"),
    "sha256": Field(str, required=True, test=_hexadecimal, says="64 (or torchvision's 8) lower-case hex digits"),
    "format": Field(str, required=True, choices=FORMATS),
    "bytes": Field(int, test=_positive, says="positive"),
    "about_bytes": Field(int, test=_positive, says="positive"),
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
    labels = _labels(top, folder)
    top["heads"] = _heads(top, labels)
    metrics = _tables(top.pop("metrics", []), _METRIC, "metrics")
    weights = _tables(top.pop("weights", []), _WEIGHTS, "weights")
    for number, entry in enumerate(metrics, 1):
        if not {"value", "original"} & entry.keys():
            raise SchemaError(f"[[metrics]] {number} must have `value` (measured here), `original` (reported) or both.")
    for number, entry in enumerate(weights, 1):
        if ("file" in entry) == ("url" in entry):
            raise SchemaError(f"[[weights]] {number} must have either `file` or `url`.")
        if "file" in entry and len(entry["sha256"]) != 64:
            raise SchemaError(f"`sha256` of [[weights]] {number} must have all 64 digits, as it has a `file`.")
    top["input"] = check(top["input"], INPUT[top["task"]], f"[input] (task {top['task']})")
    _check_input(top["input"])
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


def _check_input(table: Mapping[str, Any]) -> None:
    """What single keys cannot say: which of them exclude or need each other."""
    if "preset" in table and (other := sorted({"mean", "std", "channel_order"} & table.keys())):
        raise SchemaError(f"[input] has `preset`, which says all of `{'`, `'.join(other)}`: give one or the other.")
    if "resize_size" not in table:
        return
    if table["resize"] != "shortest_side":
        raise SchemaError('`resize_size` of [input] goes with resize = "shortest_side" only.')
    if table["resize_size"] < max(table["size_hw"]):
        raise SchemaError(
            f"`resize_size` of [input] must be at least {max(table['size_hw'])}, so that size_hw can be cut out of it. "
            f"Received: {table['resize_size']}."
        )


def _labels(top: dict[str, Any], folder: Path) -> tuple[str, ...]:
    """Class names from the card itself, a text file beside it or a set that several cards share, one a line.

    Takes the three keys out of `top`.
    """
    given = {key: top.pop(key) for key in ("labels", "labels_file", "label_set") if key in top}
    if len(given) > 1:
        raise SchemaError(f"the card must have one of `{'`, `'.join(given)}`.")
    if "labels_file" in given:
        return _checked(_lines(folder / given["labels_file"], f"`labels_file` {given['labels_file']!r}"), "labels")
    if "label_set" in given:
        sets = sorted(path.stem for path in (models_dir() / "labels").glob("*.txt"))
        if given["label_set"] not in sets:
            raise SchemaError(f"`label_set` must be one of {', '.join(sets)}. Received: {given['label_set']!r}.")
        path = models_dir() / "labels" / f"{given['label_set']}.txt"
        return _checked(_lines(path, f"`label_set` {given['label_set']!r}"), "labels")
    return _checked(given.get("labels", []), "labels")


def _heads(top: dict[str, Any], labels: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Class names of each head of a classifier that has several; takes the key out of `top`."""
    heads = top.pop("heads", None)
    if heads is None:
        return {}
    if top["task"] != "classify" or labels or not heads:
        raise SchemaError("[heads] names the heads of a card to classify without `labels`, and at least one.")
    for name, names in heads.items():
        if not name.isidentifier() or not isinstance(names, list) or not names:
            raise SchemaError(f"[heads] must be lists of class names under a word each. Received: {name!r}: {names!r}.")
    return {name: _checked(names, f"[heads] {name}") for name, names in heads.items()}


def _lines(path: Path, what: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"{what} cannot be read: {error}.") from error


def _checked(labels: list[Any], name: str) -> tuple[str, ...]:
    for label in labels:
        if not isinstance(label, str) or not label:
            raise SchemaError(f"`{name}` must be strings with something in them. Received: {label!r}.")
    return tuple(labels)
