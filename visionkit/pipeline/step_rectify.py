"""Rectifying as a step of a run: a region of every frame, or one in every box."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from visionkit.errors import UsageError
from visionkit.pipeline.rectify import BoxCropsSink, RectifiedSink, RectifyStage, crop_item
from visionkit.pipeline.steps import Silent, Step, Telling

if TYPE_CHECKING:
    from visionkit.pipeline.stage import Item
    from visionkit.tasks import Rectifier

__all__ = ["RectifyStep", "check_rectify", "rectifier_of"]


class RectifyStep(Step):
    """Straight crops, their video or images, and their outlines.

    Args:
        load: a rectifier, or what makes one.
        options: `codec`, `end_s`, for the crops' video; of boxes `margin`, `square`, `save_crops`.
        boxes: name of the stage whose detections are looked into; None looks at the whole frame.
    """

    stage: RectifyStage

    def __init__(
        self, load: Rectifier | Callable[[], Rectifier], options: Mapping[str, Any], *, boxes: str | None = None
    ) -> None:
        around = {} if boxes is None else {"margin": options["margin"], "square": options["square"]}
        super().__init__(RectifyStage(load, boxes=boxes, **around))
        if boxes is None:
            self.sinks.append(RectifiedSink(self.stage, codec=options["codec"], end_s=options["end_s"]))
        elif options["save_crops"]:
            self.sinks.append(BoxCropsSink(self.stage))
        self._share: float | None = None
        self._crops = 0

    def draw(self, item: Item) -> None:
        """The outlines."""
        from visionkit.draw import draw_regions

        found = item.results.get(self.stage.name)
        if found is not None:
            draw_regions(item.frame.image, found if isinstance(found, list) else [found], inset=False, in_place=True)

    def watch(self, item: Item) -> None:
        """See how much of a given region no frame shows, or how many crops there are."""
        from visionkit.tasks import CornerRectifier

        if self.stage.boxes is not None:
            self._crops += sum(crop is not None for crop in item.results.get(self.stage.name) or ())
        elif self._share is None:
            rectifier = self.stage.rectifier
            fixed = isinstance(rectifier, CornerRectifier)
            self._share = rectifier.outside(item.frame.size_hw) if fixed else 0.0  # type: ignore[union-attr]

    def shown(self, item: Item) -> Item:
        """The crop, where there is one."""
        found = item.results.get(self.stage.name)
        return item if found is None or isinstance(found, list) else crop_item(item, found.image)

    def told(self) -> str:
        """How large the crops are."""
        height, width = self.stage.size_hw
        return f"{'' if self.stage.boxes is None else f'{self._crops} '}crops of {width} x {height}"

    def lines(self) -> list[str]:
        """A warning about what lies outside, or nothing."""
        if not self._share:
            return []
        told = f"{100 * self._share:.0f} %" if self._share >= 0.01 else "Less than 1 %"
        return [f"visionkit: warning: {told} of the region lies outside of the first frame and is black."]


def check_rectify(options: Mapping[str, Any]) -> None:
    """Refuse no region, two regions, and what has no meaning with the one that is given.

    Raises:
        UsageError: `no-region`, `option-unfit`, `bad-corners`, `size-too-large`.
    """
    from visionkit.tasks.load_classify import is_model_file

    corners, model = options["corners"], options["model"]
    if (corners is None) == (model is None):
        raise UsageError(
            "no-region" if corners is None else "option-unfit",
            "The region comes from --corners X,Y,X,Y,X,Y,X,Y or from a --model with a spatial transformer: give one of "
            "them.",
        )
    if model is not None and is_model_file(model):
        raise UsageError(
            "option-unfit",
            f"--model expected a classifier's card, which says what its transformer is. Received: {model!r}, a model "
            "file. Give the card's name, or the folder that holds its card.toml.",
        )
    if corners is not None:
        for name, usual in (("runtime", "auto"), ("precision", "float32"), ("threads", None)):
            if options[name] != usual:
                raise UsageError("option-unfit", f"--{name} is about a model: --corners needs none. Leave it out.")
        rectifier_of(options)


def rectifier_of(options: Mapping[str, Any], telling: Telling | None = None) -> Rectifier:
    """The rectifier that the options name: of corners, of a model's transformer, or of upright boxes."""
    from visionkit.tasks import BoxRectifier, CornerRectifier, load_rectifier

    size = options["size"]
    size_hw = None if size is None else (size[0], size[-1])
    how: dict[str, Any] = {name: options[name] for name in ("antialias", "border")}
    if options["corners"] is not None:
        return CornerRectifier(options["corners"], size_hw, **how)
    if options["model"] is None:
        return BoxRectifier(size_hw or (1, 1), **how)
    how |= {name: options[name] for name in ("runtime", "precision", "threads")}
    with (telling or Silent()).loading(options["model"]) as told:
        return load_rectifier(options["model"], size_hw=size_hw, **how, **told)
