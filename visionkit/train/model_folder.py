"""A finished training as a model that the tasks load: its weights in half precision and a card."""

from __future__ import annotations

import hashlib
from pathlib import Path

import keras

from visionkit.weights.storage import save_half

__all__ = ["write_tracker"]


def write_tracker(network: keras.Model, folder: Path, *, seed: int) -> None:
    """Write `<folder's name>.weights.h5` and `card.toml` of a trained SiamBox into `folder`."""
    name = f"{folder.resolve().name}.weights.h5"
    save_half(network, folder / name)
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    sizes = {key: network.input[key].shape[1] for key in ("exemplar", "search")}
    card = f'''summary = "A Siamese tracker trained with `visionkit train siamese`, seed {seed}"
task = "track"
network = "siambox"
licence = "NONE"

[input]
exemplar_size = {sizes["exemplar"]}
search_size = {sizes["search"]}

[[weights]]
file = "{name}"
sha256 = "{digest}"
format = "visionkit"
'''
    (folder / "card.toml").write_text(card, encoding="utf-8")
