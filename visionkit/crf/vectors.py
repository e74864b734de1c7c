# mypy: ignore-errors
"""Eight or sixteen float32 in one register for numba code: load, store, arithmetic, maximum, sum, power of e.

LLVM's own vectoriser turns the lattice's loops into gathers over vertices instead of the labels that lie side by side;
so those loops say it themselves. Offsets count elements from an array's first one and are not checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

__all__ = [
    "LANES",
    "WIDE",
    "add",
    "largest",
    "load",
    "load_wide",
    "maximum",
    "muladd",
    "multiply",
    "power",
    "scale",
    "shift",
    "store",
    "total",
    "zeros_wide",
]

LANES, WIDE = 8, 16
REORDER = ("reassoc", "contract", "nnan", "nsz")


class Floats(types.Type):
    """The type of so many float32."""

    def __init__(self, lanes: int) -> None:
        super().__init__(name=f"float32x{lanes}")
        self.lanes = lanes

    @property
    def words(self) -> Any:
        """What LLVM calls it."""
        return ir.VectorType(ir.FloatType(), self.lanes)


eight, sixteen = Floats(LANES), Floats(WIDE)


@register_model(Floats)
class FloatsModel(models.PrimitiveModel):
    """Held in a register as it is (two, where registers are shorter)."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, kind.words)


def _place(context: Any, builder: Any, kind: Any, array: Any, offset: Any, words: Any) -> Any:
    """A pointer to some floats of an array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), words.as_pointer())


def _spread(builder: Any, number: Any, words: Any) -> Any:
    """A number in all lanes."""
    nothing = ir.Constant(words, ir.Undefined)
    one = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        one, nothing, ir.Constant(ir.VectorType(ir.IntType(32), words.count), [0] * words.count)
    )


def _loading(kind: Floats) -> Callable[..., Any]:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_place(context, builder, signature.args[0], *args, kind.words), align=4)

    return code


def _reduction(name: str, *first: Any) -> Callable[..., Any]:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.FloatType(), [*(ir.FloatType() for _ in first), eight.words])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.{name}.v{LANES}f32")
        start = [ir.Constant(ir.FloatType(), value) for value in first]
        return builder.call(function, [*start, args[0]], fastmath=REORDER)

    return code


@intrinsic
def load(typing_context: Any, array: Any, offset: Any) -> Any:
    """Eight elements of a float32 array from `offset` on."""
    return eight(array, types.intp), _loading(eight)


@intrinsic
def load_wide(typing_context: Any, array: Any, offset: Any) -> Any:
    """Sixteen elements of a float32 array from `offset` on."""
    return sixteen(array, types.intp), _loading(sixteen)


@intrinsic
def zeros_wide(typing_context: Any) -> Any:
    """Sixteen zeros."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(sixteen.words, [0.0] * WIDE)

    return sixteen(), code


@intrinsic
def store(typing_context: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write a register's elements from `offset` on."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _place(context, builder, signature.args[0], *args[:2], value.words), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), code


@intrinsic
def muladd(typing_context: Any, value: Any, factor: Any, other: Any) -> Any:
    """value + factor * other, `factor` one number."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        product = builder.fmul(_spread(builder, args[1], value.words), args[2], flags=REORDER)
        return builder.fadd(args[0], product, flags=REORDER)

    return value(value, types.float32, value), code


@intrinsic
def scale(typing_context: Any, value: Any, factor: Any) -> Any:
    """value * factor, `factor` one number."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(args[0], _spread(builder, args[1], value.words), flags=REORDER)

    return value(value, types.float32), code


@intrinsic
def maximum(typing_context: Any, value: Any, other: Any) -> Any:
    """The larger of each pair."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args, flags=REORDER), *args)

    return value(value, value), code


@intrinsic
def largest(typing_context: Any, value: Any) -> Any:
    """The largest of eight."""
    return types.float32(eight), _reduction("fmax")


@intrinsic
def total(typing_context: Any, value: Any) -> Any:
    """The sum of eight."""
    return types.float32(eight), _reduction("fadd", -0.0)


@intrinsic
def add(typing_context: Any, value: Any, other: Any) -> Any:
    """value + other."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(*args, flags=REORDER)

    return value(value, value), code


@intrinsic
def multiply(typing_context: Any, value: Any, other: Any) -> Any:
    """value * other."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(*args, flags=REORDER)

    return value(value, value), code


@intrinsic
def shift(typing_context: Any, value: Any, number: Any) -> Any:
    """value + number, `number` one number."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(args[0], _spread(builder, args[1], value.words), flags=REORDER)

    return value(value, types.float32), code


@intrinsic
def power(typing_context: Any, value: Any) -> Any:
    """e^value to 2e-7 relative for values of at most 0; 0 below e^-60, before denormal numbers make all slow."""

    words, integers = eight.words, ir.VectorType(ir.IntType(32), LANES)

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def number(x: float) -> Any:
            return ir.Constant(words, [x] * LANES)

        def integer(x: int) -> Any:
            return ir.Constant(integers, [x] * LANES)

        seen = builder.fcmp_ordered(">", args[0], number(-60.0))
        t = builder.fmul(builder.select(seen, args[0], number(-60.0)), number(math.log2(math.e)), flags=REORDER)
        floor = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(words, [words]), f"llvm.floor.v{LANES}f32"
        )
        whole = builder.call(floor, [builder.fadd(t, number(0.5))])
        # 2^t = 2^whole 2^f with f in [-0.5, 0.5]: Taylor's polynomial in f ln 2
        f = builder.fsub(t, whole, flags=REORDER)
        p = number(math.log(2) ** 6 / 720)
        for n in (5, 4, 3, 2, 1, 0):
            p = builder.fadd(
                builder.fmul(p, f, flags=REORDER), number(math.log(2) ** n / math.factorial(n)), flags=REORDER
            )
        bits = builder.shl(builder.add(builder.fptosi(whole, integers), integer(127)), integer(23))
        return builder.select(seen, builder.fmul(p, builder.bitcast(bits, words), flags=REORDER), number(0.0))

    return eight(eight), code
