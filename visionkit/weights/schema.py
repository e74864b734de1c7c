"""Check of a parsed TOML table against a list of fields: unknown keys, wrong types and missing keys are refused."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Field", "SchemaError", "check"]


class SchemaError(ValueError):
    """What is wrong with a table, in one sentence that names the key."""


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a table.

    Args:
        kind: what the value must be: `str`, `bool`, `int`, `float` (takes an integer too), `list`, `dict`, or a list of
            fields' kinds such as `[int, int]` for a list of exactly that length.
        required: whether the key must be there.
        choices: the only values allowed, if any.
        test: a further condition on the value, and `says`, what it demands ("must be …").
    """

    kind: type | list[type]
    required: bool = False
    choices: tuple[str, ...] = ()
    test: Callable[[Any], bool] | None = None
    says: str = ""


def check(table: Mapping[str, Any], fields: Mapping[str, Field], where: str) -> dict[str, Any]:
    """A copy of `table` that fits `fields`.

    Args:
        table: as TOML gave it.
        fields: every key that may be there.
        where: name of the table in messages, such as `[input]`.

    Raises:
        SchemaError: at the first key that does not fit.
    """
    for key in table:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise SchemaError(f"{where} has an unknown key `{key}`.{hint} Known: {', '.join(fields)}.")
    for key, field in fields.items():
        if key in table:
            _check_value(table[key], field, f"`{key}` of {where}")
        elif field.required:
            raise SchemaError(f"{where} lacks the key `{key}`.")
    return dict(table)


def _check_value(value: Any, field: Field, name: str) -> None:
    if isinstance(field.kind, list):
        fits = isinstance(value, list) and len(value) == len(field.kind)
        if not fits or not all(_is(item, kind) for item, kind in zip(value, field.kind, strict=True)):
            wanted = ", ".join(kind.__name__ for kind in field.kind)
            raise SchemaError(f"{name} must be [{wanted}]. Received: {value!r}.")
    elif not _is(value, field.kind):
        raise SchemaError(f"{name} must be {_NAMES[field.kind]}. Received: {value!r}.")
    if field.choices and value not in field.choices:
        raise SchemaError(f"{name} must be one of {', '.join(field.choices)}. Received: {value!r}.")
    if field.test is not None and not field.test(value):
        raise SchemaError(f"{name} must be {field.says}. Received: {value!r}.")


_NAMES = {str: "a string", bool: "true or false", int: "an integer", float: "a number", list: "a list", dict: "a table"}


def _is(value: Any, kind: type) -> bool:
    """Exact types: true is no integer, an integer is a number."""
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind
