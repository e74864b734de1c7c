"""A finished training as a model that the tasks load: its weights in half precision and a card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from visionkit.errors import ModelError
from visionkit.weights.storage import save_half

__all__ = ["write_model", "write_tracker"]


def write_tracker(network: keras.Model, folder: Path, *, seed: int) -> None:
    """Write `<folder's name>.weights.h5` and `card.toml` of a trained SiamBox into `folder`."""
    card = {
        "summary": f"A Siamese tracker trained with `visionkit train siamese`, seed {seed}",
        "task": "track",
        "network": "siambox",
        "licence": "NONE",
        "input": {f"{key}_size": network.input[key].shape[1] for key in ("exemplar", "search")},
    }
    write_model(network, folder, card)


def write_model(network: keras.Model, folder: Path, table: Mapping[str, Any]) -> None:
    """Write `<folder's name>.weights.h5` and `card.toml` of a trained network into `folder`.

    The weights are in half precision, or in full where a number does not fit.

    Args:
        table: the card without its weights: plain values first, then tables, then lists of tables.
    """
    name = f"{folder.resolve().name}.weights.h5"
    try:
        save_half(network, folder / name)
    except ModelError:
        network.save_weights(folder / name)
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    weights = {"file": name, "sha256": digest, "format": "visionkit"}
    (folder / "card.toml").write_text(toml_text({**table, "weights": [weights]}), encoding="utf-8")


def toml_text(table: Mapping[str, Any]) -> str:
    """A table of plain values, tables of plain values, and lists of such tables, as TOML."""
    plain, tables = [], []
    for key, value in table.items():
        if isinstance(value, Mapping):
            tables.append("\n".join([f"[{key}]", *_lines(value)]))
        elif isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
            tables += ["\n".join([f"[[{key}]]", *_lines(one)]) for one in value]
        else:
            plain += _lines({key: value})
    return "\n\n".join(["\n".join(plain), *tables]) + "\n"


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in table.items() if value is not None]


def _value(value: Any) -> str:
    """A plain value; strings as JSON writes them, which TOML reads alike but for the character DEL."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
