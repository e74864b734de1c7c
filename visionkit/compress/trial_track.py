"""Trackers on annotated sequences."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.compress.differences import tracks_apart
from visionkit.compress.nouns import Nouns
from visionkit.compress.paired import STRETCH, TrackOutcome
from visionkit.compress.report_data import Disagreement
from visionkit.compress.trials import TIMED, Clip, DataChoice, Frames, Measured, Progress, Trial
from visionkit.errors import InputError, UsageError
from visionkit.structures import Track
from visionkit.train.class_folders import Problem

if TYPE_CHECKING:
    from visionkit.compress.calibration import Calibration
    from visionkit.evaluate.sequences import Sequence as Annotated
    from visionkit.runtime import Runner
    from visionkit.weights import Card

__all__ = ["TrackTrial", "recorded_calls"]

Image = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float32]
ALIKE = 0.8  # overlap of two boxes from which no picture shows them
LONGER = 5  # times as many frames of a clip are followed as other tasks answer to: they lie beside each other


class TrackTrial(Trial):
    """Annotated sequences, one pass over each, as `visionkit eval track`. What has a score of its own is a sequence."""

    metric, class_metric, counted = "success AUC", "success AUC", "frames"
    nouns = Nouns("sequence", "frame", "sequence", "frame", f" and in them stretches of {STRETCH} frames")

    def __init__(self, card: Card, choice: DataChoice) -> None:
        from visionkit.evaluate.sequences import find_sequences

        self.samples: list[Annotated] = _shortened(find_sequences(choice.data), choice.limit)
        self.labels = tuple(sequence.name for sequence in self.samples)
        self.part = f"{sum(len(sequence.frames) for sequence in self.samples)} frames"
        self.apart = False
        self.calibration = [path for sequence in self.samples for path in sequence.frames]

    def load(self, model: str | Path, threads: int) -> Any:
        """As `Trial`."""
        from visionkit.tasks.load import load_tracker

        return load_tracker(model, runtime="litert", threads=threads)

    def measure(self, task: Any, progress: Progress | None = None) -> Measured:
        """As `Trial`; the answers are boxes float32 (F, 4) of each sequence, None of one that cannot be read."""
        from visionkit.evaluate.track import evaluate_tracker
        from visionkit.evaluate.track_metrics import frame_success

        success: list[npt.NDArray[np.float64]] = []
        answers: list[Boxes | None] = []
        problems: list[Problem] = []
        for number, sequence in enumerate(self.samples, 1):
            try:
                (score,) = evaluate_tracker(lambda: task, [sequence])
            except InputError as error:
                problems.append(Problem(error.slug, sequence.name, f"{sequence.name} is not measured: {error.message}"))
                success.append(np.zeros(0))
                answers.append(None)
            else:
                success.append(frame_success(score.boxes, sequence.truth))
                answers.append(score.boxes)
            if progress:
                progress(number, len(self.samples))
        outcome = TrackOutcome(success)
        if not outcome.images:
            raise InputError("no-sequences", f"None of the {len(self.samples)} sequences can be read.")
        return Measured(outcome, answers, problems)

    def differ(self, before: Measured, after: Measured, most: int) -> list[Disagreement]:
        """As `Trial`; of frames that lie near each other only the worst."""
        found = []
        for place, frame in _worst_frames(before.answers, after.answers, most):
            sequence = self.samples[place]
            truth = sequence.truth[frame]
            boxes = before.answers[place][frame], after.answers[place][frame]
            name = f"{sequence.name}/{sequence.frames[frame].name}"
            known = truth if np.isfinite(truth).all() else None
            told = tuple(_told_overlap(box, known) for box in boxes)
            found.append(tracks_apart(name, _read(sequence.frames[frame]), boxes, (told[0], told[1]), known))
        return found

    def shown(self, name: str, image: Image, before: Track, after: Track) -> Disagreement | None:
        """As `Trial`."""
        told = [f"{one.state}, {one.confidence:.2f}" for one in (before, after)]
        return tracks_apart(name, image, (before.xyxy, after.xyxy), (told[0], told[1]))

    def image(self, place: int) -> Image:
        """As `Trial`, the first frame."""
        return _read(self.samples[place].frames[0])

    def calls(self, task: Any) -> Callable[[], Any]:
        """As `Trial`: the first frames of a sequence, forwards and backwards, so that the object is never far away."""
        sequence = self.samples[0]
        images = [_read(path) for path in sequence.frames[: TIMED + 1]]
        task.init(images[0], sequence.truth[0])
        turn = itertools.cycle([*range(1, len(images)), *range(len(images) - 2, 1, -1)])
        return lambda: task.update(images[next(turn)])

    def calibrate(
        self, source: Any, *, count: int = 128, seed: int = 0, trusted: bool = False
    ) -> Callable[[Path], Calibration]:
        """As `Trial`: what reaches the two networks while the float model follows the objects of sequences.

        Where the user names images without boxes, an object is the middle of one.
        """
        from visionkit.evaluate.sequences import find_sequences

        sequences: Sequence[Annotated] = self.samples
        if source is not None:
            try:
                sequences = find_sequences(Path(source))
            except (InputError, TypeError) as error:
                if isinstance(error, InputError) and error.slug not in ("input-missing", "no-sequences"):
                    raise
                return super().calibrate(source, count=count, seed=seed, trusted=trusted)
        kept: dict[Path, Calibration] = {}

        def record(model: Path) -> Calibration:
            if model not in kept:
                kept[model] = _recorded(self.load(model, 1), sequences, count)
            return kept[model]

        return record

    def frames(
        self, source: str | None, *, count: int = 60, seed: int = 0, xyxy: tuple[float, ...] | None = None
    ) -> Frames:
        """As `Trial`: the first frames of a clip."""
        if source is None:
            if xyxy is not None:
                raise UsageError("option-unfit", "--box is where the object of --unlabelled is: name that, too.")
            return Frames()
        if xyxy is None:
            raise UsageError(
                "no-box", "Trackers are compared on a clip from a box on: give --box X,Y,W,H, the object in its first."
            )
        clip = Clip(source, LONGER * count)
        if len(clip) < 2:
            raise InputError("no-frames", f"{source} has {len(clip)} frame: a tracker needs two at least.")
        return Frames(clip=clip, xyxy=xyxy)

    def compare(self, first: Any, second: Any, frames: Frames, most: int) -> tuple[float, list[Disagreement]]:
        """As `Trial`, by the overlap of the two boxes."""
        from visionkit.evaluate.agreement import agreement_of_tracks

        clip = frames.clip or ()
        noted = [_Noted(one) for one in (first, second)]
        found = agreement_of_tracks(noted[0], noted[1], (image for _, image in clip), frames.xyxy)
        rows = [one.boxes for one in noted]
        wanted = dict.fromkeys(frame for _, frame in _worst_frames(rows[:1], rows[1:], most))
        shown = {
            place: self.shown(name, image, *(one.tracks[place - 1] for one in noted))
            for place, (name, image) in enumerate(clip)
            if place in wanted
        }
        return found.score, [one for place in wanted if (one := shown.get(place)) is not None]


class _Noted:
    """A tracker whose answers are kept."""

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker
        self._first = np.zeros(4, np.float32)
        self.tracks: list[Track] = []

    @property
    def boxes(self) -> Boxes:
        """Of all frames (F, 4), the given one first."""
        return np.stack([self._first, *(track.xyxy for track in self.tracks)])

    def init(self, image: Image, xyxy: npt.ArrayLike) -> None:
        self._first = np.asarray(xyxy, np.float32)
        self._tracker.init(image, xyxy)

    def update(self, image: Image) -> Track:
        self.tracks.append(self._tracker.update(image))
        return self.tracks[-1]


def recorded_calls(
    tracker: Any, sequences: Sequence[Annotated], most: int
) -> dict[str, list[dict[str, npt.NDArray[Any]]]]:
    """What reaches the networks `exemplar` and `search` of a tracker on sequences: at even distances, `most` of each.

    A sequence ends at a frame that cannot be read.
    """
    notes = {name: _Calls(most) for name in ("exemplar", "search")}
    halves = zip(notes.values(), tracker.matcher.runners, strict=True)
    matcher = type(tracker.matcher)(*(note.around(runner) for note, runner in halves))
    follower = type(tracker)(matcher, tracker.options)
    for sequence in sequences:
        with contextlib.suppress(InputError):
            follower.init(_read(sequence.frames[0]), sequence.truth[0])
            for path in sequence.frames[1:]:
                follower.update(_read(path))
    return {name: note.spread() for name, note in notes.items()}


class _Calls:
    """Inputs of a runner at even distances; never more than twice as many as are wanted are held."""

    def __init__(self, most: int) -> None:
        self._most, self._step, self._seen = most, 1, 0
        self._kept: list[dict[str, npt.NDArray[Any]]] = []

    def around(self, runner: Runner) -> Any:
        """The runner, seen through."""
        outer = self

        class Seen:
            def __getattr__(self, name: str) -> Any:
                return getattr(runner, name)

            def __call__(self, **feed: npt.NDArray[Any]) -> Mapping[str, npt.NDArray[Any]]:
                outer.note(feed)
                return runner(**feed)

        return Seen()

    def note(self, feed: Mapping[str, npt.NDArray[Any]]) -> None:
        if self._seen % self._step == 0:
            self._kept.append({name: np.array(array) for name, array in feed.items()})
        self._seen += 1
        if len(self._kept) == 2 * self._most:
            self._kept, self._step = self._kept[::2], self._step * 2

    def spread(self) -> list[dict[str, npt.NDArray[Any]]]:
        count = min(self._most, len(self._kept))
        return [self._kept[k * len(self._kept) // count] for k in range(count)]


def _recorded(tracker: Any, sequences: Sequence[Annotated], most: int) -> Calibration:
    from visionkit.compress.calibration import Calibration

    try:
        feeds = recorded_calls(tracker, sequences, most)
    finally:
        tracker.close()
    names = tuple(sequence.name for sequence in sequences)
    facts = {"source": ", ".join(names), "of": sum(len(sequence.frames) for sequence in sequences)}
    return Calibration(feeds=feeds, names=names, facts=facts)


def _shortened(sequences: Sequence[Annotated], limit: int | None) -> list[Annotated]:
    """Each sequence's first frames, so that there are `limit` in all, but two of each at least."""
    total = sum(len(sequence.frames) for sequence in sequences)
    if limit is None or limit >= total:
        return list(sequences)
    counts = [max(2, len(sequence.frames) * limit // total) for sequence in sequences]
    return [
        dataclasses.replace(one, frames=one.frames[:count], truth=one.truth[:count])
        for one, count in zip(sequences, counts, strict=True)
    ]


def _worst_frames(before: Sequence[Boxes | None], after: Sequence[Boxes | None], most: int) -> list[tuple[int, int]]:
    """Sequence and frame where two tracks overlap least, the worst first, at least a stretch apart."""
    from visionkit.geometry.boxes import iou_aligned

    rows: list[tuple[float, int, int]] = []
    for place, (one, other) in enumerate(zip(before, after, strict=True)):
        if one is not None and other is not None:
            rows += [(float(overlap), place, frame) for frame, overlap in enumerate(iou_aligned(one, other))]
    found: list[tuple[int, int]] = []
    for overlap, place, frame in sorted(rows):
        if len(found) == most or overlap >= ALIKE:
            break
        if all(place != other or abs(frame - at) >= STRETCH for other, at in found):
            found.append((place, frame))
    return found


def _told_overlap(box: Boxes, truth: Boxes | None) -> str:
    from visionkit.geometry.boxes import iou_aligned

    if truth is None:
        return "where nobody knows the truth"
    return f"overlap with the truth {float(iou_aligned(box[None], truth[None])[0]):.0%}"


def _read(path: Path) -> Image:
    from visionkit.io import read_image

    return read_image(path)
