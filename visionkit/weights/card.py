"""Model cards: `models/<name>/card.toml` read, checked and held as a value. models/README.md describes the file."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from visionkit.errors import RecipeError
from visionkit.weights.schema import Field, SchemaError, check

__all__ = ["FORMATS", "TASKS", "Card", "Metric", "Trained", "Weights", "parse_card", "read_card"]

TASKS = ("classify", "segment", "detect", "track")
FORMATS = ("visionkit", "torchvision", "keras", "tflite")
MAX_CARD_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured number: `name` of what is measured on `data`; `original` is what the paper or its authors report."""

    name: str
    data: str
    value: float
    original: float | None = None
    command: str = ""


@dataclass(frozen=True, slots=True)
class Weights:
    """One set of weights: a file in the card's folder or an address, and what it must hash to.

    Args:
        file: path inside the card's folder, or None.
        url: https address, or None.
        sha256: 64 hexadecimal digits, or torchvision's 8 for an address.
        format: `visionkit` (`.weights.h5` for the card's network), `torchvision`, `keras` or `tflite`.
        bytes: size of the download, if the card tells it.
    """

    file: str | None
    url: str | None
    sha256: str
    format: str
    bytes: int | None = None

    @property
    def name(self) -> str:
        """File name of these weights."""
        return PurePosixPath(self.file or self.url or "").name


@dataclass(frozen=True, slots=True)
class Trained:
    """How bundled weights came to be: the command that makes them again, on what, from which seed, in how long."""

    command: str
    data: str
    seed: int
    hours: float


@dataclass(frozen=True, slots=True)
class Card:
    """What VisionKit knows of a model, without loading it.

    Args:
        name: the folder's name.
        folder: where the card lies.
        task: one of `TASKS`.
        network: name of a function in `visionkit.nets`; `args` are its keyword arguments.
        input: how an image becomes the network's input; the keys depend on the task (see `INPUT`).
        options: keyword arguments of the task, such as thresholds; what is not given has the task's own value.
        labels: class names by class id; empty for a task without classes.
    """

    name: str
    folder: Path
    task: str
    network: str
    licence: str
    args: Mapping[str, Any] = field(default_factory=dict)
    input: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    summary: str = ""
    paper: str = ""
    metrics: tuple[Metric, ...] = ()
    weights: tuple[Weights, ...] = ()
    trained: Trained | None = None

    def weights_path(self, format: str | None = None) -> Path:  # noqa: A002 - the card's own word
        """Path of the weights on this machine, checked against the card's sha256.

        Args:
            format: the format wanted; without, the first set of the card.

        Raises:
            ModelError: `weights-missing` if they are not on this machine, `hash-mismatch` if they are not what the card
                says.
        """
        from visionkit.weights.registry import locate_weights

        return locate_weights(self, format)


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
