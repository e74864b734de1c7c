"""Frames through stages: the overlapped runner, its sinks, and the manifest of a run."""

from visionkit.pipeline.classify import ClassifyStage
from visionkit.pipeline.classify_crops import ClassifyCropsStage
from visionkit.pipeline.detect import COUNTS, DetectStage
from visionkit.pipeline.heatmaps import DenseStage, HeatClass, Heatmap, HeatmapSink
from visionkit.pipeline.line import Line
from visionkit.pipeline.masks import MaskSink, UncertainSink
from visionkit.pipeline.rectify import BoxCropsSink, RectifiedSink, RectifyStage
from visionkit.pipeline.regions import RegionsStage
from visionkit.pipeline.runner import Reading, RunResult, Writing, run, stream
from visionkit.pipeline.segment import SegmentStage
from visionkit.pipeline.sinks import Sink
from visionkit.pipeline.smooth import SMOOTH_S, Smoother
from visionkit.pipeline.stage import FunctionStage, Item, Stage, TaskStage
from visionkit.pipeline.threads import network_threads
from visionkit.pipeline.track import Tracker, TrackStage

__all__ = [
    "COUNTS",
    "SMOOTH_S",
    "BoxCropsSink",
    "ClassifyCropsStage",
    "ClassifyStage",
    "DenseStage",
    "DetectStage",
    "FunctionStage",
    "HeatClass",
    "Heatmap",
    "HeatmapSink",
    "Item",
    "Line",
    "MaskSink",
    "Reading",
    "RectifiedSink",
    "RectifyStage",
    "RegionsStage",
    "RunResult",
    "SegmentStage",
    "Sink",
    "Smoother",
    "Stage",
    "TaskStage",
    "TrackStage",
    "Tracker",
    "UncertainSink",
    "Writing",
    "network_threads",
    "run",
    "stream",
]
