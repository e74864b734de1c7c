"""Model cards and their weights."""

from visionkit.weights.card import Card, Metric, Trained, Weights
from visionkit.weights.fetch import fetch, obtain
from visionkit.weights.importing import import_weights
from visionkit.weights.loading import build_network, load_weights
from visionkit.weights.registry import card_names, list_cards, load_card
from visionkit.weights.torch_zip import read_checkpoint

__all__ = [
    "Card",
    "Metric",
    "Trained",
    "Weights",
    "build_network",
    "card_names",
    "fetch",
    "import_weights",
    "list_cards",
    "load_card",
    "load_weights",
    "obtain",
    "read_checkpoint",
]
