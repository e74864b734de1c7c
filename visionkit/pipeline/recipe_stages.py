"""The stages that a recipe may name: each a row with its options and how its step is built."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from visionkit.errors import RecipeError, UsageError
from visionkit.pipeline.recipe_values import (
    Option,
    box,
    choice,
    flag,
    formats,
    integer,
    names,
    number,
    numbers,
    points,
    shapes,
    sizes,
    text,
)
from visionkit.pipeline.steps import Silent, Step, Telling

if TYPE_CHECKING:
    from visionkit.pipeline.stage import Stage

__all__ = ["OUTPUT", "SAME_WORD", "SOURCE", "STAGES", "Building", "Kind", "in_keys"]

ANCHORS = choice("corners", "center", "bottom")
PRESET = Option(choice("torch", "tf", "caffe", "unit", "raw"))
CRF_NAMES = ("theta_alpha", "theta_beta", "theta_gamma", "bilateral_weight", "gaussian_weight")


@dataclass
class Building:
    """What a step is built within.

    Args:
        telling: tells of models that are fetched and compiled.
        encoding: whether the run writes a video.
        trust: whether model files may run code; never a recipe's word.
        codec, end_s: of the run, for videos that a step writes.
        before: the steps that stand before, by the name of their kind.
        where: the recipe and the stage that is built, for messages.
    """

    telling: Telling = field(default_factory=Silent)
    encoding: bool = True
    trust: bool = False
    codec: str = "auto"
    end_s: float | None = None
    before: dict[str, Step] = field(default_factory=dict)
    where: str = "the recipe"

    def loader(self, load: Callable[[], Any]) -> Callable[[], Any]:
        """`load`, whose UsageError becomes a RecipeError that names the stage."""
        where = self.where

        def made() -> Any:
            try:
                return load()
            except UsageError as error:
                raise RecipeError(error.slug, f"{where}: {in_keys(error.message)}") from error

        return made

    def find(self, *kinds: str) -> Stage:
        """The stage of the last step before of one of these kinds."""
        found = [step.stage for kind, step in self.before.items() if kind in kinds]
        if not found:
            raise RuntimeError("the recipe was not checked")
        return found[-1]


@dataclass(frozen=True)
class Kind:
    """One kind of stage.

    Args:
        options: by their keys.
        build: makes the step of checked options.
        check: refuses options that do not go together (UsageError).
        needs: from options to kinds of which one must stand before; empty for none.
    """

    options: Mapping[str, Option]
    build: Callable[[Mapping[str, Any], Building], Step]
    check: Callable[[Mapping[str, Any]], None] = lambda options: None
    needs: Callable[[Mapping[str, Any]], tuple[str, ...]] = lambda options: ()


MODEL = {
    "model": Option(text, place="model"),
    "runtime": Option(choice("auto", "keras", "tensorflow", "litert", "onnxruntime", "openvino"), "auto"),
    "precision": Option(choice("float32", "bfloat16", "float16", "int8"), "float32"),
    "threads": Option(integer(1, 1024)),
}
LABELS = {"labels": Option(text, place="file"), "preset": PRESET}


def in_keys(message: str) -> str:
    """A message about options of the command line, told of a recipe's keys."""
    return re.sub(r"--([a-z][a-z-]*)", lambda found: f"`{found[1].replace('-', '_')}`", message)


def _detect_check(options: Mapping[str, Any]) -> None:
    from visionkit.pipeline.step_detect import check_detect

    check_detect(options)


def _detect(options: Mapping[str, Any], building: Building) -> Step:
    from visionkit.pipeline.step_detect import DetectStep, detector_of

    told = {**options, "trust_model": building.trust}
    return DetectStep(building.loader(lambda: detector_of(told, building.telling)), options)


def _segment_check(options: Mapping[str, Any]) -> None:
    from visionkit.pipeline.step_segment import check_segment

    check_segment(options)


def _segment(options: Mapping[str, Any], building: Building) -> Step:
    from visionkit.pipeline.step_segment import SegmentStep, segmenter_of

    told = {**options, "trust_model": building.trust}
    return SegmentStep(building.loader(lambda: segmenter_of(told, building.telling)), options)


def _classify(options: Mapping[str, Any], building: Building) -> Step:
    from visionkit.pipeline.step_classify import ClassifyStep, classifier_of

    told = {**options, "trust_model": building.trust}
    crops: Any = building.find("rectify") if options["of"] == "crops" else None
    return ClassifyStep(building.loader(lambda: classifier_of(told, building.telling)), options, crops=crops)


def _classify_check(options: Mapping[str, Any]) -> None:
    if options["of"] == "crops" and options["show_transform"]:
        raise UsageError("option-unfit", "--show-transform is about whole frames, and --of says crops.")


def _dense(options: Mapping[str, Any], building: Building) -> Step:
    from visionkit.pipeline.step_dense import DenseStep, dense_classifier_of

    def load() -> Any:
        return dense_classifier_of(options, building.telling, encoding=building.encoding)

    return DenseStep(building.loader(load), options, building.telling)


def _dense_check(options: Mapping[str, Any]) -> None:
    if options["imgsz"] is not None and len(options["imgsz"]) > 1:
        raise UsageError("option-unfit", "frames keep their aspect: --imgsz is one number, their shorter side.")


def _track(options: Mapping[str, Any], building: Building) -> Step:
    from visionkit.pipeline.step_track import TrackStep, tracker_of

    def load() -> Any:
        return tracker_of(options, building.telling, encoding=building.encoding)

    return TrackStep(building.loader(load), options["box"])


def _track_check(options: Mapping[str, Any]) -> None:
    if options["box"] is None:
        raise UsageError("no-box", "it needs the object in the first frame: --box, left, top, width and height.")


def _rectify(options: Mapping[str, Any], building: Building) -> Step:
    from visionkit.pipeline.step_rectify import RectifyStep, rectifier_of

    boxes = building.find("detect", "regions").name if options["boxes"] else None
    fixed = options["model"] is None
    told = {**options, "codec": building.codec, "end_s": building.end_s}
    load: Any = rectifier_of(told) if fixed else building.loader(lambda: rectifier_of(told, building.telling))
    return RectifyStep(load, told, boxes=boxes)


def _rectify_check(options: Mapping[str, Any]) -> None:
    from visionkit.pipeline.step_rectify import check_rectify, rectifier_of

    if not options["boxes"]:
        if given := [name for name in ("margin", "square", "save_crops") if options[name]]:
            word = given[0].replace("_", "-")
            raise UsageError("option-unfit", f"--{word} is about boxes: give --boxes with it.")
        check_rectify(options)
    elif options["corners"] is not None:
        raise UsageError("option-unfit", "--corners and --boxes both say the region. Leave one out.")
    elif options["model"] is None:
        if options["size"] is None:
            raise UsageError("no-size", "upright boxes need the --size of their crops, such as the classifier's input.")
        rectifier_of(options)


def _regions(options: Mapping[str, Any], building: Building) -> Step:
    from visionkit.pipeline.step_regions import RegionsStep

    return RegionsStep(building.find("segment"), options)


STAGES: dict[str, Kind] = {
    "detect": Kind(
        {
            **MODEL,
            **LABELS,
            "weights": Option(text, place="file"),
            "imgsz": Option(sizes),
            "batch": Option(integer(1, 1024), 1),
            "conf": Option(number(0, 1)),
            "iou": Option(number(0, 1)),
            "classes": Option(names()),
            "max_det": Option(integer(1)),
            "track": Option(flag, False),
            "tracker": Option(choice("auto", "own", "bytetrack", "sort", "ocsort")),
            "lines": Option(shapes(2, 2), ()),
            "zones": Option(shapes(3), ()),
            "line_anchor": Option(ANCHORS, "corners"),
            "zone_anchor": Option(ANCHORS, "bottom"),
        },
        _detect,
        _detect_check,
    ),
    "segment": Kind(
        {
            **MODEL,
            **LABELS,
            "resize": Option(choice("stretch", "letterbox")),
            "imgsz": Option(sizes),
            "native": Option(flag, False),
            "tile": Option(integer(32, 32_766)),
            "overlap": Option(integer(0, 32_766)),
            "tta": Option(flag, False),
            "scales": Option(numbers(0.1, 8)),
            "crf": Option(flag),
            "crf_iterations": Option(integer(0, 1000)),
            "crf_video": Option(flag),
            **{name: Option(number(0, above="theta" in name)) for name in CRF_NAMES},
            "uncertainty": Option(flag, False),
            "save_uncertain": Option(integer(1, 100_000)),
        },
        _segment,
        _segment_check,
    ),
    "regions": Kind(
        {
            "classes": Option(names()),
            "min_area": Option(number(0, 1), 0.005),
            "max_regions": Option(integer(1, 10_000), 100),
        },
        _regions,
        needs=lambda options: ("segment",),
    ),
    "rectify": Kind(
        {
            **MODEL,
            "boxes": Option(flag, False),
            "corners": Option(points(4, 4)),
            "size": Option(sizes),
            "margin": Option(number(0, 10), 0.0),
            "square": Option(flag, False),
            "save_crops": Option(flag, False),
            "antialias": Option(flag, False),
            "border": Option(choice("zero", "clamp"), "zero"),
        },
        _rectify,
        _rectify_check,
        lambda options: ("detect", "regions") if options["boxes"] else (),
    ),
    "classify": Kind(
        {
            **MODEL,
            **LABELS,
            "of": Option(choice("frames", "crops"), "frames"),
            "resize": Option(choice("stretch", "letterbox", "shortest_side")),
            "imgsz": Option(sizes),
            "topk": Option(integer(1), 5),
            "conf": Option(number(0, 1), 0.0),
            "classes": Option(names(ids=True)),
            "batch": Option(integer(1, 1024), 1),
            "smooth_s": Option(number(0, 3600)),
            "show_transform": Option(flag, False),
        },
        _classify,
        _classify_check,
        lambda options: ("rectify",) if options["of"] == "crops" else (),
    ),
    "dense": Kind(
        {
            **MODEL,
            **LABELS,
            "imgsz": Option(sizes),
            "topk": Option(integer(1), 5),
            "conf": Option(number(0, 1), 0.0),
            "classes": Option(names(ids=True)),
            "stride": Option(integer(1, 32_766)),
            "exact": Option(flag, False),
            "heat": Option(text),
        },
        _dense,
        _dense_check,
    ),
    "track": Kind({**MODEL, "box": Option(box)}, _track, _track_check),
}

# Kinds whose results have the same word in a row.
SAME_WORD = {"detect": "detections", "regions": "detections", "classify": "classes", "dense": "classes"}

# How the source is read, under the names of the command line.
SOURCE: dict[str, Option] = {
    "start": Option(number(0)),
    "end": Option(number(0)),
    "vid_stride": Option(integer(1), 1),
    "backend": Option(choice("auto", "opencv", "pyav"), "auto"),
    "max_pixels": Option(integer(1), 100_000_000),
}
# What is written, and where.
OUTPUT: dict[str, Option] = {
    "out": Option(text, place="folder"),
    "video": Option(flag, True),
    "codec": Option(choice("auto", "h264", "h265", "vp9", "av1", "mpeg4", "mjpeg"), "auto"),
    "format": Option(formats(("jsonl", "csv", "mot", "coco", "voc", "yolo")), ("jsonl",)),
}
