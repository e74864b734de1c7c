"""What a verdict's report shows, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from visionkit.compress.nouns import NOUNS, Nouns
from visionkit.compress.verdict import Bounds, Decision, VariantFacts

__all__ = ["Disagreement", "LayerDamage", "QuantizeReport", "RescueStep"]

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Disagreement:
    """An image (uint8 (H, W, 3) BGR, drawn on already) on which a variant and float differ, and what each says.

    Args:
        gap: how far apart they are, from 0 to 1; truth: empty where it is not known.
    """

    name: str
    before: str
    after: str
    truth: str
    gap: float
    image: Image


@dataclass(frozen=True)
class LayerDamage:
    """What quantizing one operation does to the network's answers: signal to noise in dB, the less the worse."""

    name: str
    operation: str
    snr_db: float


@dataclass(frozen=True)
class RescueStep:
    """One try of the rescue: the layers in float, and what came of it."""

    kept: tuple[str, ...]
    facts: VariantFacts


@dataclass(frozen=True)
class QuantizeReport:
    """What the page shows.

    Args:
        metric: what is measured, in words: `top-1`, `mAP50`, `mean IU`; `class_metric` of one class; `counted`: what
            a class has a number of.
        reference: float32, as it was exported.
        nouns: what the numbers are of.
        pictures: by kind, the worst disagreements; `unlabelled` those on frames without labels.
        layers: of `ranked`, a kind, the worst first.
        rescue: steps, the last of which is among the variants.
        settings, command, notes: how it was made, and what was found wrong with the data.
    """

    title: str
    metric: str
    class_metric: str
    counted: str
    reference: VariantFacts
    variants: Sequence[VariantFacts]
    decision: Decision
    bounds: Bounds
    pictures: Mapping[str, Sequence[Disagreement]] = field(default_factory=dict)
    layers: Sequence[LayerDamage] = ()
    ranked: str = ""
    rescue: Sequence[RescueStep] = ()
    nouns: Nouns = NOUNS
    unlabelled: Mapping[str, Sequence[Disagreement]] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    command: str = ""
    notes: Sequence[str] = ()
