"""Magnitude pruning: the smallest weights become zeros while the network learns to do without them.

Zhu, Gupta, To prune, or not to prune, 2017, by tensorflow-model-optimization through a twin in tf_keras. Zeros zip
well; no runtime here computes faster for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from visionkit.compress.thin import ThinOptions, kernels, told_size, write_thinned

if TYPE_CHECKING:
    from visionkit.compress.trials import DataChoice
    from visionkit.compress.variants import Workshop
    from visionkit.weights import Card
    from visionkit.weights.artifact import Artifact

__all__ = ["build", "prune_classifier"]

SPARSITY = 0.7


def prune_classifier(
    card: Card | str,
    data: DataChoice,
    path: Path,
    *,
    sparsity: float = SPARSITY,
    keep: Sequence[str] = (),
    options: ThinOptions | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[Artifact, dict[str, float]]:
    """A card's classifier trained on until `sparsity` of its larger kernels is zero; the share of zeros by layer.

    Args:
        data: class folders with a part to learn from.
        path: of the `.tflite`.
        sparsity: above 0, below 1.
        keep: layers that stay whole.

    Raises:
        ModelError, UsageError: as `write_thinned`.
    """
    from visionkit.compress.tfmot_bridge import pruned

    if not 0 < sparsity < 1:
        raise ValueError(f"`sparsity` must be above 0 and below 1. Received: sparsity={sparsity}.")
    made, network = write_thinned(
        card,
        data,
        path,
        lambda twin, steps: pruned(twin, sparsity, steps, keep=keep),
        kind="pruned",
        options=options,
        report=report,
    )
    return made, {name: float((kernel == 0).mean()) for name, kernel in kernels(network).items()}


def build(workshop: Workshop, path: Path) -> Sequence[str]:
    """As `visionkit quantize --kinds pruned` builds it; notes on what came out."""
    made, zeros = prune_classifier(
        workshop.card("pruning"), workshop.data, path, keep=workshop.keep_float, options=ThinOptions(seed=workshop.seed)
    )
    share = float(np.mean(list(zeros.values())))
    return [f"{share:.0%} of the weights of {len(zeros)} layers are zero: {told_size(made.path)}"]
