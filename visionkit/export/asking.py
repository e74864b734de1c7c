"""Questions to an artifact, answered by its plain runtime in a process of its own, without VisionKit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.io.text import safe_text

__all__ = ["Question", "ask_alone"]

Array = npt.NDArray[Any]

SCRIPT = Path(__file__).parents[1] / "runtime" / "alone.py"
TIMEOUT_S = 900.0
OURS = ("visionkit", "keras")


@dataclass(frozen=True)
class Question:
    """A call of a signature."""

    signature: str
    inputs: Mapping[str, Array]


def ask_alone(
    artifact: Path, questions: Sequence[Question], kind: str
) -> tuple[list[dict[str, Array]], frozenset[str]]:
    """What the artifact says to each question, by output, and the packages that its process had in memory.

    Args:
        artifact: a file or a folder.
        kind: its format.

    Raises:
        ModelError: `artifact-refused`; its runtime does not run it, dies of it, or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix="visionkit-") as place:
        folder = Path(place)
        calls: list[dict[str, Any]] = []
        feeds: dict[str, Any] = {}
        for number, question in enumerate(questions):
            keys = {key: f"{number}/{key}" for key in question.inputs}
            feeds |= {keys[key]: array for key, array in question.inputs.items()}
            calls.append({"signature": question.signature, "inputs": keys})
        np.savez(folder / "feeds.npz", **feeds)
        request = {
            "format": kind,
            "model": os.fspath(artifact.absolute()),
            "feeds": str(folder / "feeds.npz"),
            "answers": str(folder / "answers.npz"),
            "calls": calls,
        }
        if kind == "keras":  # its layers are ours
            request |= {"modules": ["visionkit.layers"], "path": [entry or str(Path.cwd()) for entry in sys.path]}
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        _run(folder / "request.json")
        with np.load(folder / "answers.npz") as found:
            loaded = frozenset(json.loads(str(found["loaded"])))
            answers: list[dict[str, Array]] = [{} for _ in questions]
            for key in found.files:
                number, _, output = key.partition("/")
                if output:
                    answers[int(number)][output] = found[key]
    if kind != "keras" and (foreign := loaded & set(OURS)):
        raise ModelError("artifact-refused", f"its process was not alone: it imported {', '.join(foreign)}")
    return answers, loaded


def _run(request: Path) -> None:
    # -I: no current folder, no PYTHONPATH, no user packages: nothing but what is installed.
    command = [sys.executable, "-I", str(SCRIPT), str(request)]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError("artifact-refused", f"it gave no answer within {TIMEOUT_S:g} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        reason = safe_text(lines[-1].strip()[:300]) if lines else "it said nothing"
        died = f"killed by signal {-done.returncode}" if done.returncode < 0 else "refused"
        raise ModelError("artifact-refused", f"{died} by its own runtime, alone: {reason}")
