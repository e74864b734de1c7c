"""Detecting as a step of a run: from options to the stage, its drawing and what is told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from visionkit.errors import UsageError
from visionkit.pipeline.detect import DetectStage
from visionkit.pipeline.steps import Silent, Step, Telling, refuse

if TYPE_CHECKING:
    from visionkit.pipeline.stage import Item
    from visionkit.tasks import Associator, CountPlan, Detector

__all__ = ["DetectStep", "associator_of", "check_detect", "count_lines", "detector_of", "plan_of"]


class DetectStep(Step):
    """Boxes, their numbers over time, and counts.

    Args:
        load: makes the detector.
        options: `track`, `tracker`, `conf`, `lines`, `zones`, `line_anchor`, `zone_anchor`, `batch`.
    """

    boxes = True
    stage: DetectStage

    def __init__(self, load: Callable[[], Detector], options: Mapping[str, Any]) -> None:
        from visionkit.draw import DetectionDrawer

        plan = plan_of(options)
        associate = associator_of(options) if options["track"] else None
        super().__init__(DetectStage(load, associate=associate, count=plan, batch=options["batch"]))
        self._drawer = DetectionDrawer(lines=plan.lines, zones=plan.zones)

    def draw(self, item: Item) -> None:
        """Boxes with names, paths, lines and zones with their counts."""
        if (found := item.results.get(self.stage.name)) is not None:
            self._drawer(item.frame.image, found, self.stage.class_names, item.results.get("counts"))

    def names(self, item: Item) -> list[str]:
        """Names of the classes found in a frame."""
        from visionkit.io.results import class_name

        found = item.results.get(self.stage.name)
        if found is None:
            return ["failed"]
        return [class_name(class_id, self.stage.class_names) for class_id in sorted(set(found.class_id.tolist()))]

    def lines(self) -> list[str]:
        """What was counted."""
        return [] if self.stage.counts is None else count_lines(self.stage.counts.summary(self.stage.class_names))


def check_detect(options: Mapping[str, Any]) -> None:
    """Refuse what has no meaning without another option, and shapes that cannot be counted at.

    Raises:
        UsageError: `track-needed`, `line-too-short`, `zone-too-small`, `tracker-missing`.
    """
    plan_of(options)
    if options["lines"] and not options["track"]:
        raise UsageError("track-needed", "--line counts objects, not boxes: give --track with it.")
    if options["tracker"] and not options["track"]:
        raise UsageError("track-needed", "--tracker is about numbers over time: give --track with it.")
    if options["track"]:
        associator_of(options)


def detector_of(options: Mapping[str, Any], telling: Telling | None = None) -> Detector:
    """The detector that the options name."""
    from visionkit.tasks import load_detector
    from visionkit.tasks.load_classify import is_model_file
    from visionkit.tasks.load_detect import default_detector

    name = options["model"] or default_detector()
    how: dict[str, Any] = {key: options[key] for key in ("runtime", "precision", "threads")}
    how |= {key: options[key] for key in ("conf", "iou", "classes", "max_det") if options[key] is not None}
    if is_model_file(name):
        refuse(options, ("imgsz", "weights", "iou"), "a model file has its own")
        if options["batch"] != 1:
            raise UsageError("option-unfit", "--batch does not go with this model: a model file takes one image.")
        how |= {key: options[key] for key in ("labels", "preset") if options[key] is not None}
        return load_detector(name, trust=options["trust_model"], **how)
    refuse(options, ("labels", "preset"), "it says that itself")
    how |= {"instances": 1 if options["threads"] else None, "batch": options["batch"], "weights": options["weights"]}
    how["trust"] = options["trust_model"]
    sizes = options["imgsz"]
    how["size_hw"] = None if sizes is None else (sizes[0], sizes[-1])
    with (telling or Silent()).loading(name, "sizes") as told:
        return load_detector(name, **how, **told)


def plan_of(options: Mapping[str, Any]) -> CountPlan:
    """The lines and zones that the options name."""
    from visionkit.tasks import CountPlan

    return CountPlan(tuple(options["lines"]), tuple(options["zones"]), options["line_anchor"], options["zone_anchor"])


def associator_of(options: Mapping[str, Any]) -> Associator:
    """What gives numbers, as the options say.

    Raises:
        UsageError: `tracker-missing`.
    """
    from visionkit.tasks import AssociationOptions, make_associator

    conf = 0.25 if options["conf"] is None else options["conf"]
    kind: Any = options["tracker"] or "auto"
    try:
        return make_associator(kind, AssociationOptions(conf=conf, low=min(0.1, conf)))
    except ImportError:
        raise UsageError(
            "tracker-missing",
            f"--tracker {kind} needs the package `trackers`: pip install 'visionkit[mot]', or leave --tracker out.",
        ) from None


def count_lines(summary: Mapping[str, Any]) -> list[str]:
    """What was counted, a line each."""
    lines = [
        f"Line {_told(one['line'])}: "
        + ", ".join(f"{one[way]} {way}{_by(one[f'{way}_by_class'])}" for way in ("in", "out"))
        for one in summary["lines"]
    ]
    lines += [
        f"Zone {_told(one['zone'])}: {one['objects']} objects{_by(one['objects_by_class'])}, "
        f"at most {one['most_at_once']} at once"
        for one in summary["zones"]
    ]
    return lines


def _told(numbers: list[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


def _by(counts: dict[str, int]) -> str:
    return f" ({', '.join(f'{count} {name}' for name, count in counts.items())})" if counts else ""
