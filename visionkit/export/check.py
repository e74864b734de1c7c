"""An artifact that was just written, run by its plain runtime in a process of its own, against what Keras says."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.export.asking import Question, ask_alone
from visionkit.export.plan import ExportPlan
from visionkit.export.probes import Trial
from visionkit.export.signatures import EMBED
from visionkit.io.text import safe_text
from visionkit.runtime.convert import DEFAULT

__all__ = ["Agreement", "check_artifact", "difference"]

Array = npt.NDArray[Any]

EMBED_TOLERANCE = 1e-2  # a resized pixel may be a level off, where its value lies between two


@dataclass
class Agreement:
    """The largest differences found, by signature and output, and the runtime's packages in memory."""

    worst: dict[str, dict[str, float]] = field(default_factory=dict)
    loaded: frozenset[str] = frozenset()

    def note(self, trial: Trial, output: str, found: float) -> None:
        outputs = self.worst.setdefault(trial.signature, {})
        outputs[output] = max(outputs.get(output, 0.0), found)


def check_artifact(
    artifact: Path,
    plan: ExportPlan,
    trials: Sequence[Trial],
    *,
    kind: str,
    raw_tolerance: float,
    name: str | os.PathLike[str],
) -> Agreement:
    """How far the artifact's answers are from what is expected, at most.

    Args:
        artifact: as written, under whatever name.
        plan: judges the task's results.
        trials: what it is asked, and what it is to say.
        kind: its format.
        raw_tolerance: of the networks' own outputs, in the share of the largest value, or absolute below 1.
        name: what it is going to be called, for the error.

    Raises:
        ModelError: `export-differs`.
    """
    answers, loaded = _answers(artifact, trials, kind, name)
    agreement = Agreement(loaded=loaded)
    for trial, served in zip(trials, answers, strict=True):
        for output in trial.expected:
            if trial.task:
                limit = plan.tolerances.get(output, 0.0)
                found = _judged(plan, served, trial.expected, output, limit)
            else:
                limit = EMBED_TOLERANCE if trial.signature == EMBED else raw_tolerance
                found = difference(served.get(output), trial.expected[output], relative=True)
            agreement.note(trial, output, found)
            if not found <= limit:
                raise ModelError(
                    "export-differs",
                    f"'{safe_text(name)}' was not written: run without VisionKit on probe {trial.probe}, the output "
                    f"{output!r} of its signature {trial.signature or 'of the network'!r} differs from Keras by "
                    f"{found:.3g}; at most {limit:.3g} was expected",
                )
    return agreement


def difference(served: Array | None, expected: Array, *, relative: bool = False) -> float:
    """The largest absolute difference, infinite where shapes or kinds differ; 0 where both are not finite alike.

    Args:
        served: None is infinitely far away.
        expected: of the same shape.
        relative: in the share of the largest expected value, where that is above 1.
    """
    if served is None or served.shape != expected.shape or (served.dtype.kind == "f") != (expected.dtype.kind == "f"):
        return float("inf")
    if not expected.size:
        return 0.0
    first, second = served.astype(np.float64), expected.astype(np.float64)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(first - second))
    scale = max(1.0, float(np.abs(second[np.isfinite(second)]).max(initial=0.0))) if relative else 1.0
    return float(np.nan_to_num(apart, nan=np.inf).max()) / scale


def _judged(
    plan: ExportPlan, served: Mapping[str, Array], expected: Mapping[str, Array], output: str, limit: float
) -> float:
    if output in served and plan.compare is not None:
        found = plan.compare(served, expected, output, limit)
        if found is not None:
            return found
    return difference(served.get(output), expected[output])


def _answers(
    artifact: Path, trials: Sequence[Trial], kind: str, name: str | os.PathLike[str]
) -> tuple[list[dict[str, Array]], frozenset[str]]:
    """What the artifact says to each trial, by output."""
    asked = [Question(trial.signature or DEFAULT, trial.inputs) for trial in trials]
    try:
        return ask_alone(artifact, asked, kind)
    except ModelError as error:
        raise ModelError("export-differs", f"'{safe_text(name)}' was not written: {error.message}") from error
