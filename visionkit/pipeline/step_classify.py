"""Classifying frames, or what was cut out of them, as a step of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from visionkit.errors import UsageError
from visionkit.pipeline.classify import TRANSFORM, ClassifyStage
from visionkit.pipeline.classify_crops import ClassifyCropsStage
from visionkit.pipeline.smooth import SMOOTH_S
from visionkit.pipeline.steps import Silent, Step, Telling, refuse

if TYPE_CHECKING:
    from visionkit.pipeline.rectify import RectifyStage
    from visionkit.pipeline.stage import Item
    from visionkit.tasks import Classifier

__all__ = ["ClassifyStep", "classifier_of"]


class ClassifyStep(Step):
    """Classes of every frame, or of every crop that a step before it has cut out.

    Args:
        load: makes the classifier.
        options: `batch`, `smooth_s`.
        crops: the stage whose crops are classified; None classifies the frames.
    """

    way = "likeliest"
    stage: ClassifyStage

    def __init__(
        self, load: Callable[[], Classifier], options: Mapping[str, Any], *, crops: RectifyStage | None = None
    ) -> None:
        smooth_s = SMOOTH_S if options["smooth_s"] is None else options["smooth_s"]
        how: dict[str, Any] = {"batch": options["batch"], "smooth_s": smooth_s}
        if crops is None:
            super().__init__(ClassifyStage(load, **how))
        else:
            super().__init__(ClassifyCropsStage(load, crops=crops.name, **how))
        self._boxes = None if crops is None else crops.boxes

    def draw(self, item: Item) -> None:
        """The likeliest classes, beside their crops where there are several; what a transformer looks at."""
        from visionkit.draw import draw_classes, draw_region_classes, draw_regions

        if regions := item.results.get(TRANSFORM):
            draw_regions(item.frame.image, regions, in_place=True)
        found, names = item.results.get(self.stage.name), self.stage.class_names
        if isinstance(found, list):
            corners = item.results[self._boxes or ""].xyxy.reshape(-1, 2, 2)
            draw_region_classes(item.frame.image, corners, found, names, in_place=True)
        elif found is not None:
            draw_classes(item.frame.image, found, names, in_place=True)

    def names(self, item: Item) -> list[str]:
        """The likeliest class of a frame, of each head where there are several; the likeliest of its crops."""
        found = item.results.get(self.stage.name)
        if isinstance(found, list):
            return sorted({name for one in found if one is not None for name in self._best(one)})
        return ["failed"] if found is None else self._best(found)

    def _best(self, found: Any) -> list[str]:
        from visionkit.io.results import result_fields

        fields = result_fields(found, self.stage.class_names)
        if "heads" in fields:
            return [f"{head}: {rows[0]['class_name']}" for head, rows in fields["heads"].items() if rows]
        return [row["class_name"] for row in fields.get("classes", [])[:1]] or ["none"]


def classifier_of(options: Mapping[str, Any], telling: Telling | None = None) -> Classifier:
    """The classifier that the options name."""
    from visionkit.tasks import load_classifier
    from visionkit.tasks.load_classify import DEFAULT_CLASSIFIER, is_model_file

    name = options["model"] or DEFAULT_CLASSIFIER
    how: dict[str, Any] = {key: options[key] for key in ("runtime", "precision", "batch", "topk", "conf", "classes")}
    how |= {"threads": options["threads"], "instances": 1 if options["threads"] else None}
    if is_model_file(name):
        refuse(options, ("imgsz",), "a model file has its own size")
        if options["show_transform"]:
            raise UsageError(
                "option-unfit", "--show-transform needs a model card; this file does not tell its transformer."
            )
        how |= {key: options[key] for key in ("labels", "preset", "resize") if options[key] is not None}
        return load_classifier(name, trust=options["trust_model"], **how)
    refuse(options, ("labels", "preset", "resize"), "it says that itself")
    sizes = options["imgsz"]
    how |= {"size_hw": None if sizes is None else (sizes[0], sizes[-1]), "transform": options["show_transform"]}
    how["trust"] = options["trust_model"]
    with (telling or Silent()).loading(name) as told:
        return load_classifier(name, **how, **told)
