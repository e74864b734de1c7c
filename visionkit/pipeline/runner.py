"""One run from a source to a folder of results, and the same as a generator for Python callers."""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from visionkit import __version__
from visionkit.errors import InputError
from visionkit.pipeline.line import Line
from visionkit.pipeline.manifest import Digest, counts_of, environment, source_fields
from visionkit.pipeline.progress import ProgressBar, expected_frames
from visionkit.pipeline.signals import Interrupts
from visionkit.pipeline.sinks import ImageSink, Sink, VideoSink
from visionkit.pipeline.stage import FunctionStage, Item, Stage, TaskStage

if TYPE_CHECKING:
    from visionkit.io import MediaInfo, ReadReport, RunFolder, Source
    from visionkit.structures import Frame

__all__ = ["Reading", "RunResult", "Writing", "run", "stream"]

EXIT_DAMAGED = 4


@dataclass(frozen=True)
class Reading:
    """How a source is read.

    Args:
        start_s, end_s: the kept range in seconds of the source's own time; None is its start or end.
        stride: every how many frames one is kept.
        backend: `auto`, `opencv` or `pyav`.
        max_pixels: a frame with more is refused before it is decoded.
    """

    start_s: float | None = None
    end_s: float | None = None
    stride: int = 1
    backend: Literal["auto", "opencv", "pyav"] = "auto"
    max_pixels: int = 100_000_000

    def open(self, source: str | os.PathLike[str] | bytes) -> Source:
        """The opened source (`visionkit.io.open_source`)."""
        from visionkit.io import open_source

        return open_source(
            source,
            start_s=self.start_s,
            end_s=self.end_s,
            stride=self.stride,
            backend=self.backend,
            max_pixels=self.max_pixels,
        )


@dataclass(frozen=True)
class Writing:
    """What a run writes, and where.

    Args:
        out: the folder; None takes `runs/<task>/<source>`, `-2`, `-3` … where that exists.
        rows: a binary stream that takes the rows instead of a folder; nothing else is written then.
        overwrite: replace the folder of a finished run, once this one is finished.
        video: draw, and write `annotated.mp4` (for images `annotated/NAME.jpg`).
        codec: as `VideoWriter`.
        formats: of the rows (`visionkit.io.formats`); a folder always has `results.jsonl`, a stream takes one format.
    """

    out: str | os.PathLike[str] | None = None
    rows: BinaryIO | None = None
    overwrite: bool = False
    video: bool = True
    codec: str = "auto"
    formats: tuple[str, ...] = ("jsonl",)


@dataclass(frozen=True)
class RunResult:
    """What came of a run.

    Args:
        status: `complete`; `damaged`: finished, but not every frame of the source has a sound result; `interrupted`.
        exit_code: 0, 4, 130 (SIGINT) or 143 (SIGTERM).
        out: the folder with the results; None where the rows went to a stream.
        counts: frames by what became of them.
        seconds: time inside each stage, and `wall` and `cpu` of the whole.
        warnings: what a user should know, one line each.
        report: what reading found.
    """

    status: Literal["complete", "damaged", "interrupted"]
    exit_code: int
    out: Path | None
    counts: dict[str, int]
    seconds: dict[str, float]
    warnings: list[str]
    report: ReadReport


def run(
    source: str | os.PathLike[str] | bytes,
    stages: Sequence[Stage],
    *,
    task: str = "run",
    reading: Reading | None = None,
    writing: Writing | None = None,
    draw: Callable[[Item], None] | None = None,
    watch: Callable[[Item], bool | None] | None = None,
    sinks: Sequence[Sink] = (),
    command: Sequence[str] | None = None,
    recipe: Mapping[str, Any] | None = None,
    reads: Sequence[str | os.PathLike[str]] = (),
    progress: bool | None = None,
    fail_fast: bool = False,
) -> RunResult:
    """Send every frame of `source` through `stages` and write rows, drawn frames and `run.json`.

    In this order, so that a mistake costs no waiting: the source is opened and its first frame decoded, stages check
    it, the output is locked, the encoder is opened, models are loaded, frames flow. Decoding, each stage, drawing and
    encoding work at the same time. SIGINT or SIGTERM end the reading; what was read is finished and published.

    Args:
        source: a video, an image, a folder or a glob of images.
        stages: in order.
        task: names the default folder.
        reading, writing: options of both ends.
        draw: draws an item's results onto its image in place; None leaves the frames as they
            are (to write rows only, draw nothing).
        watch: sees every finished item in order, in the calling thread; returning False ends the run as Ctrl-C does.
        sinks: write further files beside the rows; left out where the rows go to a stream.
        command: what was typed, for `run.json`.
        recipe: what the stages were made from, for `run.json`.
        reads: files, beside the source, that no output may replace.
        progress: a bar on stderr; None shows it where stderr is a terminal.
        fail_fast: a model's failure on one frame ends the run.

    Raises:
        VisionkitError: the source, the output or the model failed; nothing is left under a final name.
    """
    reading, writing = reading or Reading(), writing or Writing()
    with contextlib.ExitStack() as cleanup:
        opened = cleanup.enter_context(reading.open(source))
        job = _Job(opened, list(stages), reading, writing, cleanup, reads=tuple(reads))
        job.prepare(task, draw, sinks)
        job.flow(watch, ProgressBar(opened.info.name, job.expected(), enabled=progress), fail_fast)
        return job.finish(command, recipe)


def stream(
    source: str | os.PathLike[str] | bytes,
    task: Stage | Sequence[Stage] | Callable[..., Sequence[Any]],
    *,
    reading: Reading | None = None,
) -> Iterator[tuple[Frame, Any]]:
    """Yield (frame, result) for every frame of `source`; decoding and the task run ahead in threads of their own.

    Args:
        source: as in `run`.
        task: a stage, or several, of which the last one's results are yielded; or a callable from a list of images to
            a list of structures.
        reading: range, stride and limits.

    Leaving the loop early ends the threads and closes the source.
    """
    stages = list(task) if isinstance(task, Sequence) else [task if isinstance(task, Stage) else TaskStage(task)]
    with contextlib.ExitStack() as cleanup:
        opened = cleanup.enter_context((reading or Reading()).open(source))
        first, frames = _peeked(opened)
        cleanup.callback(frames.close)
        for stage in stages:
            stage.check(opened.info, first)
        for stage in stages:
            cleanup.callback(stage.close)
            stage.setup(opened.info, first)
        items = iter(Line(frames, stages, fail_fast=True))
        cleanup.callback(items.close)  # type: ignore[attr-defined]
        for item in items:
            yield item.frame, item.results.get(stages[-1].name)


@dataclass
class _Job:
    """The parts of one run, in the order of its methods."""

    source: Source
    stages: list[Stage]
    reading: Reading
    writing: Writing
    cleanup: contextlib.ExitStack
    reads: tuple[str | os.PathLike[str], ...] = ()
    folder: RunFolder | None = None
    tasks: tuple[Stage, ...] = ()
    sinks: tuple[Sink, ...] = ()
    sink: Sink | None = None
    rows: Any = None
    seconds: dict[str, float] = field(default_factory=dict)

    def prepare(self, task: str, draw: Callable[[Item], None] | None, sinks: Sequence[Sink]) -> None:
        """Everything that can be refused before the first frame flows."""
        self.started = datetime.datetime.now(datetime.UTC)
        begin = time.perf_counter()
        self.info: MediaInfo = self.source.info
        self.first, self.frames = _peeked(self.source)
        self.cleanup.callback(self.frames.close)
        for stage in self.stages:
            stage.check(self.info, self.first)
        self._open_outputs(task)
        self.tasks = tuple(self.stages)
        if self.folder is not None:
            self.sinks = tuple(sinks)
            for sink in self.sinks:
                sink.place = self.folder.path
            self.stages += self.sinks
        if draw is not None:
            self.stages.append(FunctionStage("draw", draw))
        if self.sink is not None:
            self.stages.append(self.sink)
        # The encoder first: it may be absent, and a model takes seconds to load.
        for stage in sorted(self.stages, key=lambda stage: stage is not self.sink):
            self.cleanup.callback(stage.close)
            stage.setup(self.info, self.first)
        self.seconds["load"] = time.perf_counter() - begin

    def _open_outputs(self, task: str) -> None:
        from visionkit.io.formats import open_writers, stream_writer
        from visionkit.io.run_folder import RunFolder

        writing = self.writing
        self.digest = Digest(None if writing.rows is not None else self.info.path)
        self.cleanup.callback(self.digest.cancel)
        if writing.rows is not None:
            self.rows = stream_writer(writing.formats, writing.rows)
            return
        inputs = [*self.reads, *([] if self.info.path is None else [self.info.path])]
        self.folder = RunFolder(
            writing.out, task=task, source_name=self.info.name, overwrite=writing.overwrite, inputs=inputs
        )
        self.cleanup.callback(self.folder.discard)
        self.rows = open_writers(writing.formats, self.folder.path, self._class_names)
        self.cleanup.callback(self.rows.abort)
        if writing.video:
            place = self.folder.path
            video = VideoSink(place, codec=writing.codec, end_s=self.reading.end_s)
            self.sink = video if self.info.kind == "video" else ImageSink(place)

    def _class_names(self) -> Sequence[str] | None:
        """Of the classes in the rows, where one list names them all."""
        told = (stage.class_names for stage in self.tasks)
        return next((names for names in told if isinstance(names, Sequence)), None)

    def expected(self) -> int | None:
        """About how many frames will come."""
        kept = self.reading
        return expected_frames(self.info, start_s=kept.start_s, end_s=kept.end_s, stride=kept.stride)

    def flow(self, watch: Callable[[Item], bool | None] | None, bar: ProgressBar, fail_fast: bool) -> None:
        """Let the frames through; rows are written here, in the calling thread."""
        self.line = Line(self.frames, self.stages, fail_fast=fail_fast)
        begin, cpu = time.perf_counter(), time.process_time()
        self.interrupts = self.cleanup.enter_context(Interrupts(self.line.stop))
        with bar:
            for item in self.line:
                self.rows.write(_row(item, self.tasks))
                if watch is not None and watch(item) is False:
                    self.interrupts.press()
                bar.advance()
        self.seconds.update(self.line.seconds)
        self.seconds["flow"] = time.perf_counter() - begin
        self.seconds["cpu"] = time.process_time() - cpu

    def finish(self, command: Sequence[str] | None, recipe: Mapping[str, Any] | None = None) -> RunResult:
        """Complete the outputs, write `run.json`, publish."""
        report, line = self.source.report, self.line
        if line.first_failure is not None and line.failed == self.rows.rows:
            raise line.first_failure
        interrupted = self.interrupts.received is not None and not line.exhausted
        sound = report.complete and not line.failed
        status: Any = "interrupted" if interrupted else "complete" if sound else "damaged"
        code = self.interrupts.exit_code if interrupted else 0 if sound else EXIT_DAMAGED
        begin = time.perf_counter()
        output = None if self.sink is None else self.sink.finish()
        self.files = {sink.name: sink.finish() for sink in self.sinks}
        counts = counts_of(report, rows=self.rows.rows, failed=line.failed)
        self.rows.close()
        self.seconds["finish"] = time.perf_counter() - begin
        self.seconds["wall"] = self.seconds["load"] + self.seconds["flow"] + self.seconds["finish"]
        made_by: dict[str, Any] = {"command": None if command is None else list(command)}
        made_by |= {} if recipe is None else {"recipe": dict(recipe)}
        out = self._publish(status, counts, output, made_by) if self.folder is not None else None
        told = [each for each in (output, *self.files.values()) if each]
        notes = list(dict.fromkeys(note for each in told for note in each.get("notes", ())))
        if not sound:
            failures = [f"{count} frame{'s' * (count != 1)} failed in {name}" for name, count in line.failed_in.items()]
            notes.append(", ".join([report.summary(), *failures]))
        return RunResult(status, code, out, counts, self.seconds, notes, report)

    def _publish(
        self, status: str, counts: dict[str, int], output: dict[str, Any] | None, made_by: Mapping[str, Any]
    ) -> Path:
        from visionkit.io.results import write_json

        report = self.source.report
        models = {stage.name: told for stage in self.stages if (told := stage.describe()) is not None}
        manifest = {
            "status": status,
            "version": __version__,
            **made_by,
            "started": self.started.isoformat(timespec="seconds"),
            "source": source_fields(self.info, report, self.digest.result())
            | {"start_s": self.reading.start_s, "end_s": self.reading.end_s, "vid_stride": self.reading.stride},
            "model": next(iter(models.values()), None),
            **({"models": models} if len(models) > 1 else {}),
            "settings": {stage.name: told for stage in self.stages if (told := stage.settings()) is not None},
            "summary": {stage.name: told for stage in self.stages if (told := stage.summary()) is not None},
            "counts": counts,
            "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
            "events": report.events,
            "annotated": output,
            "files": self.files,
            "environment": environment(),
        }
        folder = self.folder
        if folder is None:
            raise RuntimeError("there is no folder to publish")
        write_json(folder.path("run.json"), manifest)
        return folder.publish(partial=status == "interrupted")


def _row(item: Item, stages: Sequence[Stage]) -> dict[str, Any]:
    """The row of a frame: what each stage found in it, and the files written for it."""
    from visionkit.io.results import frame_row, result_fields

    fields: dict[str, Any] = {}
    for stage in stages:
        if stage.name in item.results:
            fields.update(result_fields(item.results[stage.name], stage.class_names))
    return frame_row(item.frame, fields={**fields, **item.fields}, error=item.error)


def _peeked(source: Source) -> tuple[Frame, Generator[Frame, None, None]]:
    """The first frame, and all frames as a generator whose `close` ends the reading.

    Raises:
        InputError: `no-frames`.
    """
    frames = iter(source)
    first = next(frames, None)
    if first is None:
        info = source.info
        raise InputError("no-frames", f"{info.name}: no frame of it could be decoded in the range that was asked for.")
    return first, _chained(first, frames)


def _chained(first: Frame, frames: Iterator[Frame]) -> Generator[Frame, None, None]:
    try:
        yield first
        yield from frames
    finally:
        close = getattr(frames, "close", None)
        if close is not None:
            close()
