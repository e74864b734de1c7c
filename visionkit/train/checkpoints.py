"""Where a training stands, on disk: it goes on from there as if it had never stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from visionkit.errors import ModelError, UsageError
from visionkit.io import write_json

__all__ = ["FitResult", "resume", "save", "save_whole"]

STATE = "state.json"
KEPT = ("step", "history", "best", "sums")  # of a FitResult


@dataclass
class FitResult:
    """Where a training stands: a row of numbers an epoch, the best of them, and why it ended.

    `ended` is `complete`, `patience`, or `interrupted` (it goes on when called again).
    """

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    sums: dict[str, float] = field(default_factory=lambda: {"loss": 0.0, "right": 0.0, "seconds": 0.0})
    ended: str = ""

    @property
    def seconds(self) -> float:
        """Seconds of training and validation, of all runs together."""
        return float(sum(row["seconds"] for row in self.history)) + self.sums["seconds"]


def save(trainer: keras.Model, state: FitResult, out: Path, told: dict[str, Any]) -> None:
    """Write a checkpoint, then the state that names it, then remove the older ones: at no moment is there none."""
    name = f"step-{state.step:08d}.weights.h5"
    save_whole(trainer, out / name)
    table = {"checkpoint": name, "settings": told, **{key: getattr(state, key) for key in KEPT}}
    write_json(out / STATE, table)
    for old in out.glob("step-*.weights.h5"):
        if old.name != name:
            old.unlink()


def save_whole(model: keras.Model, path: Path) -> None:
    """Write the weights of `model`, wholly or not at all."""
    part = path.with_name(f".next-{path.name}")
    model.save_weights(part)
    part.replace(path)


def resume(trainer: keras.Model, out: Path, told: dict[str, Any]) -> FitResult:
    """The state in `out`, its checkpoint loaded into the trainer; a new one where there is none.

    Raises:
        UsageError: `training-unreadable`; it is not the state of a training. `training-differs`; `told` is not what it
            was begun with.
        ModelError: `model-unfit`; the checkpoint is not of this network.
    """
    table = _read_state(out)
    if table is None:
        return FitResult()
    then = table["settings"]
    now = json.loads(json.dumps(told))
    then.setdefault("average", 0.0)  # trainings of before there was one
    differing = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
    if differing:
        told_apart = ", ".join(f"{key} {_short(then.get(key))} then, {_short(now.get(key))} now" for key in differing)
        raise UsageError(
            "training-differs",
            f"{out} holds a training with other settings: {told_apart}. Give the same ones to go on, or another --out.",
        )
    try:
        trainer.load_weights(out / table["checkpoint"])
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError("model-unfit", f"{out / table['checkpoint']} is no checkpoint of this: {reason}") from error
    return FitResult(**{key: table[key] for key in KEPT})


def _read_state(out: Path) -> dict[str, Any] | None:
    path = out / STATE
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if not {"checkpoint", "settings", *KEPT} <= set(table):
            raise ValueError("keys are missing")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            "training-unreadable", f"{path} is not the state of a training ({error}). Choose another --out."
        ) from error
    return dict(table)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:39] + "…"
