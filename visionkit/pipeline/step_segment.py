"""Segmenting as a step of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from visionkit.errors import UsageError
from visionkit.pipeline.masks import MaskSink, UncertainSink
from visionkit.pipeline.segment import ENTROPY, SegmentStage
from visionkit.pipeline.steps import Silent, Step, Telling

if TYPE_CHECKING:
    from visionkit.crf import CRFParams
    from visionkit.pipeline.stage import Item
    from visionkit.tasks import Segmenter

__all__ = ["CRF_NUMBERS", "SegmentStep", "check_segment", "segmenter_of"]

# Parameters of the CRF: name in the paper, and what it is without being given.
CRF_NUMBERS = {
    "theta_alpha": 80.0,
    "theta_beta": 13.0,
    "theta_gamma": 3.0,
    "bilateral_weight": 10.0,
    "gaussian_weight": 3.0,
}
FILE_OPTIONS = ("labels", "preset", "resize")
MIN_SIDE = 32


class SegmentStep(Step):
    """Classes of every pixel, and their masks as files.

    Args:
        load: makes the segmenter.
        options: `uncertainty`, `save_uncertain`, `crf_video`.
    """

    stage: SegmentStage

    def __init__(self, load: Callable[[], Segmenter], options: Mapping[str, Any]) -> None:
        entropy = bool(options["uncertainty"] or options["save_uncertain"])
        super().__init__(SegmentStage(load, entropy=entropy, warm=options["crf_video"] is not False))
        self.sinks.append(MaskSink(self.stage))
        if options["save_uncertain"]:
            self.sinks.append(UncertainSink(options["save_uncertain"]))
        self._uncertainty = options["uncertainty"]

    def draw(self, item: Item) -> None:
        """The classes, or how undecided the network is."""
        from visionkit.draw import draw_segmentation, draw_uncertainty

        stage = self.stage
        if self._uncertainty and ENTROPY in item.results:
            draw_uncertainty(item.frame.image, item.results[ENTROPY], in_place=True)
        elif (found := item.results.get(stage.name)) is not None:
            draw_segmentation(item.frame.image, found, stage.class_names, palette=stage.palette, in_place=True)

    def names(self, item: Item) -> list[str]:
        """Names of the classes of a frame other than background."""
        from visionkit.draw.segment import BACKGROUND_NAMES
        from visionkit.io.results import result_fields

        found = item.results.get(self.stage.name)
        if found is None:
            return ["failed"]
        areas = result_fields(found, self.stage.class_names)["area"]
        return [name for name in areas if name.strip().casefold() not in BACKGROUND_NAMES]


def check_segment(options: Mapping[str, Any]) -> None:
    """Refuse what has no meaning without another option.

    Raises:
        UsageError: `crf-needed`, `tta-needed`, `option-unfit`, `size-too-small`, `overlap-too-large`.
    """
    _check_crf(options)
    if options["scales"] is not None and not options["tta"]:
        raise UsageError("tta-needed", "--scales is about looking several times: give --tta with it.")
    if options["native"] and options["imgsz"] is not None:
        raise UsageError("option-unfit", "--native and --imgsz both say the size of the input. Leave one out.")
    if options["imgsz"] is not None and min(options["imgsz"]) < MIN_SIDE:
        raise UsageError("size-too-small", f"--imgsz must be at least {MIN_SIDE}. Received: {options['imgsz']}.")
    side = (options["tile"] or 1024) // 32 * 32
    if options["overlap"] is not None and options["overlap"] > side - 32:
        raise UsageError(
            "overlap-too-large",
            f"--overlap must leave a tile of {side} pixels 32 of its own. Received: {options['overlap']}.",
        )


def _check_crf(options: Mapping[str, Any]) -> None:
    """Raises UsageError `crf-needed` for what is about a CRF where there is none, or one that it cannot change."""
    given = [name for name in (*CRF_NUMBERS, "crf_iterations", "crf_video") if options[name] is not None]
    if not given or options["crf"]:
        return
    word = f"--{given[0].replace('_', '-')}"
    if options["crf"] is False:
        raise UsageError("crf-needed", f"{word} is about the CRF, and there is to be none: leave one of the two out.")
    own = _own_crf(options)
    if own is None:
        raise UsageError("crf-needed", f"{word} is about the CRF: give --crf with it.")
    if isinstance(own, str) and given != ["crf_video"]:
        raise UsageError(
            "crf-needed",
            f"{word} does not change the CRF of {options['model']}, which is a trained one, fixed inside the file. To "
            "refine by another one, give --crf with it.",
        )


def _own_crf(options: Mapping[str, Any]) -> CRFParams | str | None:
    """The CRF that the model that the options name was exported with."""
    from visionkit.tasks.load_segment import own_crf

    return own_crf(options["model"])


def _crf(options: Mapping[str, Any]) -> dict[str, Any] | bool | None:
    """The CRF asked for, as `load_segmenter` takes it: what is given, over what an exported model has of its own."""
    if options["crf"] is False:
        return False
    given = {key: options[key] for key in CRF_NUMBERS if options[key] is not None}
    if options["crf_iterations"] is not None:
        given["iterations"] = options["crf_iterations"]
    if not options["crf"] and not given:
        return None
    own = _own_crf(options)
    return {**({} if own is None or isinstance(own, str) else dataclasses.asdict(own)), **given}


def segmenter_of(options: Mapping[str, Any], telling: Telling | None = None) -> Segmenter:
    """The segmenter that the options name."""
    from visionkit.tasks import load_segmenter
    from visionkit.tasks.load_classify import is_model_file
    from visionkit.tasks.load_segment import default_segmenter

    name = options["model"] or default_segmenter()
    told = {key: options[key] for key in FILE_OPTIONS if options[key]}
    if told and not is_model_file(name):
        word = next(iter(told)).replace("_", "-")
        raise UsageError("option-unfit", f"--{word} does not go with {name}, which says it itself.")
    how: dict[str, Any] = {key: options[key] for key in ("runtime", "precision", "threads")}
    how["instances"] = 1 if options["threads"] else None
    how |= {key: options[key] for key in ("tile", "overlap", "scales") if options[key] is not None}
    if options["native"]:
        how["native"] = True
    if options["imgsz"] is not None:
        how |= {"short_side": options["imgsz"][0]} if len(options["imgsz"]) == 1 else {"size_hw": options["imgsz"]}
    how |= {**told, "crf": _crf(options), "trust": options["trust_model"]}
    telling = telling or Silent()
    with telling.loading(name, "sizes") as ready:
        segmenter = load_segmenter(name, tta=options["tta"], **how, **ready)
    if segmenter.refiner is not None:
        segmenter.refiner.on_compile = lambda: telling.compiling("crf")
    return segmenter
