"""A graph of operations as an exported file holds it, read into plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Operation", "OpsGraph", "TensorFacts"]


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """One tensor of the graph.

    Args:
        name: as the file has it.
        shape: with the batch; `is_open` where the file leaves sizes beside the batch open.
        constant: it lies in the file.
        weights: it holds numbers of the network rather than sizes, axes and the like.
        values: small integer constants.
    """

    name: str
    shape: tuple[int, ...]
    constant: bool = False
    weights: bool = False
    values: npt.NDArray[np.int64] | None = None
    is_open: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: its kind (`CONV_2D`), indices of tensors (-1: left out), and its settings."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    custom: bool = False


@dataclass(frozen=True, slots=True)
class OpsGraph:
    """A graph: tensors, operations in the order in which they run, and names of the inputs and outputs by index."""

    name: str
    tensors: tuple[TensorFacts, ...]
    operations: tuple[Operation, ...]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    notes: tuple[str, ...] = ()
