"""Small networks of cards, and their weights as torchvision would have saved them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from visionkit.weights import Card

TORCH = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def card_of(network: str, size_hw: tuple[int, int], labels: int, **args: Any) -> Card:
    """A card to classify; its weights are given by path."""
    names = tuple(f"class {number}" for number in range(labels))
    rule = {"size_hw": list(size_hw), "resize": "stretch", "preset": "torch"}
    return Card(network, Path(), "classify", network, "MIT", args=args, input=rule, labels=names)


def torch_state(model: Any, head: str) -> dict[str, np.ndarray]:
    """Noise for every variable of a plain network, under the names and in the layout that torch has for it.

    Args:
        model: of convolutions without groups, batch normalisation and one dense layer called "logits".
        head: torch's name of that layer.
    """
    rs = np.random.RandomState(5)
    state = {}
    for layer in model.layers:
        for variable in layer.weights:
            values = rs.uniform(0.1, 0.3, variable.shape).astype(np.float32)
            if variable.name == "kernel":
                values = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values.T
            state[f"{head if layer.name == 'logits' else layer.name}.{TORCH[variable.name]}"] = values
    return state
