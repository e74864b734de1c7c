"""Options that the commands which train share, and the loop's settings that they make."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from visionkit.train.fit import FitOptions

__all__ = [
    "ARGUMENTS",
    "OUT",
    "PATIENCE",
    "RESIZE",
    "SEED",
    "ArgumentType",
    "SizeType",
    "augment",
    "count",
    "fit_options",
    "rate",
    "val",
]

Decorator = Callable[[Any], Any]


class SizeType(click.ParamType):
    """`N` or `H,W` in pixels, as (H, W)."""

    name = "N|H,W"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """The size as (height, width)."""
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"[1-9]\d{0,4}(,[1-9]\d{0,4})?", str(value)):
            self.fail(f"expected a side or height,width in pixels (96 or 96,128). Received: {value!r}.", param, ctx)
        sides = [int(part) for part in str(value).split(",")]
        return sides[0], sides[-1]


class ArgumentType(click.ParamType):
    """`KEY=VALUE`, the value as TOML has it (a word that is none is a string), as (key, value)."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """The pair."""
        if isinstance(value, tuple):
            return value[0], value[1]
        key, found, text = str(value).partition("=")
        if not found or not key.isidentifier():
            self.fail(f"expected KEY=VALUE, such as width=24. Received: {value!r}.", param, ctx)
        try:
            return key, tomllib.loads(f"value = {text}")["value"]
        except (tomllib.TOMLDecodeError, RecursionError):
            return key, text


OUT = click.option(
    "--out", required=True, metavar="DIR", help="Folder of the new model; an unfinished training there goes on."
)
ARGUMENTS = click.option(
    "--arg", "args", type=ArgumentType(), multiple=True, help="An argument of the network; repeatable."
)
RESIZE = click.option("--resize", type=click.Choice(["stretch", "letterbox"]), help="How images get that size.")
SEED = click.option("--seed", type=int, default=0, show_default=True, help="Of weights, split, order and augmentation.")
PATIENCE = click.option(
    "--patience", type=click.IntRange(min=0), default=0, metavar="N", help="Stop after N epochs without gain."
)


def count(name: str, default: int, told: str) -> Decorator:
    """An option that takes a number from 1 on."""
    return click.option(name, type=click.IntRange(min=1), default=default, show_default=True, help=told)


def rate(scratch: str) -> Decorator:
    """`--learning-rate`, of which `None` means `scratch`, or 5e-4 from a card's weights."""
    told = f"At its highest.  [default: {scratch}; --from 5e-4]"
    return click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help=told)


def val(told: str) -> Decorator:
    """`--val`, a fraction between 0 and 1."""
    between = click.FloatRange(0, 1, min_open=True, max_open=True)
    return click.option("--val", type=between, default=0.2, show_default=True, help=told)


def augment(what: str) -> Decorator:
    """`--augment`, how strongly."""
    told = f"How strongly {what} are changed."
    return click.option("--augment", type=click.FloatRange(0, 2), default=1.0, show_default=True, help=told)


def fit_options(given: dict[str, Any], scratch: float, **more: Any) -> FitOptions:
    """The loop's settings, taken out of what was given; `scratch` is the learning rate without a card's weights."""
    from visionkit.train.fit import FitOptions

    highest = given.pop("learning_rate") or (5e-4 if given["source"] else scratch)
    names = [name for name in ("epochs", "seed", "patience", "schedule", "average") if name in given]
    return FitOptions(learning_rate=highest, **{name: given.pop(name) for name in names}, **more)
