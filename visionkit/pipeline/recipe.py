"""A recipe as a value: the stages between a source and what is written, and the steps they become."""

from __future__ import annotations

import dataclasses
import difflib
import os
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.errors import RecipeError, UsageError
from visionkit.io.text import safe_text
from visionkit.pipeline.recipe_stages import SAME_WORD, STAGES, Building, Kind, in_keys
from visionkit.pipeline.recipe_values import Option
from visionkit.resources import models_dir

if TYPE_CHECKING:
    from visionkit.pipeline.steps import Step

__all__ = ["NEVER", "Recipe", "RecipeStage", "near", "short"]

NEVER = {  # keys that a recipe may not have, and where they are said
    "trust_model": "A recipe cannot vouch for a model file: give --trust-model on the command line",
    "overwrite": "A recipe cannot replace results: give --overwrite on the command line",
}


@dataclass(frozen=True)
class RecipeStage:
    """One stage of a recipe.

    Args:
        use: its kind.
        given: the options that were said, as the stage takes them.
    """

    use: str
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """Its row in the table of stages."""
        return STAGES[self.use]

    @property
    def options(self) -> dict[str, Any]:
        """All its options, those not said with their usual value."""
        return {key: self.given.get(key, option.usual) for key, option in self.kind.options.items()}


@dataclass(frozen=True)
class Recipe:
    """What is done to every frame of a source: make one with `load_recipe`.

    Args:
        name: the file's without its suffix; names the folder of results.
        stages: in order.
        summary: what it does, in a line.
        source: how a source is read, by the keys of `[source]`.
        output: what is written, by the keys of `[output]`.
        path: of the file; None for one that was not read from a file.
        sha256: of its bytes.
    """

    name: str
    stages: tuple[RecipeStage, ...]
    summary: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)
    output: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    sha256: str = ""

    def check(self) -> None:
        """Refuse stages that do not follow each other, and options that do not go together.

        Raises:
            RecipeError: `recipe-invalid`, or the slug of what is wrong with the options.
        """
        seen: list[str] = []
        for number, stage in enumerate(self.stages, 1):
            where = self._where(number)
            options = stage.options
            if stage.use in seen:
                raise RecipeError(
                    "recipe-invalid", f"{where}: there is one before it, and a row holds what one of each kind found."
                )
            word = None if options.get("of") == "crops" else SAME_WORD.get(stage.use)
            if other := [use for use in seen if word is not None and SAME_WORD.get(use) == word]:
                raise RecipeError(
                    "recipe-invalid", f"{where}: stage `{other[0]}` before it writes `{word}` into the rows as well."
                )
            needs = stage.kind.needs(options)
            if needs and not set(needs) & set(seen):
                raise RecipeError("recipe-invalid", f"{where}: it needs a stage `{'` or `'.join(needs)}` before it.")
            try:
                stage.kind.check(options)
            except UsageError as error:
                raise RecipeError(error.slug, f"{where}: {in_keys(error.message)}") from error
            seen.append(stage.use)

    def steps(self, building: Building | None = None) -> list[Step]:
        """The steps of one run, new for each."""
        self.check()
        building = dataclasses.replace(building or Building(), before={})
        for number, stage in enumerate(self.stages, 1):
            building.where = self._where(number)
            building.before[stage.use] = stage.kind.build(stage.options, building)
        return list(building.before.values())

    def changed(self, settings: Mapping[str, Any]) -> Recipe:
        """The same with other options: `{"detect.conf": 0.4}`, or `{"2.conf": 0.4}` of the second stage.

        Values are as TOML has them, or text as `--set` has it. Paths are the caller's own and go anywhere.

        Raises:
            UsageError: `setting-unknown`, `setting-invalid`.
        """
        stages = list(self.stages)
        for name, value in settings.items():
            place, key = self._place(name)
            option = stages[place].kind.options[key]
            stages[place] = dataclasses.replace(
                stages[place], given={**stages[place].given, key: _read_setting(option, name, value)}
            )
        return dataclasses.replace(self, stages=tuple(stages))

    def facts(self) -> dict[str, Any]:
        """Name, sha256 and stages with what was said, for a run's manifest."""
        stages = [{"use": stage.use, **stage.given} for stage in self.stages]
        return {"name": self.name, "sha256": self.sha256, "stages": stages}

    def reads(self) -> list[Path]:
        """Files and folders that no output may replace: the recipe, its models, weights and labels."""
        found = [] if self.path is None else [self.path]
        for stage in self.stages:
            for key, option in stage.kind.options.items():
                value = stage.given.get(key)
                if not option.place or not isinstance(value, str):
                    continue
                card = models_dir() / value
                path = card if option.place == "model" and (card / "card.toml").is_file() else Path(value)
                if os.path.lexists(path):
                    found += [path, *(sorted(path.iterdir()) if path.is_dir() else ())]
        return found

    def _where(self, number: int) -> str:
        name = self.name if self.path is None else safe_text(self.path.name)
        return f"{name}: stage {number} ({self.stages[number - 1].use})"

    def _place(self, name: str) -> tuple[int, str]:
        """Stage and key that a setting names."""
        use, dot, key = name.partition(".")
        known = {stage.use: place for place, stage in enumerate(self.stages)}
        known |= {str(place + 1): place for place in known.values()}
        if not dot or use not in known:
            hint = near(use, list(known)) or f" Stages: {', '.join(stage.use for stage in self.stages)}."
            raise UsageError("setting-unknown", f"--set expected STAGE.KEY=VALUE. Received: {name!r}.{hint}")
        options = self.stages[known[use]].kind.options
        if key not in options:
            hint = f" {NEVER[key]}." if key in NEVER else near(key, list(options)) or f" Known: {', '.join(options)}."
            raise UsageError("setting-unknown", f"--set {name}: `{self.stages[known[use]].use}` has no {key!r}.{hint}")
        return known[use], key


def _read_setting(option: Option, name: str, value: Any) -> Any:
    """A value of `changed`; text is read as TOML, as words with commas between them, or as it stands."""
    tries = [value]
    if isinstance(value, str):
        tries = []
        for told in (value, f"[{value}]"):
            try:
                tries.append(tomllib.loads(f"x = {told}")["x"])
            except (tomllib.TOMLDecodeError, RecursionError, ValueError, KeyError):
                continue
        words = [part.strip() for part in value.split(",") if part.strip()]
        tries += [words, value] if len(words) > 1 else [value]
    why = ""
    for one in tries:
        try:
            return option.read(one)
        except ValueError as error:
            why = str(error)
    raise UsageError("setting-invalid", f"--set {name}: it must be {why}. Received: {short(value)}.")


def near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word[:100], known, n=1)
    return f" Did you mean `{near[0]}`?" if near else ""


def short(value: Any) -> str:
    """A value as it can be told: not too long, not too deep."""
    teller = reprlib.Repr()
    teller.maxstring = teller.maxother = 80
    return teller.repr(value)
