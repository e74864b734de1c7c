"""Values of a recipe: from what TOML holds to what a stage takes, each kind a row or a function."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Option",
    "box",
    "choice",
    "flag",
    "formats",
    "integer",
    "names",
    "number",
    "numbers",
    "points",
    "shapes",
    "sizes",
    "text",
]

MOST = 10**9  # of any number
MOST_PIXELS = 32_766  # of a side
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Option:
    """One key of a stage.

    Args:
        read: from TOML's value to what the stage takes; raises ValueError with what is expected, `a number`.
        usual: what it is without being given.
        place: what kind of place it names: `model` (a card's name, or a path), `file`, `folder`, or nothing.
    """

    read: Callable[[Any], Any]
    usual: Any = None
    place: str = ""


def flag(value: Any) -> bool:
    """A truth."""
    if type(value) is not bool:
        raise ValueError("true or false")
    return value


def text(value: Any) -> str:
    """A string with something in it."""
    if type(value) is not str or not value or "\0" in value:
        raise ValueError("a string with something in it")
    return value


def choice(*known: str) -> Callable[[Any], str]:
    """One of the words."""

    def read(value: Any) -> str:
        if type(value) is not str or value not in known:
            raise ValueError(f"one of {', '.join(known)}")
        return value

    return read


def integer(least: int, most: int | None = None) -> Callable[[Any], int]:
    """A whole number in a range."""
    said = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"

    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= (MOST if most is None else most):
            raise ValueError(said)
        return value

    return read


def number(least: float, most: float = math.inf, *, above: bool = False) -> Callable[[Any], float]:
    """A finite number in a range; `above` leaves its lower end out."""
    low = f"above {least:g}" if above else f"of at least {least:g}" if most == math.inf else f"from {least:g}"
    said = f"a number {low}" + ("" if most == math.inf else f" to {most:g}")

    def read(value: Any) -> float:
        if not _is_number(value) or value < least or value > most or (above and value == least):
            raise ValueError(said)
        return float(value)

    return read


def numbers(least: float, most: float) -> Callable[[Any], tuple[float, ...]]:
    """A list of numbers in a range."""
    one = number(least, most)

    def read(value: Any) -> tuple[float, ...]:
        if type(value) is not list or not value:
            raise ValueError(f"a list of numbers from {least:g} to {most:g}")
        return tuple(one(each) for each in value)

    return read


def sizes(value: Any) -> tuple[int, ...]:
    """One number of pixels, or height and width."""
    given = value if type(value) is list else [value]
    if not 1 <= len(given) <= 2 or any(type(each) is not int or not 1 <= each <= MOST_PIXELS for each in given):
        raise ValueError("a positive whole number, or height and width as [240, 320]")
    return tuple(given)


def names(*, ids: bool = False) -> Callable[[Any], tuple[Any, ...]]:
    """Classes by name or id, one or a list; `ids` takes numbers alone."""
    said = "class ids, such as [0, 2]" if ids else 'names or ids of classes, such as ["car", "bus"]'

    def read(value: Any) -> tuple[Any, ...]:
        given = value if type(value) is list else [value]
        good = [
            (type(one) is int and 0 <= one <= MOST) or (not ids and type(one) is str and one.strip()) for one in given
        ]
        if not given or not all(good):
            raise ValueError(said)
        return tuple(given) if ids else tuple(str(one) for one in given)

    return read


def box(value: Any) -> tuple[float, float, float, float]:
    """Left, top, width and height in pixels, as xyxy."""
    if type(value) is not list or len(value) != 4 or not all(map(_is_number, value)) or min(value[2:]) <= 0:
        raise ValueError("left, top, width and height in pixels, such as [300, 120, 80, 60]")
    x, y, width, height = map(float, value)
    return x, y, x + width, y + height


def points(least: int, most: int | None = None) -> Callable[[Any], Points]:
    """Points in pixels: [[x, y], …], or the numbers one after the other."""
    count = f"{least}" if least == most else f"at least {least}"
    said = f"{count} points in pixels, such as [[10, 20], [30, 40], …]"

    def read(value: Any) -> Points:
        if type(value) is not list:
            raise ValueError(said)
        flat = [each for one in value for each in (one if type(one) is list else [one])]
        pairs = all(type(one) is list and len(one) == 2 for one in value) or not any(type(o) is list for o in value)
        found = len(flat) // 2
        if not pairs or len(flat) % 2 or not all(map(_is_number, flat)) or found < least or (most and found > most):
            raise ValueError(said)
        return tuple((float(flat[2 * place]), float(flat[2 * place + 1])) for place in range(found))

    return read


def shapes(least: int, most: int | None = None) -> Callable[[Any], tuple[Points, ...]]:
    """A list of lines or polygons, each as `points`."""
    one = points(least, most)

    def read(value: Any) -> tuple[Points, ...]:
        if type(value) is not list or not value or type(value[0]) is not list:
            raise ValueError("a list of shapes, such as [[0, 300, 768, 300]]")
        return tuple(one(each) for each in value)

    return read


def formats(known: Sequence[str]) -> Callable[[Any], tuple[str, ...]]:
    """Words of a list, each once."""

    def read(value: Any) -> tuple[str, ...]:
        given = value if type(value) is list else [value]
        if not given or any(type(each) is not str or each not in known for each in given):
            raise ValueError(f"some of {', '.join(known)}")
        return tuple(dict.fromkeys(given))

    return read


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -MOST <= value <= MOST  # False for nan
