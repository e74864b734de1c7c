"""Receptive fields: which input pixels a feature sees, in exact arithmetic, and the sizes that windows leave.

Along one axis the feature at `x` sees the pixels from `first + x * stride` to `last + x * stride`, pixels counted from
0 and also outside the image, where the padding lies: `first = -padding`, `last = first + size - 1`. A window of kernel
k, dilation d, stride s, padding p over such features makes `padding += p * j; size += (k_eff - 1) * j; j *= s`, with
`k_eff = d * (k - 1) + 1` and j the stride so far. Where several paths meet, the extents are united.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

__all__ = ["ROUNDINGS", "AxisField", "Merged", "Reach", "ReceptiveField", "merge", "window_reach"]

Number = int | Fraction
Pair = tuple[int, int]
ROUNDINGS = ("floor", "ceil", "same")


@dataclass(frozen=True, slots=True)
class AxisField:
    """The receptive field along one axis, in input pixels.

    Args:
        size: pixels that a feature sees.
        stride: pixels from one feature to the next; a fraction after upsampling, 0 where all features see the same.
        padding: pixels before the image that the first feature sees; negative after cropping.
    """

    size: Number = 1
    stride: Number = 1
    padding: Number = 0

    @property
    def first(self) -> Number:
        """The first pixel that feature 0 sees."""
        return -self.padding

    @property
    def last(self) -> Number:
        """The last pixel that feature 0 sees."""
        return self.size - self.padding - 1

    def center(self, x: Number = 0) -> Fraction:
        """Index of the pixel at the centre of feature `x`; in continuous coordinates (STYLE) it is 0.5 more."""
        return Fraction(-self.padding + x * self.stride) + Fraction(self.size - 1) / 2

    def window(self, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> AxisField:
        """The field behind a convolution or a pooling; `padding` is what lies before the map."""
        reach = dilation * (kernel - 1)
        return AxisField(self.size + reach * self.stride, self.stride * stride, self.padding + padding * self.stride)

    def upsample(self, factor: int, kernel: int | None = None, padding: int = 0) -> AxisField:
        """The field behind a transposed convolution of stride `factor`; `padding` is what it cuts before the output.

        Output y takes the inputs from (y + p - k + 1) / f to (y + p) / f. Which whole ones these are differs from
        output to output; the field is the extent that holds for all of them. Repeating pixels is `kernel == factor`.
        """
        kernel = factor if kernel is None else kernel
        step = Fraction(self.stride) / factor
        return AxisField(
            _plain(self.size + (kernel - 1) * step), _plain(step), _plain(self.padding + (kernel - 1 - padding) * step)
        )

    def resize(self, size: int, result: int) -> AxisField:
        """The field behind a bilinear resizing of the axis from `size` to `result` features, centres aligned."""
        step = Fraction(size, result)
        middle = (step - 1) / 2
        return AxisField(
            self.size + 2 * self.stride, _plain(self.stride * step), _plain(self.padding - (middle - 1) * self.stride)
        )

    def adapt(self, size: int, result: int) -> AxisField:
        """The field behind an adaptive pooling: cell i of `result` reaches from floor(i s) to ceil((i + 1) s)."""
        step = Fraction(size, result)
        slack = 1 - Fraction(1, step.denominator)  # how far a cell can begin before i * s, and end behind
        reach = step - 1 + 2 * slack
        return AxisField(
            _plain(self.size + reach * self.stride),
            _plain(self.stride * step),
            _plain(self.padding + slack * self.stride),
        )

    def covers(self, size: int) -> bool:
        """Whether feature 0 sees the whole axis of an image of `size` pixels."""
        return self.first <= 0 and self.last >= size - 1


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """The receptive field of a feature map.

    Args:
        h: down.
        w: across.
        whole: every feature also sees the whole input, through a branch that pools it (squeeze and excitation).
        bound: behind an upsampling, where `size` is the extent that holds for all phases.
    """

    h: AxisField = AxisField()
    w: AxisField = AxisField()
    whole: bool = False
    bound: bool = False

    @property
    def size_hw(self) -> tuple[Number, Number]:
        """Pixels seen, down and across."""
        return self.h.size, self.w.size

    @property
    def stride_hw(self) -> tuple[Number, Number]:
        """Pixels from one feature to the next."""
        return self.h.stride, self.w.stride

    @property
    def padding_hw(self) -> tuple[Number, Number]:
        """Pixels above and left of the image that the first feature sees."""
        return self.h.padding, self.w.padding

    def center_hw(self, y: Number = 0, x: Number = 0) -> tuple[Fraction, Fraction]:
        """Pixel indices at the centre of feature (y, x)."""
        return self.h.center(y), self.w.center(x)

    def window(
        self, kernel_hw: Pair, stride_hw: Pair = (1, 1), padding_hw: Pair = (0, 0), dilation_hw: Pair = (1, 1)
    ) -> ReceptiveField:
        """The field behind a convolution or a pooling; `padding_hw` is what lies above and left of the map."""
        (kh, kw), (sh, sw), (ph, pw), (dh, dw) = kernel_hw, stride_hw, padding_hw, dilation_hw
        return replace(self, h=self.h.window(kh, sh, ph, dh), w=self.w.window(kw, sw, pw, dw))

    def upsample(self, factor_hw: Pair, kernel_hw: Pair | None = None, padding_hw: Pair = (0, 0)) -> ReceptiveField:
        """The field behind a transposed convolution, or behind repeated pixels."""
        kernel_hw = kernel_hw or factor_hw
        h = self.h.upsample(factor_hw[0], kernel_hw[0], padding_hw[0])
        w = self.w.upsample(factor_hw[1], kernel_hw[1], padding_hw[1])
        return replace(self, h=h, w=w, bound=self.bound or factor_hw != (1, 1))

    def resize(self, size_hw: Pair, result_hw: Pair) -> ReceptiveField:
        """The field behind a bilinear resizing."""
        h, w = self.h.resize(size_hw[0], result_hw[0]), self.w.resize(size_hw[1], result_hw[1])
        return replace(self, h=h, w=w, bound=True)

    def adapt(self, size_hw: Pair, result_hw: Pair) -> ReceptiveField:
        """The field behind an adaptive pooling."""
        h, w = self.h.adapt(size_hw[0], result_hw[0]), self.w.adapt(size_hw[1], result_hw[1])
        uneven = any(size % result for size, result in zip(size_hw, result_hw, strict=True))
        return replace(self, h=h, w=w, bound=self.bound or uneven)

    def pad(self, before_hw: Pair) -> ReceptiveField:
        """The field behind explicit padding (negative: cropping) above and left of the map."""
        return self.window((1, 1), padding_hw=before_hw)

    def still(self) -> ReceptiveField:
        """The field of a single feature that is spread over a map: every position sees the same."""
        return replace(self, h=replace(self.h, stride=0), w=replace(self.w, stride=0))

    def covers(self, size_hw: Pair) -> bool:
        """Whether the first feature sees the whole image of `size_hw` pixels."""
        return self.whole or (self.h.covers(size_hw[0]) and self.w.covers(size_hw[1]))


class Merged(NamedTuple):
    """Branches that meet: their united field, and in words what does not agree, or None."""

    field: ReceptiveField
    misaligned: str | None


def merge(fields: Sequence[ReceptiveField]) -> Merged:
    """The field of features that are added or joined from several paths to the same input.

    The united extent reaches from the first pixel of any path to the last of any. Strides must agree, and so should the
    centres: with branches half a cell apart, say behind a "same" pooling and a strided 1x1 convolution, the network is
    misaligned, and `misaligned` says so.
    """
    if not fields:
        raise ValueError("`fields` must hold at least one field. Received: none.")
    moving = [field for field in fields if any(field.stride_hw)]
    if moving and len(moving) < len(fields):  # a still branch adds its own view to every position
        united, word = merge(moving)
        return Merged(replace(united, whole=True), word)
    down, across = _merge_axis([field.h for field in fields]), _merge_axis([field.w for field in fields])
    words = {word for word in (down[1], across[1]) if word}
    united = ReceptiveField(
        down[0], across[0], any(field.whole for field in fields), any(field.bound for field in fields)
    )
    return Merged(united, "; ".join(sorted(words)) or None)


def _merge_axis(axes: Sequence[AxisField]) -> tuple[AxisField, str | None]:
    first, last = min(axis.first for axis in axes), max(axis.last for axis in axes)
    strides, centers = sorted({axis.stride for axis in axes}), sorted({axis.center() for axis in axes})
    word = None
    if len(strides) > 1:
        word = f"the branches have strides {' and '.join(map(_text, strides))}"
    elif len(centers) > 1:
        word = f"the branches' centres are {_text(centers[-1] - centers[0])} pixels apart"
    return AxisField(last - first + 1, max(strides), -first), word


class Reach(NamedTuple):
    """What a window makes of one axis.

    `size` is the number of results; `padding` what was added before and after (after: also what ceil mode reaches over
    the end); `exact` is the size before rounding, whole where the windows fit.
    """

    size: int
    padding: Pair
    exact: Fraction


def window_reach(
    size: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: Pair = (0, 0),
    dilation: int = 1,
    rounding: str = "floor",
) -> Reach:
    """How many windows fit along an axis of `size`: `(W - F + 2P) / S + 1`, rounded as the layer rounds.

    Args:
        size: of the map along the axis.
        kernel: of the window.
        stride: from window to window.
        padding: added before and after; `same` finds its own.
        dilation: step inside the window.
        rounding: `floor` (Keras "valid", torch), `ceil` (Caffe, torch's ceil_mode: the last window may reach over the
            end, but starts inside the map or the padding before it), or `same` (TensorFlow: W / S rounded up, padding
            split with the odd pixel behind). 500 -> 10 through AlexNet needs `ceil`; 55 -> 27 with `ceil`, 28 `same`.

    Raises:
        ValueError: nothing fits, or an argument is out of its range.
    """
    if min(size, kernel, stride, dilation) < 1 or min(padding) < 0 or rounding not in ROUNDINGS:
        raise ValueError(
            "`size`, `kernel`, `stride` and `dilation` must be positive, `padding` not negative, `rounding` one of "
            f"{', '.join(ROUNDINGS)}. Received: size={size}, kernel={kernel}, stride={stride}, padding={padding}, "
            f"dilation={dilation}, rounding={rounding!r}."
        )
    reach = dilation * (kernel - 1) + 1
    if rounding == "same":
        count = -(-size // stride)
        total = max((count - 1) * stride + reach - size, 0)
        return Reach(count, (total // 2, total - total // 2), Fraction(size, stride))
    free = size + sum(padding) - reach
    if free < 0:
        raise ValueError(
            f"A window of {reach} does not fit into {size} with padding {padding}. Give the network a larger input."
        )
    exact = Fraction(free, stride) + 1
    count = math.floor(exact)
    if rounding == "ceil":
        count = math.ceil(exact)
        if (count - 1) * stride >= size + padding[0]:
            count -= 1
    over = max((count - 1) * stride + reach - (size + padding[0]), padding[1])
    return Reach(count, (padding[0], over), exact)


def _plain(value: Number) -> Number:
    return int(value) if value == int(value) else value


def _text(value: Number) -> str:
    return f"{float(value):g}"
