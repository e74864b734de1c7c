"""What the commands that train have in common: types of options, lines of progress, problems of the data."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli.text import clean
from visionkit.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from visionkit.train.class_folders import Problem

__all__ = ["ArgumentType", "SizeType", "made_folder", "problem_line", "tell", "tell_problems"]

TOLD = 5  # problems of a kind that are told one by one


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


def tell(line: str) -> None:
    """One line of progress on stderr."""
    click.echo(clean(line), err=True)


def made_folder(out: str) -> Path:
    """The folder of a training, made where it is not there."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError("output-unwritable", f"{folder} cannot be made: {error.strerror}.") from error
    return folder


def tell_problems(problems: Iterable[Problem]) -> None:
    """Warn of what is wrong with the data, the first of each kind by name."""
    kinds: Counter[str] = Counter()
    for problem in problems:
        kinds[problem.kind] += 1
        if kinds[problem.kind] <= TOLD:
            tell(f"visionkit: warning: {problem_line(problem)}")
    for kind, count in kinds.items():
        if count > TOLD:
            tell(f"visionkit: warning: {count - TOLD} more: {kind}; report.html lists them")


def problem_line(problem: Problem) -> str:
    """What is wrong, beginning with the name of the file or folder."""
    told = problem.reason
    return told if told.startswith(problem.name) else f"{problem.name} {told}"
