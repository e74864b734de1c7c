"""From a classifier's card to the spatial transformer in its network."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from visionkit.errors import UsageError
from visionkit.tasks.artifact_network import card_of
from visionkit.tasks.load_classify import card_network, card_rule, is_model_file
from visionkit.tasks.rectify import TransformerRectifier
from visionkit.tasks.transform import THETA, TransformRule, with_theta

if TYPE_CHECKING:
    import keras

    from visionkit.weights.fetch import Progress

__all__ = ["load_rectifier"]


def load_rectifier(
    name: str | os.PathLike[str],
    *,
    size_hw: tuple[int, int] | None = None,
    antialias: bool = False,
    border: str = "zero",
    runtime: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    on_compile: Callable[[], None] | None = None,
    notice: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> TransformerRectifier:
    """The spatial transformer of a classifier's card as a rectifier; only its localisation network is run.

    Args:
        name: a card's name, or the path of a folder with a `card.toml`, whose network has a layer called `theta`.
        size_hw: of the crops; None is the size of the network's input.
        antialias: average what a pixel of a crop covers.
        border: what a crop shows outside of the image: `zero` is black, `clamp` the nearest pixel of the image's edge.
        runtime, precision, threads: as `load_classifier`.
        on_compile: called before the network is built, compiled and measured, which takes seconds and happens once.
        notice, progress: of a download, where the weights are not on this machine.

    Raises:
        ModelError: there is no such card, or its network has no transformer (`no-transformer`).
        UsageError: `model-unfit`; a model file does not say what its transformer is.
    """
    if is_model_file(name):
        raise UsageError("model-unfit", f"{os.fspath(name)!r} is a model file; expected the card of a classifier.")
    card, artifact = card_of(name, "classify")
    rule = card_rule(card)
    network = card_network(card, rule, artifact, on_build=on_compile, notice=notice, progress=progress)

    def localisation(model: keras.Model) -> keras.Model:
        return with_theta(model, card.name, alone=True)

    runner = network.compiled(THETA, localisation, runtime=runtime, precision=precision, threads=threads)
    transform = TransformRule.of_network(rule, card.args, int(runner.outputs[THETA].shape[-1] or 0))
    rectifier = TransformerRectifier(runner, transform, size_hw, antialias=antialias, border=border)
    rectifier.model = network.facts(runner)
    return rectifier
