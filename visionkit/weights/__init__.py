"""Model cards and their weights."""

from visionkit.weights.card import Card, Metric, Trained, Weights
from visionkit.weights.registry import card_names, list_cards, load_card
from visionkit.weights.torch_zip import read_checkpoint

__all__ = ["Card", "Metric", "Trained", "Weights", "card_names", "list_cards", "load_card", "read_checkpoint"]
