"""An artifact that was just written, run by its plain runtime in a process of its own, against what Keras says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.export.plan import ExportPlan
from visionkit.export.probes import Trial
from visionkit.io.text import safe_text
from visionkit.runtime.convert import DEFAULT

__all__ = ["Agreement", "check_artifact", "difference"]

Array = npt.NDArray[Any]

SCRIPT = Path(__file__).parents[1] / "runtime" / "alone.py"
TIMEOUT_S = 900.0
OURS = ("visionkit", "keras")


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
    select_tf_ops: bool = False,
) -> Agreement:
    """How far the artifact's answers are from what is expected, at most.

    Args:
        artifact: as written, under whatever name.
        plan: judges the task's results.
        trials: what it is asked, and what it is to say.
        kind: its format.
        raw_tolerance: of the networks' own outputs, in the share of the largest value, or absolute below 1.
        name: what it is going to be called, for the error.
        select_tf_ops: a `.tflite` needs TensorFlow's interpreter.

    Raises:
        ModelError: `export-differs`.
    """
    answers, loaded = _answers(artifact, trials, kind, name, select_tf_ops)
    agreement = Agreement(loaded=loaded)
    for trial, served in zip(trials, answers, strict=True):
        for output in trial.expected:
            if trial.task:
                limit = plan.tolerances.get(output, 0.0)
                found = _judged(plan, served, trial.expected, output, limit)
            else:
                limit = raw_tolerance
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
    artifact: Path, trials: Sequence[Trial], kind: str, name: str | os.PathLike[str], select_tf_ops: bool
) -> tuple[list[dict[str, Array]], frozenset[str]]:
    """What the artifact says to each trial, by output."""
    with tempfile.TemporaryDirectory(prefix="visionkit-") as place:
        folder = Path(place)
        calls: list[dict[str, Any]] = []
        feeds: dict[str, Any] = {}
        for number, trial in enumerate(trials):
            keys = {key: f"{number}/{key}" for key in trial.inputs}
            feeds |= {keys[key]: array for key, array in trial.inputs.items()}
            calls.append({"signature": trial.signature or DEFAULT, "inputs": keys})
        np.savez(folder / "feeds.npz", **feeds)
        request = {
            "format": kind,
            "model": os.fspath(artifact.absolute()),
            "feeds": str(folder / "feeds.npz"),
            "answers": str(folder / "answers.npz"),
            "calls": calls,
            "select_tf_ops": select_tf_ops,
        }
        if kind == "keras":  # its layers are ours
            request |= {"modules": ["visionkit.layers"], "path": [entry or str(Path.cwd()) for entry in sys.path]}
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        _run(folder / "request.json", name)
        with np.load(folder / "answers.npz") as found:
            loaded = frozenset(json.loads(str(found["loaded"])))
            by_trial: list[dict[str, Array]] = [{} for _ in trials]
            for key in found.files:
                number, _, output = key.partition("/")
                if output:
                    by_trial[int(number)][output] = found[key]
    if kind != "keras" and (foreign := loaded & set(OURS) - ({"keras"} if "tensorflow" in loaded else set())):
        raise ModelError("export-differs", f"the check of '{safe_text(name)}' was not alone: it imported {foreign}")
    return by_trial, loaded


def _run(request: Path, name: str | os.PathLike[str]) -> None:
    # -I: no current folder, no PYTHONPATH, no user packages: nothing but what is installed.
    command = [sys.executable, "-I", str(SCRIPT), str(request)]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            "export-differs", f"'{safe_text(name)}' was not written: it gave no answer within {TIMEOUT_S:g} s"
        ) from error
    if done.returncode:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        reason = safe_text(lines[-1].strip()[:300]) if lines else "it said nothing"
        died = f"killed by signal {-done.returncode}" if done.returncode < 0 else "refused"
        raise ModelError(
            "export-differs", f"'{safe_text(name)}' was not written: {died} by its own runtime, alone: {reason}"
        )
