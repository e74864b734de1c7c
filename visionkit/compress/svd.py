"""Truncated SVD of fully connected layers: two small layers in the place of a large one.

Girshick, Fast R-CNN, ICCV 2015, section 3.1: W (u x v) is near U_t S_t V_t^T, so that one layer without activation,
S_t V_t^T, and one with the old biases, U_t, hold t (u + v) weights rather than u v. The paper cuts fc6 of VGG-16 to
t = 1024 and fc7 to 256, which takes 30 % of the time and 0.3 points of mAP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import keras

__all__ = ["DenseSavings", "dense_savings", "truncate_dense"]

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

ROWS = 4096  # of a kernel in double precision at once
FIRST_SUFFIX = ".svd"


class DenseSavings(NamedTuple):
    """What a rank costs and spares, biases not counted.

    Args:
        rank: t.
        before, after: weights u v and t (u + v).
        error: share of the kernel that is lost, in the Frobenius norm: the root of the sum of the squares of the
            singular values that are left out, over that of all.
    """

    rank: int
    before: int
    after: int
    error: float


def truncate_dense(model: keras.Model, ranks: Mapping[str, int]) -> keras.Model:
    """A model of the same layers, but with two `Dense` layers in the place of some; `model` stays as it is.

    The first is called as the old one with `.svd` behind, has no bias and no activation; the second has the old name,
    bias and activation. At full rank the answers are the same but for rounding. The other layers are copies.

    Args:
        model: functional or sequential.
        ranks: name of a `Dense` layer -> t, from 1 to the smaller side of its kernel.

    Raises:
        ValueError: no such layer, one that is no `Dense`, or a rank out of its range.
    """
    from visionkit.runtime.quiet import import_keras

    keras = import_keras()
    kernels = _kernels(model, ranks)
    copies: dict[int, tuple[Any, ...]] = {}  # a layer that is called twice is one layer in the copy, too

    def copied(layer: Any) -> tuple[Any, ...]:
        if id(layer) not in copies:
            last = layer.__class__.from_config(layer.get_config())
            first = (_first(keras, layer, ranks[layer.name]),) if layer.name in ranks else ()
            copies[id(layer)] = (*first, last)
        return copies[id(layer)]

    def called(parts: tuple[Any, ...], *args: Any, **kwargs: Any) -> Any:
        *first, last = parts
        for layer in first:
            args = (layer(*args),)
        return last(*args, **kwargs)

    graph = keras.Model(model.inputs, model.outputs) if isinstance(model, keras.Sequential) else model
    clone: Any = keras.models.clone_model(graph, call_function=called, clone_function=copied)
    for layer in graph.layers:
        *first, last = copies.get(id(layer), (None,))
        if first:
            left, right = _factors(kernels[layer.name], ranks[layer.name])
            first[0].set_weights([left])
            last.set_weights([right, *layer.get_weights()[1:]])
        elif last is not None:
            last.set_weights(layer.get_weights())
    return clone


def dense_savings(model: keras.Model, ranks: Mapping[str, int]) -> dict[str, DenseSavings]:
    """Of each layer what `truncate_dense` would spare and lose; arguments and errors are the same."""
    found = {}
    for name, kernel in _kernels(model, ranks).items():
        rank = ranks[name]
        squares, _ = _spectrum(kernel)
        whole, lost = float(squares.sum()), float(squares[rank:].sum())
        error = (lost / whole) ** 0.5 if whole else 0.0
        found[name] = DenseSavings(rank, kernel.size, rank * sum(kernel.shape), error)
    return found


def _kernels(model: keras.Model, ranks: Mapping[str, int]) -> dict[str, Floats]:
    """Of each layer its kernel (u, v), checked."""
    layers = {layer.name: layer for layer in model.layers}
    kernels = {}
    for name, rank in ranks.items():
        if name not in layers or type(layers[name]).__name__ != "Dense":
            dense = [layer.name for layer in model.layers if type(layer).__name__ == "Dense"]
            raise ValueError(f"`ranks` must name Dense layers of the model: {', '.join(dense)}. Received: {name!r}.")
        kernel = np.asarray(layers[name].kernel, np.float32)
        most = min(kernel.shape)
        if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= most:
            raise ValueError(f"The rank of {name} must be an integer from 1 to {most}. Received: {rank!r}.")
        kernels[name] = kernel
    return kernels


def _first(keras: Any, layer: Any, rank: int) -> Any:
    options = {"use_bias": False, "dtype": layer.dtype_policy, "name": f"{layer.name}{FIRST_SUFFIX}"}
    return keras.layers.Dense(rank, **options)


def _spectrum(kernel: Floats) -> tuple[Doubles, Doubles]:
    """Squares of the singular values, largest first, and the singular vectors (n, n) of the smaller side as columns."""
    tall = kernel if kernel.shape[0] >= kernel.shape[1] else kernel.T
    gram = np.zeros((tall.shape[1], tall.shape[1]))
    for begin in range(0, len(tall), ROWS):
        rows = tall[begin : begin + ROWS].astype(np.float64)
        gram += rows.T @ rows
    squares, vectors = np.linalg.eigh(gram)
    return np.maximum(squares[::-1], 0), vectors[:, ::-1]


def _factors(kernel: Floats, rank: int) -> tuple[Floats, Floats]:
    """Two kernels (u, t) and (t, v) whose product is the best of rank t: `kernel` projected to its first vectors.

    Projecting, rather than dividing by singular values, leaves the full rank exact where some are tiny.
    """
    vectors = _spectrum(kernel)[1][:, :rank].astype(np.float32)
    if kernel.shape[0] >= kernel.shape[1]:
        return kernel @ vectors, np.ascontiguousarray(vectors.T)
    return vectors, vectors.T @ kernel
