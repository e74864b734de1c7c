"""Weight clustering: each kernel is made of a few values, which the network learns to live with.

Han, Mao, Dally, Deep compression, ICLR 2016, section 3, by tensorflow-model-optimization through a twin in tf_keras.
Few values zip well; no runtime here computes faster for them.
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

__all__ = ["build", "cluster_classifier"]

CLUSTERS = 32


def cluster_classifier(
    card: Card | str,
    data: DataChoice,
    path: Path,
    *,
    clusters: int = CLUSTERS,
    keep: Sequence[str] = (),
    options: ThinOptions | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[Artifact, dict[str, int]]:
    """A card's classifier trained on with kernels of `clusters` values; how many each layer's has in the end.

    Args:
        data: class folders with a part to learn from.
        path: of the `.tflite`.
        clusters: from 2 to 256.
        keep: layers that stay as they are.

    Raises:
        ModelError, UsageError: as `write_thinned`.
    """
    from visionkit.compress.tfmot_bridge import clustered

    if not 2 <= clusters <= 256:
        raise ValueError(f"`clusters` must be from 2 to 256. Received: clusters={clusters}.")
    made, network = write_thinned(
        card,
        data,
        path,
        lambda twin, steps: (clustered(twin, clusters, keep=keep), ()),
        kind="clustered",
        options=options,
        report=report,
    )
    return made, {name: len(np.unique(kernel)) for name, kernel in kernels(network).items()}


def build(workshop: Workshop, path: Path) -> Sequence[str]:
    """As `visionkit quantize --kinds clustered` builds it; notes on what came out."""
    made, values = cluster_classifier(
        workshop.card("clustering"),
        workshop.data,
        path,
        keep=workshop.keep_float,
        options=ThinOptions(seed=workshop.seed),
    )
    few = [count for count in values.values() if count <= CLUSTERS]
    return [f"{len(few)} of {len(values)} layers have {CLUSTERS} values at most: {told_size(made.path)}"]
