# mypy: ignore-errors
"""Eight float32 in one register for numba code: load, store, arithmetic, maximum, sum, power of e.

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
    "add",
    "largest",
    "load",
    "maximum",
    "muladd",
    "multiply",
    "power",
    "scale",
    "shift",
    "store",
    "total",
    "zeros",
]

LANES = 8
REORDER = ("reassoc", "contract", "nnan", "nsz")
WORDS = ir.VectorType(ir.FloatType(), LANES)
INTEGERS = ir.VectorType(ir.IntType(32), LANES)


class Eight(types.Type):
    """The type of eight float32."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


eight = Eight()


@register_model(Eight)
class EightModel(models.PrimitiveModel):
    """Held in a register as it is."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, WORDS)


def _place(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> Any:
    """A pointer to eight floats of an array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), WORDS.as_pointer())


def _spread(builder: Any, number: Any) -> Any:
    """A number in all eight lanes."""
    one = builder.insert_element(ir.Constant(WORDS, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(WORDS, ir.Undefined), mask)


def _reduction(name: str, *first: Any) -> Callable[..., Any]:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.FloatType(), [*(ir.FloatType() for _ in first), WORDS])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.{name}.v{LANES}f32")
        start = [ir.Constant(ir.FloatType(), value) for value in first]
        return builder.call(function, [*start, args[0]], fastmath=REORDER)

    return code


@intrinsic
def load(typing_context: Any, array: Any, offset: Any) -> Any:
    """Eight elements of a float32 array from `offset` on."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_place(context, builder, signature.args[0], *args), align=4)

    return eight(array, types.intp), code


@intrinsic
def zeros(typing_context: Any) -> Any:
    """Eight zeros."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(WORDS, [0.0] * LANES)

    return eight(), code


@intrinsic
def store(typing_context: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write eight elements from `offset` on."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _place(context, builder, signature.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, eight), code


@intrinsic
def muladd(typing_context: Any, value: Any, factor: Any, other: Any) -> Any:
    """value + factor * other, `factor` one number."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        product = builder.fmul(_spread(builder, args[1]), args[2], flags=REORDER)
        return builder.fadd(args[0], product, flags=REORDER)

    return eight(eight, types.float32, eight), code


@intrinsic
def scale(typing_context: Any, value: Any, factor: Any) -> Any:
    """value * factor, `factor` one number."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(args[0], _spread(builder, args[1]), flags=REORDER)

    return eight(eight, types.float32), code


@intrinsic
def maximum(typing_context: Any, value: Any, other: Any) -> Any:
    """The larger of each pair."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args, flags=REORDER), *args)

    return eight(eight, eight), code


@intrinsic
def largest(typing_context: Any, value: Any) -> Any:
    """The largest of the eight."""
    return types.float32(eight), _reduction("fmax")


@intrinsic
def total(typing_context: Any, value: Any) -> Any:
    """The sum of the eight."""
    return types.float32(eight), _reduction("fadd", -0.0)


@intrinsic
def add(typing_context: Any, value: Any, other: Any) -> Any:
    """value + other."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(*args, flags=REORDER)

    return eight(eight, eight), code


@intrinsic
def multiply(typing_context: Any, value: Any, other: Any) -> Any:
    """value * other."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(*args, flags=REORDER)

    return eight(eight, eight), code


@intrinsic
def shift(typing_context: Any, value: Any, number: Any) -> Any:
    """value + number, `number` one number."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(args[0], _spread(builder, args[1]), flags=REORDER)

    return eight(eight, types.float32), code


@intrinsic
def power(typing_context: Any, value: Any) -> Any:
    """e^value to 2e-7 relative for values of at most 0; 0 below e^-60, before denormal numbers make all slow."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def number(x: float) -> Any:
            return ir.Constant(WORDS, [x] * LANES)

        def integer(x: int) -> Any:
            return ir.Constant(INTEGERS, [x] * LANES)

        seen = builder.fcmp_ordered(">", args[0], number(-60.0))
        t = builder.fmul(builder.select(seen, args[0], number(-60.0)), number(math.log2(math.e)), flags=REORDER)
        floor = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(WORDS, [WORDS]), f"llvm.floor.v{LANES}f32"
        )
        whole = builder.call(floor, [builder.fadd(t, number(0.5))])
        # 2^t = 2^whole 2^f with f in [-0.5, 0.5]: Taylor's polynomial in f ln 2
        f = builder.fsub(t, whole, flags=REORDER)
        p = number(math.log(2) ** 6 / 720)
        for n in (5, 4, 3, 2, 1, 0):
            p = builder.fadd(
                builder.fmul(p, f, flags=REORDER), number(math.log(2) ** n / math.factorial(n)), flags=REORDER
            )
        bits = builder.shl(builder.add(builder.fptosi(whole, INTEGERS), integer(127)), integer(23))
        return builder.select(seen, builder.fmul(p, builder.bitcast(bits, WORDS), flags=REORDER), number(0.0))

    return eight(eight), code
