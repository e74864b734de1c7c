"""Frames through stages: the overlapped runner, its sinks, and the manifest of a run."""

from visionkit.pipeline.line import Line
from visionkit.pipeline.runner import Reading, RunResult, Writing, run, stream
from visionkit.pipeline.stage import FunctionStage, Item, Stage, TaskStage
from visionkit.pipeline.threads import network_threads
from visionkit.pipeline.track import Tracker, TrackStage

__all__ = [
    "FunctionStage",
    "Item",
    "Line",
    "Reading",
    "RunResult",
    "Stage",
    "TaskStage",
    "TrackStage",
    "Tracker",
    "Writing",
    "network_threads",
    "run",
    "stream",
]
