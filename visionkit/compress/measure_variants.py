"""What a variant of a model is worth on a user's data and on this machine, in the numbers that the verdict needs."""

from __future__ import annotations

import functools
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.compress.paired import compare_paired
from visionkit.compress.verdict import ClassChange, PartTiming, Timing

if TYPE_CHECKING:
    from visionkit.compress.trials import Measured, Trial
    from visionkit.compress.verdict import Interval
    from visionkit.runtime import Runner

__all__ = ["compare_measured", "thread_counts", "time_calls", "time_models"]

Key = tuple[str, int, str]
WHOLE = "the task"  # among the parts of a network
CALLS, BUDGET_S, ROUNDS = 60, 1.5, 5  # of each model: calls at least, seconds at most, rounds at least


def compare_measured(
    trial: Trial, before: Measured, after: Measured
) -> tuple[Interval, Interval, Interval, tuple[ClassChange, ...]]:
    """The metric before and after, the points lost, and the change of each class."""
    paired = compare_paired(before.outcome, after.outcome)
    changes = tuple(
        ClassChange(name, int(count), first, last, drop)
        for name, count, (first, last, drop) in zip(trial.labels, before.outcome.counts, paired.classes, strict=True)
    )
    return paired.before, paired.after, paired.drop, changes


def thread_counts() -> tuple[int, ...]:
    """1, and as many cores as this process may use."""
    from visionkit.runtime.machine import default_threads

    return tuple(sorted({1, default_threads()}))


def time_models(
    trial: Trial, models: Mapping[str, Path], *, threads: Sequence[int] | None = None, budget_s: float = BUDGET_S
) -> dict[str, tuple[Timing, ...]]:
    """Milliseconds of an image with each model and number of threads; they take turns, so noise meets all alike.

    Args:
        models: files by name.
        budget_s: seconds for each model and number of threads.
    """
    counts = thread_counts() if threads is None else tuple(threads)
    calls: dict[Key, Callable[[], Any]] = {}
    tasks, runners = [], []
    try:
        for name, path in models.items():
            for count in counts:
                task = trial.load(path, count)
                tasks.append(task)
                calls[name, count, WHOLE] = trial.calls(task)
                for part, runner in _networks(path, count).items():
                    runners.append(runner)
                    calls[name, count, part] = functools.partial(runner, **_noise(runner))
        found = time_calls(calls, budget_s=budget_s)
    finally:
        for one in [*tasks, *runners]:
            if hasattr(one, "close"):
                one.close()
    return {name: tuple(_timing(found, name, count) for count in counts) for name in models}


def _timing(found: Mapping[Key, tuple[float, float]], name: str, count: int) -> Timing:
    """Of one model and number of threads."""
    parts = {key[2]: times for key, times in found.items() if key[:2] == (name, count)}
    whole = parts.pop(WHOLE)
    if len(parts) == 1:
        return Timing(count, *whole, *next(iter(parts.values())))
    return Timing(count, *whole, parts=tuple(PartTiming(part, *times) for part, times in parts.items()))


def time_calls(
    calls: Mapping[Any, Callable[[], Any]], *, budget_s: float = BUDGET_S, least: int = CALLS
) -> dict[Any, tuple[float, float]]:
    """Median and 95th percentile in milliseconds of each call, from turns of some 20 ms in an order that changes.

    Args:
        budget_s: seconds for each, where `least` calls have been made.
    """
    from visionkit.runtime.measure import time_block

    times: dict[Any, list[float]] = {key: [] for key in calls}
    order = list(calls)
    shuffle = random.Random(0).shuffle
    started, rounds = time.perf_counter(), 0
    limit = budget_s * len(calls)
    for call in calls.values():
        call()
    while rounds < ROUNDS or time.perf_counter() - started < limit:
        shuffle(order)  # so that nobody always follows the same neighbour
        for key in order:
            times[key] += time_block(_Callable(calls[key]), {})  # type: ignore[arg-type]
        rounds += 1
        if rounds >= ROUNDS and min(map(len, times.values())) >= least:
            break
    return {key: (statistics.median(values), float(np.quantile(values, 0.95))) for key, values in times.items()}


class _Callable:
    """A call in the place of a runner."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call

    def __call__(self, **_: Any) -> Any:
        return self._call()


def _networks(path: Path, threads: int) -> dict[str, Runner]:
    """The networks alone, by the names that the task has for them."""
    from visionkit.tasks.artifact_network import ArtifactNetwork
    from visionkit.weights.artifact import read_artifact

    artifact = read_artifact(path)
    if artifact is None:
        return {}
    network = ArtifactNetwork(artifact)
    return {part: network.compiled(part, runtime="litert", threads=threads) for part in artifact.parts}


def _noise(runner: Runner) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(0)
    return {
        spec.name: rng.normal(0, 1, [size or 1 for size in spec.shape]).astype(spec.dtype)
        for spec in runner.inputs.values()
    }
