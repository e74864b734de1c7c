"""What an inspection finds, as plain values: one row a layer, and the sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from visionkit.geometry.receptive_field import Number, Pair, ReceptiveField

__all__ = ["LayerFacts", "Shape", "Summary", "WindowFacts"]

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class WindowFacts:
    """The window that a convolution or a pooling moves over its map.

    Args:
        kernel_hw, stride_hw, dilation_hw: as the layer has them.
        padding: pixels added to the map: top, bottom, left, right.
        rounding: how the layer makes the size whole: `floor`, `ceil`, `same`; `exact` for transposed ones.
        exact_hw: the size before rounding.
    """

    kernel_hw: Pair
    stride_hw: Pair = (1, 1)
    dilation_hw: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    rounding: str = "floor"
    exact_hw: tuple[Number, Number] | None = None

    @property
    def divides(self) -> bool:
        """Whether the windows fit without rounding."""
        return self.exact_hw is None or all(Fraction(size).denominator == 1 for size in self.exact_hw)


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """One layer where it is used: a row of the table.

    Args:
        name: of the layer, with the names of the models it lies in: `branch/conv1`.
        kind: the layer's class, or the operation's name.
        output_shape: without the batch; of the first output if there are several.
        parameters: all of them, 0 where the layer was counted in an earlier row (`shared`); `trainable` of these.
        macs: multiply-adds for one sample; None where they cannot be told.
        fields: receptive field by name of the input; empty where nothing of an image is seen, None where unknown.
        window: of a convolution or a pooling.
        shared: the layer has been used before.
        notes: what the reader should know of this layer.
        inputs: names of the rows it takes its inputs from.
    """

    name: str
    kind: str
    output_shape: Shape
    parameters: int = 0
    trainable: int = 0
    macs: int | None = 0
    fields: Mapping[str, ReceptiveField] | None = field(default_factory=dict)
    window: WindowFacts | None = None
    shared: bool = False
    notes: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """A whole network.

    Args:
        name: of the model.
        inputs: shape by input, without the batch.
        outputs: shape by output, without the batch.
        layers: one row for each use of a layer, in an order in which they can run.
        parameters: of the network, each counted once; `trainable` of these.
        notes: what holds for the whole table.
    """

    name: str
    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]
    layers: tuple[LayerFacts, ...]
    parameters: int
    trainable: int
    notes: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-adds of one forward pass over one sample, of the layers where they are known."""
        return sum(layer.macs or 0 for layer in self.layers)

    @property
    def unknown_macs(self) -> tuple[str, ...]:
        """Layers whose multiply-adds cannot be told."""
        return tuple(layer.name for layer in self.layers if layer.macs is None)

    @property
    def training_macs(self) -> int:
        """Of one training step over one sample: about three forward passes, as the backward pass costs about two."""
        return 3 * self.macs

    def layer(self, name: str) -> LayerFacts:
        """The first row of this name.

        Raises:
            KeyError: there is none.
        """
        for row in self.layers:
            if row.name == name:
                return row
        raise KeyError(name)
