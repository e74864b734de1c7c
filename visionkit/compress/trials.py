"""Labelled data of a task to try variants of a model on: through the task that users call and its evaluator.

A trial knows how to load a model for its task, what its answers are worth, and where two models differ most. The
evaluators are those of `visionkit eval`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.compress.nouns import NOUNS, Nouns
from visionkit.errors import InputError, ModelError, UsageError
from visionkit.train.class_folders import PARTS, Problem

if TYPE_CHECKING:
    from visionkit.compress.calibration import Calibration
    from visionkit.compress.paired import Outcome
    from visionkit.compress.report_data import Disagreement
    from visionkit.weights import Card

__all__ = ["Clip", "DataChoice", "Frames", "Measured", "Trial", "make_trial", "pick", "telling"]

Image = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]
MEASURED_PARTS = ("test", "val")  # looked for in this order, where none is named
TIMED = 8  # images that the calls which are timed take turns with


@dataclass(frozen=True)
class DataChoice:
    """Where labelled images are, and which of them are measured.

    Args:
        split: a `split.json` that training wrote (classification); `part` of it, or of the data.
        images, layout: of detection data, as `visionkit eval detect` takes them.
        labels: of masks, as `visionkit eval segment` takes them.
        limit: measure every k-th image, this many in all; of sequences the first frames.
    """

    data: Path
    split: Path | None = None
    part: str | None = None
    images: Path | None = None
    layout: str | None = None
    labels: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Measured:
    """What a model answered: what it is worth, and the answers themselves, as the trial that made them knows them."""

    outcome: Outcome
    answers: Any
    problems: Sequence[Problem] = ()


class Clip:
    """The first frames of a source, at most so many, read anew each time; names and images uint8 (H, W, 3) BGR.

    Raises:
        InputError: the source cannot be read.
    """

    def __init__(self, source: str, most: int) -> None:
        self._source, self._most = source, most
        self._count = sum(1 for _ in self)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[str, Image]]:
        from visionkit.io.source import open_source

        with open_source(self._source) as frames:
            for frame in itertools.islice(frames, self._most):
                yield f"{frame.source}#{frame.index}", frame.image


@dataclass(frozen=True)
class Frames:
    """Images uint8 (H, W, 3) BGR without labels, and what each is called.

    Args:
        clip: the frames of a tracker, which are read each time; `xyxy` (4,) is the object in the first.
    """

    images: Sequence[Image] = ()
    names: Sequence[str] = ()
    clip: Clip | None = None
    xyxy: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.images) if self.clip is None else len(self.clip)


class Trial:
    """Labelled data of one task.

    Attributes:
        metric, class_metric: what is measured, in words; `counted`: what a class has a number of.
        nouns: what the numbers are of.
        labels: class names.
        samples: that are measured; `part` says which they are, in words.
        calibration: paths of images that are not measured, or of all where there are no others.
        apart: whether those are others.
    """

    metric: str
    class_metric: str
    counted: str
    nouns: Nouns = NOUNS
    labels: tuple[str, ...]
    samples: Sequence[Any]
    part: str
    calibration: list[Path]
    apart: bool

    def load(self, model: str | Path, threads: int) -> Any:
        """The task of a model file, in LiteRT on so many cores."""
        raise NotImplementedError

    def measure(self, task: Any, progress: Progress | None = None) -> Measured:
        """The task's answers to all samples, and what they are worth."""
        raise NotImplementedError

    def differ(self, before: Measured, after: Measured, most: int) -> list[Disagreement]:
        """Where two models differ most, the worst first."""
        raise NotImplementedError

    def image(self, place: int) -> Image:
        """A sample's image."""
        raise NotImplementedError

    def shown(self, name: str, image: Image, before: Any, after: Any) -> Disagreement | None:
        """Two answers to an image without labels, as a picture; None where they are alike."""
        raise NotImplementedError

    def calls(self, task: Any) -> Callable[[], Any]:
        """A call that answers to the next of some images, to be timed."""
        images = [self.image(place) for place in range(min(TIMED, len(self.samples)))]
        turn = iter(range(1 << 62))
        return lambda: task([images[next(turn) % len(images)]])

    def calibrate(
        self, source: Any, *, count: int = 128, seed: int = 0, trusted: bool = False
    ) -> Callable[[Path], Calibration]:
        """From the float model to the images that ranges are measured on.

        Args:
            source: what the user named, which is read at once; None takes images of the data.
            count, seed, trusted: as `choose_calibration`.

        Raises:
            InputError, UsageError: of `choose_calibration`.
        """
        from visionkit.compress.calibration import choose_calibration

        own = source is None

        @functools.cache
        def choose() -> Calibration:
            return choose_calibration(
                self.calibration if own else source,
                count=count,
                seed=seed,
                reference=None if own else self.calibration,
                trusted=trusted,
            )

        if not own:
            choose()
        return lambda _: choose()

    def frames(
        self, source: str | None, *, count: int = 60, seed: int = 0, xyxy: tuple[float, ...] | None = None
    ) -> Frames:
        """Frames without labels, `count` at most, that differ from each other.

        Args:
            source: of them; none without.
            xyxy: float (4,), of trackers: the object in the first.

        Raises:
            InputError: the source cannot be read.
            UsageError: `option-unfit`, a box for a task that follows nothing.
        """
        from visionkit.compress.calibration import choose_calibration

        if xyxy is not None:
            raise UsageError("option-unfit", "--box is of trackers, which follow what is in it.")
        if source is None:
            return Frames()
        found = choose_calibration(source, count=count, seed=seed)
        return Frames(found.images, found.names)

    def compare(self, first: Any, second: Any, frames: Frames, most: int) -> tuple[float, list[Disagreement]]:
        """How far two tasks agree on frames without labels, and the worst of these."""
        from visionkit.evaluate.agreement import agreement

        found = agreement(first, second, frames.images)
        shown = []
        for row in found.worst(most):
            image = frames.images[row.index]
            shown.append(self.shown(frames.names[row.index], image, first(image), second(image)))
        return found.score, [one for one in shown if one is not None]


MAKERS = {
    "classify": ("trial_classify", "ClassifyTrial"),
    "detect": ("trial_detect", "DetectTrial"),
    "segment": ("trial_segment", "SegmentTrial"),
    "track": ("trial_track", "TrackTrial"),
}
OPTIONS = {"classify": ("split", "part"), "detect": ("part", "images", "layout"), "segment": ("part", "labels")}


def make_trial(card: Card, choice: DataChoice) -> Trial:
    """The trial of a card's task on the user's data.

    Raises:
        ModelError: `model-unfit`; a task that is not measured, a model without labels, or other classes than the data.
        UsageError: `option-unfit`; an option that is of another task's data.
        InputError: the data is none, or the part has no images.
    """
    if card.task not in MAKERS:
        known = ", ".join(MAKERS)
        raise ModelError("model-unfit", f"{card.name} is a model to {card.task}; judged are models to {known}.")
    if card.heads:
        raise ModelError(
            "model-unfit",
            f"{card.name} has several heads ({', '.join(card.heads)}), and class folders tell one class of an image: "
            "neither `eval` nor `quantize` measures it. Compare exported files of it by `visionkit verify --against`.",
        )
    if not card.labels and card.task != "track":
        raise ModelError("model-unfit", f"{card.name} has no labels; judged are models with labels.")
    named = [f.name for f in dataclasses.fields(choice) if f.name not in ("data", "limit") and getattr(choice, f.name)]
    if unfit := [name for name in named if name not in OPTIONS.get(card.task, ())]:
        raise UsageError("option-unfit", _unfit(card, unfit[0]))
    module, name = MAKERS[card.task]
    made: Trial = getattr(importlib.import_module(f"visionkit.compress.{module}"), name)(card, choice)
    return made


def _unfit(card: Card, name: str) -> str:
    others = {"split": "class folders", "images": "boxes", "layout": "boxes", "labels": "masks"}
    what = f"of {others[name]}" if name in others else "of data in parts, which sequences are not"
    return f"--{name} is {what}; {card.name} is a model to {card.task}."


def pick(samples: Sequence[Any], part_of: Callable[[Any], str], choice: DataChoice) -> tuple[list[Any], str, list[Any]]:
    """The samples to measure, what they are in words, and those that training knew."""
    parts = {part: [sample for sample in samples if part_of(sample) == part] for part in PARTS}
    part = choice.part or next((name for name in MEASURED_PARTS if parts[name]), None)
    chosen = list(samples) if part is None else parts[part]
    if not chosen:
        raise InputError("no-images", f"The part {part!r} of {choice.data} holds no labelled image.")
    if choice.limit is not None and choice.limit < len(chosen):
        chosen = [chosen[k * len(chosen) // choice.limit] for k in range(choice.limit)]
    return chosen, "all images" if part is None else f"part {part!r}", [] if part == "train" else parts["train"]


def telling(progress: Progress | None, total: int) -> Callable[[int], None] | None:
    """Progress as evaluators tell it."""
    return None if progress is None else lambda done: progress(done, total)
