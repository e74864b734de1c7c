"""A card's classifier with its large fully connected layers cut by truncated SVD, as an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visionkit.compress.svd import DenseSavings, dense_savings, truncate_dense
from visionkit.errors import ModelError
from visionkit.weights.artifact import Artifact, retell

if TYPE_CHECKING:
    import keras

    from visionkit.compress.variants import Workshop
    from visionkit.weights import Card

__all__ = ["build", "ranks_for", "truncate_classifier"]

LARGE = 1_000_000  # weights of a layer from which on it is cut: VGG's and AlexNet's fc6 and fc7
SHARE = 0.25  # of its weights to keep
ANSWERS = "logits"  # how names of layers begin that are left whole: each class is a direction of its own


def truncate_classifier(
    card: Card | str,
    path: Path,
    *,
    share: float = SHARE,
    large: int = LARGE,
    ranks: Mapping[str, int] | None = None,
) -> tuple[Artifact, dict[str, DenseSavings]]:
    """A card's classifier as a `.tflite` with two small layers in the place of each large one; what each spares.

    Nothing is trained (Girshick, Fast R-CNN, ICCV 2015, section 3.1).

    Args:
        path: of the `.tflite`.
        share: of a layer's weights that is kept, above 0, below 1.
        large: weights of a layer from which on it is cut.
        ranks: by layer, in the place of `share` and `large`.

    Raises:
        ModelError: `model-unfit`, no classifier; `nothing-to-truncate`, no such layer; those of `export_model`.
        ValueError: `share`, or `ranks` as `truncate_dense` says.
    """
    from visionkit.export import export_model
    from visionkit.weights import load_card

    if not 0 < share < 1:
        raise ValueError(f"`share` must be above 0 and below 1. Received: share={share}.")
    card = load_card(card) if isinstance(card, str) else card
    if card.task != "classify":
        raise ModelError("model-unfit", f"{card.name} is a model to {card.task}; truncated are classifiers.")
    spared: dict[str, DenseSavings] = {}

    def change(model: keras.Model) -> keras.Model:
        chosen = ranks_for(model, share=share, large=large) if ranks is None else ranks
        if not chosen:
            raise ModelError(
                "nothing-to-truncate",
                f"{card.name} has no fully connected layer of {large:,} weights or more before its answers; "
                "truncated SVD is for networks such as VGG and AlexNet.",
            )
        spared.update(dense_savings(model, chosen))
        return truncate_dense(model, chosen)

    made = export_model(card, path, format="litert", change=change)
    return retell(made, "svd", truncated={name: saved._asdict() for name, saved in spared.items()}), spared


def ranks_for(model: keras.Model, *, share: float = SHARE, large: int = LARGE) -> dict[str, int]:
    """By name, the rank that keeps at most `share` of the weights of each large `Dense` before the answers."""
    found = {}
    for layer in model.layers:
        if type(layer).__name__ != "Dense" or layer.name.startswith(ANSWERS):
            continue
        rows, columns = layer.kernel.shape
        rank = int(share * rows * columns / (rows + columns))
        if rows * columns >= large and rank >= 1:
            found[layer.name] = rank
    return found


def build(workshop: Workshop, path: Path) -> Sequence[str]:
    """As `visionkit quantize --kinds svd` builds it; notes on what came out."""
    _, spared = truncate_classifier(workshop.card("truncated SVD"), path)
    return [
        f"{name}: rank {saved.rank}, {saved.after / saved.before:.0%} of its weights, {saved.error:.0%} of it lost"
        for name, saved in spared.items()
    ]
