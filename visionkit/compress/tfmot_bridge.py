"""What tensorflow-model-optimization does to a network's twin: fake quantization, pruning, clustering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from visionkit.compress.tfmot_modules import load_tfmot
from visionkit.compress.twin import cloned, copied, own_functions
from visionkit.runtime.quiet import quiet

__all__ = ["THINNED", "clustered", "pruned", "quantization_aware", "stripped"]

THINNED = ("Conv2D", "Conv2DTranspose", "Dense")  # what pruning and clustering change; depthwise kernels are small
LEAST_WEIGHTS = 4
INPUT = "InputLayer"


def quantization_aware(twin: Any) -> Any:
    """The twin with the fake quantization of tensorflow-model-optimization's default 8 bits.

    Layers that it has no rule for (Multiply, Resizing, PReLU …) round their output.
    """
    tfmot, tf_keras = load_tfmot()
    kit = tfmot.quantization.keras
    registry = _registry()
    output_only = _output_only(kit)

    def annotated(layer: Any) -> Any:
        if type(layer).__name__ == INPUT:
            return layer
        known = registry.supports(layer) or _follows_weights(layer)
        return kit.quantize_annotate_layer(layer) if known else kit.quantize_annotate_layer(layer, output_only())

    scope = {output_only.__name__: output_only, **own_functions()}
    with quiet(), tf_keras.utils.custom_object_scope(scope):
        return kit.quantize_apply(tf_keras.models.clone_model(twin, clone_function=annotated))


def pruned(twin: Any, sparsity: float, steps: int, *, keep: Sequence[str] = ()) -> tuple[Any, list[Any]]:
    """The twin with the smallest weights of `THINNED` layers masked while it trains, and the callbacks of that.

    Zhu, Gupta, To prune, or not to prune, 2017, equation 1: the share of zeros rises from 0 by a cubic curve, over the
    first 60 % of the steps; the rest heals.

    Args:
        sparsity: share of zeros in the end.
        steps: of the training.
        keep: names of layers that stay whole.
    """
    tfmot, tf_keras = load_tfmot()
    kit = tfmot.sparsity.keras
    end = max(1, round(0.6 * steps))
    schedule = kit.PolynomialDecay(0.0, sparsity, 0, end, frequency=max(1, end // 20))

    def wrapped(layer: Any) -> Any:
        thinned = type(layer).__name__ in THINNED and layer.name not in keep
        return kit.prune_low_magnitude(layer, pruning_schedule=schedule) if thinned else layer

    with quiet():
        model = cloned(tf_keras, copied(tf_keras, twin), wrapped)
    return model, [kit.UpdatePruningStep()]


def clustered(twin: Any, clusters: int, *, keep: Sequence[str] = ()) -> Any:
    """The twin with the kernels of `THINNED` layers made of so many values each, which go on learning.

    Han, Mao, Dally, Deep compression, ICLR 2016, section 3, with centroids by k-means++.

    Args:
        clusters: values of a kernel; one with fewer than four weights for each stays as it is.
        keep: names of layers that stay as they are.
    """
    tfmot, tf_keras = load_tfmot()
    kit = tfmot.clustering.keras
    how = {
        "number_of_clusters": clusters,
        "cluster_centroids_init": kit.CentroidInitialization.KMEANS_PLUS_PLUS,
    }

    def wrapped(layer: Any) -> Any:
        thinned = type(layer).__name__ in THINNED and layer.name not in keep
        large = thinned and np.prod(layer.kernel.shape) >= LEAST_WEIGHTS * clusters
        return kit.cluster_weights(layer, **how) if large else layer

    with quiet():
        return cloned(tf_keras, copied(tf_keras, twin), wrapped)


def stripped(model: Any) -> Any:
    """A pruned or clustered twin as plain layers, the zeros or the values of its kernels in them."""
    tfmot, _ = load_tfmot()
    kinds = {type(layer).__name__ for layer in model.layers}
    with quiet():
        if any("Prune" in kind for kind in kinds):
            return tfmot.sparsity.keras.strip_pruning(model)
        return tfmot.clustering.keras.strip_clustering(model)


def _follows_weights(layer: Any) -> bool:
    """Whether a layer is a normalisation that tfmot folds into the weights before it, if it has no rule of its own."""
    if type(layer).__name__ != "BatchNormalization":
        return False
    before = layer.inbound_nodes[0].inbound_layers
    return type(before).__name__ in ("Conv2D", "DepthwiseConv2D", "Dense")


def _registry() -> Any:
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_registry as default,
    )

    return default.Default8BitQuantizeRegistry()


def _output_only(kit: Any) -> type:
    """A rule for layers that have none: their output is rounded, nothing else."""

    class OutputOnly(kit.QuantizeConfig):
        def get_weights_and_quantizers(self, layer: Any) -> list[Any]:
            return []

        def get_activations_and_quantizers(self, layer: Any) -> list[Any]:
            return []

        def set_quantize_weights(self, layer: Any, quantize_weights: Any) -> None:
            pass

        def set_quantize_activations(self, layer: Any, quantize_activations: Any) -> None:
            pass

        def get_output_quantizers(self, layer: Any) -> list[Any]:
            return [kit.quantizers.MovingAverageQuantizer(8, False, False, False)]

        def get_config(self) -> dict[str, Any]:
            return {}

    return OutputOnly
