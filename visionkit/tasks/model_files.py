"""What is told of model files from outside: whether a name is one, and class names in a text file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from visionkit.errors import InputError
from visionkit.tasks.classify import Labels

__all__ = ["is_model_file", "read_labels"]

SUFFIXES = (".keras", ".tflite", ".onnx", ".xml", ".h5", ".hdf5")


def is_model_file(name: str | os.PathLike[str]) -> bool:
    """Whether `name` is a model file or a SavedModel that does not say what it is, and not a card.

    Raises:
        ModelError: `artifact-corrupt`; what it says of itself is damaged.
    """
    from visionkit.weights.artifact import has_description

    path = Path(name)
    is_model = path.suffix.lower() in SUFFIXES or (path / "saved_model.pb").is_file()
    return is_model and not has_description(path)


def read_labels(labels: Sequence[str] | Mapping[str, Sequence[str]] | str | os.PathLike[str]) -> Labels:
    """Class names as given, or those of a text file with one a line. Raises InputError `labels-unreadable`."""
    if isinstance(labels, Mapping):
        return {str(head): tuple(names) for head, names in labels.items()}
    if not isinstance(labels, str | os.PathLike):
        return tuple(labels)
    try:
        return tuple(Path(labels).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InputError("labels-unreadable", f"the labels {os.fspath(labels)!r} cannot be read: {reason}") from error
