"""A model card as a value, and where the weights it names lie on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from visionkit.errors import ModelError
from visionkit.resources import cache_dir

__all__ = ["Card", "Metric", "Trained", "Weights", "fetched_path", "sha256_of"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One number: `name` of what is measured on `data`.

    Args:
        value: what `command` gave here, in VisionKit; None if nobody measured it here.
        original: what the paper or its authors report, and `source`, who they are.
    """

    name: str
    data: str
    value: float | None = None
    original: float | None = None
    command: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Weights:
    """One set of weights: a file in the card's folder or an address, and what it must hash to.

    Args:
        file: path inside the card's folder, or None.
        url: https address, or None.
        sha256: 64 hexadecimal digits, or torchvision's 8 for an address.
        format: `visionkit` (`.weights.h5` for the card's network), `torchvision`, `keras` or `tflite`.
        bytes: size of the download, if the card tells it.
        about_bytes: the same from a rounded number.
    """

    file: str | None
    url: str | None
    sha256: str
    format: str
    bytes: int | None = None
    about_bytes: int | None = None

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
        task: `classify`, `segment`, `detect` or `track`.
        network: name of a function in `visionkit.nets`; `args` are its keyword arguments.
        input: how an image becomes the network's input; the keys depend on the task (`card_file.INPUT`).
        options: keyword arguments of the task, such as thresholds; what is not given has the task's own value.
        labels: class names by class id; empty for a task without classes.
        heads: of a classifier with several heads on one trunk, the class names of each; then `labels` is empty.
        licence: of the weights, as an SPDX identifier; `licence_note` says what it does not.
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
    heads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    licence_note: str = ""
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
        entry = self._pick(format)
        path = self.find(entry)
        if path is None:
            raise ModelError("weights-missing", self._missing(entry))
        found = sha256_of(path)
        if not found.startswith(entry.sha256):
            raise ModelError(
                "hash-mismatch",
                f"The weights {path} are not those of the card {self.name!r}: their sha256 is {found[:16]}…, the card "
                f"says {entry.sha256[:16]}…. Put the right file there, or install VisionKit again.",
            )
        return path

    def find(self, entry: Weights) -> Path | None:
        """Where these weights of the card lie on this machine, unchecked; None if they do not."""
        path = self.folder / entry.file if entry.file else fetched_path(entry)
        return path if path is not None and path.is_file() else None

    def state(self) -> str:
        """In one word, of the card's first weights: `none`, `missing`, `ok` or `mismatch` (their hash is taken)."""
        if not self.weights:
            return "none"
        path = self.find(self.weights[0])
        if path is None:
            return "missing"
        return "ok" if sha256_of(path).startswith(self.weights[0].sha256) else "mismatch"

    def _pick(self, wanted: str | None) -> Weights:
        for entry in self.weights:
            if wanted in (None, entry.format):
                return entry
        formats = ", ".join(entry.format for entry in self.weights) or "none"
        raise ModelError(
            "weights-missing", f"The card {self.name!r} has no weights of format {wanted or 'any'}. It has: {formats}."
        )

    def _missing(self, entry: Weights) -> str:
        if entry.file:
            place = self.folder / entry.file
            return f"The card {self.name!r} names the file {place}, which is not there. Install VisionKit again."
        cached = fetched_path(entry) or "the cache folder (set VISIONKIT_CACHE, as there is no home folder)"
        return (
            f"The weights of {self.name!r} are not on this machine. `visionkit models fetch {self.name}` fetches them, "
            f"or put {entry.url} at {cached}. `visionkit models list` shows the models that need nothing."
        )


def fetched_path(entry: Weights) -> Path | None:
    """Where weights with an address are kept: the hash is in the name, so that two versions never meet."""
    folder = cache_dir(create=False)
    name = entry.name if entry.sha256[:8] in entry.name else f"{entry.sha256[:8]}-{entry.name}"
    return None if folder is None else folder / "weights" / name


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits; `ModelError` `weights-missing` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError("weights-missing", f"The weights {path} cannot be read: {error.strerror}.") from error
