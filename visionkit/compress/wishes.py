"""What is asked of a verdict, and what its page tells of how it came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.compress.variants import DEFAULT_KINDS, KINDS, Variant
from visionkit.compress.verdict import Bounds

if TYPE_CHECKING:
    from visionkit.compress.trials import DataChoice, Trial
    from visionkit.train.class_folders import Problem
    from visionkit.weights import Card

__all__ = ["Wishes", "noticed", "settings_of"]


@dataclass(frozen=True)
class Wishes:
    """What is asked for.

    Args:
        kinds: names of `visionkit.compress.variants.KINDS`.
        calibration: what to measure ranges on, as `choose_calibration` takes it; None takes images of the data that
            are not measured, or where there are none, those that are.
        trust_calibration: faults that are found in it do not count.
        samples: how many of them.
        unlabelled: frames on which answers are compared with float's; `frames` of them. `box` float (4,) xyxy is the
            object in the first, for a tracker.
        rescue: keep the worst layers in float until the variant is within bounds.
        ranked: layers to try alone, at most; 0 ranks none.
    """

    kinds: tuple[str, ...] = DEFAULT_KINDS
    bounds: Bounds = field(default_factory=Bounds)
    calibration: Any = None
    trust_calibration: bool = False
    samples: int = 128
    unlabelled: str | None = None
    frames: int = 60
    box: tuple[float, float, float, float] | None = None
    rescue: bool = False
    ranked: int = 24
    seed: int = 0


def noticed(wishes: Wishes, trial: Trial, variants: Sequence[Variant], problems: Sequence[Problem]) -> list[str]:
    """What the reader should know of the data and of the calibration."""
    told = [problem.reason for problem in problems]
    if wishes.calibration is None and not trial.apart and any(KINDS[k].calibrated for k in wishes.kinds):
        what = f"{trial.nouns.units} that are judged on"
        told.append(f"ranges were measured on the very {what}; --calibration names others")
    if trial.nouns.unit != trial.nouns.shot and len(trial.samples) == 1:
        told.append(f"one {trial.nouns.unit} tells nothing of others: the interval is of its {trial.nouns.counted}s")
    if any(variant.faults for variant in variants):
        told.append("--trust-calibration uses a calibration in spite of the faults that were found in it")
    return told


def settings_of(card: Card, wishes: Wishes, trial: Trial, choice: DataChoice) -> dict[str, object]:
    """Name and value of what was chosen, and of the machine."""
    from visionkit.runtime.machine import fingerprint, versions

    source = _named(wishes.calibration) or (
        "images of the data that were not measured"
        if trial.apart
        else f"the measured {trial.nouns.units}, for want of others"
    )
    facts: dict[str, object] = {
        "model": card.name,
        "data": str(choice.data),
        "measured on": f"{trial.part}, {len(trial.samples)} {trial.nouns.units}",
        "calibrated on": f"{wishes.samples} at most of: {source}",
        "frames without labels": wishes.unlabelled or "none",
        "bounds": ", ".join(_bounds(wishes.bounds)),
        "processor": fingerprint()["processor"],
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items() if version),
    }
    return facts


def _named(calibration: Any) -> str | None:
    if calibration is None:
        return None
    return str(calibration) if isinstance(calibration, str | Path) else f"{len(calibration)} given"


def _bounds(bounds: Bounds) -> list[str]:
    told = [f"{bounds.max_drop:g} points lost", f"{bounds.max_class_drop:g} points of a class"]
    told += [] if bounds.latency_ms is None else [f"{bounds.latency_ms:g} ms an image"]
    return [*told, f"agreement of {bounds.min_agreement:.0%}"]
