"""Receptive fields by arithmetic, against counting the pixels one by one."""

from __future__ import annotations

from fractions import Fraction

import pytest

from visionkit.geometry.receptive_field import AxisField, ReceptiveField, merge, window_reach


def seen_by(layers, x, margin=400):
    """The pixels that feature `x` sees, found by walking back through (kernel, stride, padding, dilation)."""
    positions = {x}
    for kernel, stride, padding, dilation in reversed(layers):
        positions = {p * stride - padding + dilation * k for p in positions for k in range(kernel)}
    assert max(map(abs, positions)) < margin
    return min(positions), max(positions)


CHAINS = [
    [(3, 1, 1, 1)],
    [(11, 4, 0, 1), (3, 2, 0, 1), (5, 1, 2, 1), (3, 2, 0, 1)],
    [(7, 2, 3, 1), (3, 2, 1, 1), (1, 2, 0, 1), (3, 1, 1, 1)],
    [(3, 2, 0, 1), (3, 1, 2, 2), (5, 3, 1, 4)],
]


@pytest.mark.parametrize("layers", CHAINS)
@pytest.mark.parametrize("x", [0, 3])
def test_a_chain_sees_what_counting_finds(layers, x):
    field = AxisField()
    for layer in layers:
        field = field.window(*layer)
    first, last = field.first + x * field.stride, field.last + x * field.stride
    assert (first, last) == seen_by(layers, x)
    assert (
        field.center(x) == Fraction(first + last, 2) == -field.padding + x * field.stride + Fraction(field.size - 1, 2)
    )


def test_a_convolution_and_a_pooling_of_the_seed():
    """K = 5 with stride 1, then a pooling of P = 3: P + K - 1 (000 s56)."""
    assert AxisField().window(5).window(3, 3).size == 3 + 5 - 1


def test_the_axes_are_apart():
    field = ReceptiveField().window((3, 5), (2, 1), (1, 0), (1, 2))
    assert (field.size_hw, field.stride_hw, field.padding_hw) == ((3, 9), (2, 1), (1, 0))
    assert field.center_hw(2, 1) == (4, 5)


def test_branches_are_united_not_minimised():
    short, long = ReceptiveField().window((1, 1), (2, 2)), ReceptiveField().window((3, 3), (2, 2), (1, 1))
    merged = merge([short, long])
    assert (merged.field.size_hw, merged.field.padding_hw, merged.misaligned) == ((3, 3), (1, 1), None)


def test_branches_half_a_cell_apart_are_told():
    """A 3x3 window of stride 2 without padding is centred on pixel 1, a strided 1x1 on pixel 0."""
    merged = merge([ReceptiveField().window((1, 1), (2, 2)), ReceptiveField().window((3, 3), (2, 2))])
    assert merged.misaligned == "the branches' centres are 1 pixels apart"
    assert merged.field.size_hw == (3, 3)
    # extents that overlap in part reach further than the longest of them
    apart = merge([ReceptiveField().window((3, 1)), ReceptiveField().window((3, 1), padding_hw=(2, 0))])
    assert (apart.field.size_hw, apart.field.padding_hw) == ((5, 1), (2, 0))


def test_strides_that_differ_are_told():
    merged = merge([ReceptiveField().window((2, 2), (2, 2)), ReceptiveField()])
    assert merged.misaligned == "the branches have strides 1 and 2"


def test_a_branch_of_one_position_adds_the_whole_input():
    local = ReceptiveField().window((3, 3), padding_hw=(1, 1))
    pooled = local.window((20, 30)).still()
    field, misaligned = merge([local, pooled])
    assert (field.size_hw, field.whole, misaligned) == ((3, 3), True, None)
    assert field.covers((1000, 1000))
    assert not local.covers((20, 30))


@pytest.mark.parametrize(("factor", "kernel", "padding"), [(2, 2, 0), (2, 4, 1), (3, 3, 0), (8, 16, 4)])
def test_upsampling_holds_every_phase(factor, kernel, padding):
    """The extent told is the smallest of that form that holds what each output really takes."""
    field = AxisField().upsample(factor, kernel, padding)
    slack = []
    for y in range(40):
        taken = [x for x in range(-40, 80) if 0 <= y + padding - x * factor < kernel]
        first, last = field.first + y * field.stride, field.last + y * field.stride
        assert first <= min(taken)
        assert max(taken) <= last
        slack.append((min(taken) - first, last - max(taken)))
    assert min(front for front, _ in slack) == 0 == min(back for _, back in slack)


def test_bilinear_upsampling_keeps_the_centre():
    assert AxisField().resize(10, 20).center(7) == Fraction(7) / 2 - Fraction(1, 4)  # (7 + 0.5) / 2 - 0.5


@pytest.mark.parametrize(("size", "cells"), [(14, 7), (13, 6), (7, 7), (10, 4)])
def test_adaptive_cells_lie_in_the_extent(size, cells):
    field = AxisField().adapt(size, cells)
    for cell in range(cells):
        start, stop = cell * size // cells, -(-(cell + 1) * size // cells)
        assert field.first + cell * field.stride <= start
        assert stop - 1 <= field.last + cell * field.stride
    assert field.size == 1 + 1 if size == 14 else True


@pytest.mark.parametrize(
    ("size", "window", "floor", "ceil", "same"),
    [
        (98, {"kernel": 3, "stride": 3}, 32, 33, 33),  # 004 L59: 33 is the ceil rule
        (55, {"kernel": 3, "stride": 2}, 27, 27, 28),  # "same" is not ceil
        (227, {"kernel": 11, "stride": 4}, 55, 55, 57),
        (7, {"kernel": 3, "stride": 1}, 5, 5, 7),
        (5, {"kernel": 2, "stride": 3}, 2, 2, 2),
    ],
)
def test_sizes_by_each_rule(size, window, floor, ceil, same):
    kernel, stride = window["kernel"], window["stride"]
    found = [window_reach(size, kernel, stride=stride, rounding=rule).size for rule in ("floor", "ceil", "same")]
    assert found == [floor, ceil, same]


def alexnet_pool5(size, rounding):
    """Size of AlexNet's last map: conv1 11/4, pools 3/2, the other convolutions keep the size."""
    size = window_reach(size, 11, stride=4).size
    for _ in range(3):
        size = window_reach(size, 3, stride=2, rounding=rounding).size
    return size


def test_500_pixels_are_10_cells_by_ceil_and_9_by_floor():
    """002 L143: fc6 as a 6x6 convolution over AlexNet's last map of a 500 x 500 image."""
    assert window_reach(alexnet_pool5(500, "ceil"), 6).size == 10
    assert window_reach(alexnet_pool5(500, "floor"), 6).size == 9


def test_what_does_not_divide_is_told():
    reach = window_reach(224, 11, stride=4)
    assert (reach.size, reach.exact) == (54, Fraction(217, 4))  # 54.25: the slide's 55 needs 227
    assert window_reach(227, 11, stride=4).exact == 55
    assert window_reach(224, 7, stride=2, padding=(3, 3)).exact == Fraction(225, 2)


def test_the_last_window_of_ceil_starts_inside():
    """torch's rule: 4 pixels, kernel 2, stride 3, no padding: a third window would start behind the map."""
    assert window_reach(4, 1, stride=3, rounding="ceil").size == 2
    assert window_reach(3, 1, stride=3, rounding="ceil").size == 1
    assert window_reach(7, 3, stride=2, padding=(1, 1), rounding="ceil").padding == (1, 1)
    assert window_reach(98, 3, stride=3, rounding="ceil").padding == (0, 1)


def test_same_puts_the_odd_pixel_behind():
    assert window_reach(224, 3, stride=2, rounding="same").padding == (0, 1)
    assert window_reach(225, 3, stride=2, rounding="same").padding == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 5, "kernel": 7}, "window of 7 does not fit into 5"),
        ({"size": 0, "kernel": 1}, "must be positive"),
        ({"size": 5, "kernel": 3, "rounding": "round"}, "floor, ceil, same"),
    ],
)
def test_bad_windows_are_refused(arguments, message):
    size, kernel = arguments.pop("size"), arguments.pop("kernel")
    with pytest.raises(ValueError, match=message):
        window_reach(size, kernel, **arguments)


def test_nothing_to_merge():
    with pytest.raises(ValueError, match="at least one"):
        merge([])
