"""Recipes as files: TOML, read with limits and checked against the table of stages."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from visionkit.errors import RecipeError
from visionkit.io.text import safe_text
from visionkit.pipeline.recipe import NEVER, Recipe, RecipeStage, near, short
from visionkit.pipeline.recipe_stages import OUTPUT, SOURCE, STAGES
from visionkit.pipeline.recipe_values import Option
from visionkit.resources import pipelines_dir

__all__ = ["STDIN", "list_recipes", "load_recipe", "recipe_names"]

STDIN = "-"
MAX_BYTES = 16_000  # tomllib's time grows with the square of a key's dots: 0.2 s for so many bytes of them
TOP = ("summary", "source", "stage", "output")


def recipe_names() -> list[str]:
    """Names of the recipes that came with VisionKit, in alphabetical order."""
    return sorted(path.stem for path in pipelines_dir().glob("*.toml"))


def list_recipes() -> list[Recipe]:
    """The recipes that came with VisionKit, in alphabetical order."""
    return [load_recipe(name) for name in recipe_names()]


def load_recipe(name: str | os.PathLike[str], *, allow_outside: bool = False) -> Recipe:
    """The recipe in a file, the one that came with VisionKit under this name, or with `-` the one on stdin.

    Paths in it are relative to its folder (on stdin to the working one) and must lie inside of it.

    Args:
        name: path, name, or `-`.
        allow_outside: let paths lie anywhere.

    Raises:
        RecipeError: `unknown-recipe`, `recipe-unreadable`, `recipe-invalid`, `path-outside`, or what is wrong with the
            options of a stage.
    """
    text = os.fspath(name)
    if text == STDIN:
        return _parsed(_from_stdin(), "recipe", Path.cwd(), None, allow_outside)
    path, known = Path(text), recipe_names()
    if text in known and not path.is_file():
        path = pipelines_dir() / f"{text}.toml"
    elif os.sep not in text and path.suffix != ".toml" and not os.path.lexists(path):
        hint = near(text, known) or f" There are: {', '.join(known) or 'none'}."
        raise RecipeError("unknown-recipe", f"There is no file and no recipe {safe_text(text)!r}.{hint}")
    return _parsed(_from_file(path), path.stem, path.resolve().parent, path, allow_outside)


def _from_file(path: Path) -> bytes:
    shown = safe_text(path)
    try:
        if not path.is_file():
            kind = "is no file" if path.exists() else "is not there"
            raise RecipeError("recipe-unreadable", f"The recipe {shown} {kind}.")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise RecipeError("recipe-unreadable", f"The recipe {shown} cannot be read: {why}.") from error
    return data


def _from_stdin() -> bytes:
    if sys.stdin is None:
        raise RecipeError("recipe-unreadable", "The recipe is to come from stdin, and stdin is closed.")
    return sys.stdin.buffer.read(MAX_BYTES + 1)


def _parsed(data: bytes, name: str, folder: Path, path: Path | None, allow_outside: bool) -> Recipe:
    shown = safe_text(name if path is None else path.name)
    if len(data) > MAX_BYTES:
        raise RecipeError("recipe-invalid", f"{shown} has more than {MAX_BYTES} bytes, which no recipe needs.")
    try:
        told = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeError("recipe-invalid", f"{shown}, line {line}: not UTF-8, the encoding of TOML.") from error
    try:
        table = tomllib.loads(told)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else safe_text(error)
        raise RecipeError("recipe-invalid", f"{shown} is not TOML: {why}.") from error
    reader = _Reader(shown, told, folder, allow_outside)
    found = reader.recipe(table)
    recipe = Recipe(safe_text(name), path=path, sha256=hashlib.sha256(data).hexdigest(), **found)
    recipe.check()
    return recipe


@dataclass(frozen=True)
class _Reader:
    """Checks the tables of one recipe, and tells file, stage, key and line of what does not fit."""

    shown: str
    told: str
    folder: Path
    allow_outside: bool

    def recipe(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of `Recipe`."""
        for key in table:
            if key not in TOP:
                self._unknown("the recipe", key, TOP, 0)
        stages = table.get("stage")
        if not isinstance(stages, list) or not stages:
            got = "" if stages is None else f" Received: {short(stages)}."
            self._fail("the recipe", "it must have stages, each headed [[stage]]." + got)
        summary = table.get("summary", "")
        if not isinstance(summary, str):
            self._fail("the recipe", f"`summary` must be a string. Received: {short(summary)}.", "summary")
        return {
            "summary": summary,
            "source": self._section(table, "source", SOURCE),
            "output": self._section(table, "output", OUTPUT),
            "stages": tuple(self._stage(number, stage) for number, stage in enumerate(stages, 1)),
        }

    def _section(self, table: Mapping[str, Any], name: str, options: Mapping[str, Option]) -> dict[str, Any]:
        found = table.get(name, {})
        if not isinstance(found, dict):
            self._fail(f"[{name}]", f"it must be a table. Received: {short(found)}.")
        return self._values(found, options, f"[{name}]", name)

    def _stage(self, number: int, table: Any) -> RecipeStage:
        where = f"stage {number}"
        if not isinstance(table, dict):
            self._fail(where, f"it must be a table headed [[stage]]. Received: {short(table)}.")
        use = table.get("use")
        if use is None:
            self._fail(where, f"it lacks the key `use`, one of {', '.join(STAGES)}.", "", number)
        if not isinstance(use, str) or use not in STAGES:
            hint = near(use, list(STAGES)) if isinstance(use, str) else ""
            self._fail(where, f"`use` must be one of {', '.join(STAGES)}. Received: {short(use)}.{hint}", "use", number)
        rest = {key: value for key, value in table.items() if key != "use"}
        return RecipeStage(use, self._values(rest, STAGES[use].options, f"{where} ({use})", number))

    def _values(
        self, table: Mapping[str, Any], options: Mapping[str, Option], where: str, section: int | str
    ) -> dict[str, Any]:
        found = {}
        for key, value in table.items():
            option = options.get(key)
            if option is None:
                self._unknown(where, key, list(options), section)
            try:
                found[key] = option.read(value)
            except ValueError as error:
                self._fail(where, f"`{key}` must be {error}. Received: {short(value)}.", key, section)
            if option.place:
                found[key] = self._path(found[key], option.place, where, key, section)
        return found

    def _path(self, value: str, place: str, where: str, key: str, section: int | str) -> str:
        """A path of the recipe as the file system has it; a model's name as it is."""
        from visionkit.weights import card_names

        if place == "model" and value in card_names():
            return value
        folder = self.folder.resolve()
        path = (folder / value).resolve()
        why = None
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", value):
            why = "is an address or a drive; a recipe names files beside it, and fetches nothing"
        elif not self.allow_outside:
            if value.startswith("~") or "$" in value or "%" in value:
                why = "is not expanded: `~`, `$` and `%` have no meaning in a recipe"
            elif Path(value).is_absolute() or not path.is_relative_to(folder):
                why = "leads out of the recipe's folder; --allow-outside allows that"
        if why is not None:
            self._fail(where, f"`{key}` = {value[:200]!r} {why}.", key, section, slug="path-outside")
        if place == "model" and re.fullmatch(r"[\w-]+", value) and not path.exists():
            return value  # a card's name, mistyped: the registry tells the near one
        return str(path)

    def _unknown(self, where: str, key: str, known: Sequence[str], section: int | str) -> NoReturn:
        if key in NEVER:
            self._fail(where, f"`{key}` is no key. {NEVER[key]}.", key, section)
        hint = near(key, known) or f" Known: {', '.join(known)}."
        self._fail(where, f"unknown key `{key[:100]}`.{hint}", key, section)

    def _fail(
        self, where: str, why: str, key: str = "", section: int | str = 0, *, slug: str = "recipe-invalid"
    ) -> NoReturn:
        line = _line_of(self.told, section, key)
        raise RecipeError(slug, f"{self.shown}: {where}{f', line {line}' if line else ''}: {why}")


def _line_of(told: str, section: int | str, key: str) -> int | None:
    """The line where a key of a section stands, of a section alone its head; None where that is not plain to see.

    Args:
        told: the recipe.
        section: number of a `[[stage]]`, name of a table, or 0 for what stands before the first head.
        key: empty for the head.
    """
    if '"""' in told or "'''" in told:
        return None  # strings of several lines may hold what looks like a head
    here: int | str = 0
    stages = 0
    for number, line in enumerate(told.split("\n"), 1):
        if head := re.match(r"\s*(\[\[?)\s*([\w.-]+)\s*\]", line):
            stages += head[2] == "stage"
            here = stages if head[2] == "stage" else head[2]
            if here == section and not key:
                return number
        elif here == section and key and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[=.]""", line):
            return number
        elif not key and section == 0:
            return None
    return None
