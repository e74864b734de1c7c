"""Detection: images in, boxes with classes out, and masks where the network gives them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError, UsageError
from visionkit.structures import Detections
from visionkit.tasks.compiled import CompiledTask
from visionkit.tasks.detect_fit import DetectFit, detect_fit, same_fits
from visionkit.tasks.detect_network import DetectNetwork, Limits, RawDetections
from visionkit.tasks.images import checked_size
from visionkit.tasks.input_rule import InputRule

__all__ = ["DetectOptions", "Detector", "class_ids"]

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Size = tuple[int, int]

BACKGROUND_NAMES = frozenset({"background", "__background__"})
KEPT_FITS = 64
MASK_THRESHOLD = 0.5


@dataclass(frozen=True)
class DetectOptions:
    """What of the answer is kept.

    Args:
        conf: boxes of at least this probability.
        iou: of two boxes of a class that overlap more than this, the weaker goes; None is the network's own value.
        classes: only these, by id or by name; None is all.
        max_det: at most so many boxes of an image, the most probable ones.
        masks: paste the masks of a network that gives them.
    """

    conf: float = 0.25
    iou: float | None = None
    classes: tuple[int | str, ...] | None = None
    max_det: int = 300
    masks: bool = True

    def __post_init__(self) -> None:
        for name in ("conf", "iou"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"`{name}` must be from 0 to 1. Received: {name}={value!r}.")
        if isinstance(self.max_det, bool) or not isinstance(self.max_det, int) or self.max_det < 1:
            raise ValueError(f"`max_det` must be a positive integer. Received: max_det={self.max_det!r}.")
        if self.classes is not None:
            given = (self.classes,) if isinstance(self.classes, int | str) else tuple(self.classes)
            if not given:
                raise ValueError("`classes` must name at least one class, or be None.")
            object.__setattr__(self, "classes", given)


class Detector(CompiledTask):
    """Images in, boxes with classes out.

    `detector(image)` is the `Detections` of one BGR image uint8 (H, W, 3), `detector(images)` the list of those of
    several, most probable first, in pixels of the image. Class ids count the labels from 0; background is absent.

    Args:
        network: compiled when the first image comes.
        rule: of the card.
        options: what of the answer is kept.
        labels: class names by class id; `background` in front may be there and means nothing.

    Raises:
        UsageError: `class-unknown`; `options.classes` names what is not among the labels.
    """

    def __init__(
        self,
        network: DetectNetwork,
        rule: InputRule,
        options: DetectOptions | None = None,
        *,
        labels: Sequence[str] = (),
    ) -> None:
        super().__init__(network)
        self.network, self.rule, self.options = network, rule, options or DetectOptions()
        labels = tuple(labels)
        if labels and labels[0].strip().casefold() in BACKGROUND_NAMES:
            labels = labels[1:]
        self.labels = labels
        self.classes = None if self.options.classes is None else class_ids(self.options.classes, labels)
        self._fits: dict[Size, DetectFit] = {}

    @overload
    def __call__(self, images: Image, *, conf: float | None = None) -> Detections: ...
    @overload
    def __call__(self, images: Sequence[Image], *, conf: float | None = None) -> list[Detections]: ...
    def __call__(self, images: Image | Sequence[Image], *, conf: float | None = None) -> Detections | list[Detections]:
        """What is in one image, or in each image of a list.

        Args:
            images: of any sizes; neighbours that go in at one size share a call of the network.
            conf: in the place of the options'.

        Raises:
            ValueError: an image is not uint8 (H, W, 3).
            ModelError: `model-not-finite`, `model-unfit`.
        """
        if isinstance(images, np.ndarray):
            return self([images], conf=conf)[0]
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        return [self._answer(*one) for one in zip(self.raw(images, conf=conf), sizes, strict=True)]

    def prepare(self, size_hw: Size) -> None:
        """Compile the network for images of a size, which else happens when the first one comes."""
        self.network.prepare(self.fit(size_hw).input_hw)

    def fit(self, size_hw: Size) -> DetectFit:
        """How images of a size go into the network."""
        found = self._fits.get(size_hw)
        if found is None:
            if len(self._fits) >= KEPT_FITS:
                self._fits.clear()
            found = self._fits[size_hw] = detect_fit(self.rule, size_hw)
        return found

    @property
    def batch(self) -> int:
        """Images in one call of the network."""
        return self.network.batch

    @property
    def instances(self) -> int:
        """How many calls of the network may run side by side."""
        return self.network.instances or 1

    def describe(self) -> dict[str, str]:
        """Name, sha256, runtime and precision of the model, for a run's manifest."""
        network = self.network
        if network.runtime is None or network.precision is None:
            return dict(self.model)
        return {**self.model, "runtime": network.runtime, "precision": network.precision}

    def settings(self, size_hw: Size) -> dict[str, Any]:
        """What else the answers depend on, for images of a size."""
        options = self.options
        return {
            "resize": self.rule.resize,
            "input_hw": list(self.fit(size_hw).input_hw),
            "conf": options.conf,
            "iou": options.iou,
            "classes": None if self.classes is None else [int(class_id) for class_id in self.classes],
            "max_det": options.max_det,
            "batch": self.batch,
            "threads": self.network.threads,
            "instances": self.network.instances,
        }

    def raw(self, images: Sequence[Image], *, conf: float | None = None) -> list[RawDetections]:
        """What is in each image: the fields of `RawDetections` after selection, boxes in pixels of the image.

        Its classes count the labels from 0, its masks are not pasted.
        """
        fits = [self.fit(checked_size(image)) for image in images]
        limits = self._limits(conf)
        found: list[RawDetections] = []
        for begin, end in same_fits(fits, self.network.batch):
            raw = self._pass(images[begin:end], fits[begin:end], limits)
            found += [self._selected(one, fit) for one, fit in zip(raw, fits[begin:end], strict=True)]
        return found

    def _limits(self, conf: float | None) -> Limits:
        options = self.options
        # boxes of other classes must not take the places of those that are wanted
        most = options.max_det if self.classes is None else max(options.max_det, 1000)
        return Limits(options.conf if conf is None else conf, options.iou, most)

    def _pass(self, images: Sequence[Image], fits: Sequence[DetectFit], limits: Limits) -> list[RawDetections]:
        with self.network.inputs(fits[0].input_hw) as inputs:
            for image, fit, row in zip(images, fits, inputs, strict=False):
                fit(image, self.rule, row)
            inputs[len(images) :] = inputs[:1]  # nothing old is run
            padded = [*fits, *[fits[0]] * (len(inputs) - len(fits))]
            whole = [f.resized_hw if f.corner_yx == (0, 0) else f.input_hw for f in padded]
            return self.network(inputs, np.asarray(whole, np.float32), limits)[: len(images)]

    def _selected(self, raw: RawDetections, fit: DetectFit) -> RawDetections:
        if not (np.isfinite(raw.xyxy).all() and np.isfinite(raw.scores).all()):
            raise ModelError("model-not-finite", "the network's answer is not finite (NaN or infinity)")
        xyxy, ids = fit.to_image(raw.xyxy), raw.classes - 1
        keep = (ids >= 0) & (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
        if self.classes is not None:
            keep &= np.isin(ids, self.classes)
        kept = np.flatnonzero(keep)[: self.options.max_det]
        masks = None if raw.masks is None else raw.masks[kept]
        return RawDetections(xyxy[kept], np.clip(raw.scores[kept], 0, 1), ids[kept], masks)

    def _answer(self, found: RawDetections, size_hw: Size) -> Detections:
        mask = None
        if found.masks is not None and self.options.masks:
            mask = _pasted(found.masks, found.xyxy, size_hw)
        return Detections(found.xyxy, found.scores, found.classes, mask)


def _pasted(probs: Floats, xyxy: Floats, size_hw: Size) -> npt.NDArray[np.bool_]:
    from visionkit.geometry.mask_paste import paste_masks

    return paste_masks(probs, xyxy, size_hw, threshold=MASK_THRESHOLD)


def class_ids(wanted: Sequence[int | str], labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """The ids of classes given by id or by name (upper and lower case alike), rising.

    Raises:
        UsageError: `class-unknown`.
    """
    folded = {label.strip().casefold(): place for place, label in reversed(list(enumerate(labels)))}
    found = set()
    for one in wanted:
        text = str(one).strip()
        place = folded.get(text.casefold())
        if place is None and text.isdecimal():
            place = int(text)
            if labels and place >= len(labels):
                raise UsageError(
                    "class-unknown", f"There is no class {place}: this model has {len(labels)}, from 0 on."
                )
        if place is None:
            near = difflib.get_close_matches(text.casefold(), folded, n=1, cutoff=0.5)
            known = ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")
            hint = f"Did you mean {labels[folded[near[0]]]!r}?" if near else f"There are: {known or 'ids only'}."
            raise UsageError("class-unknown", f"This model knows no class {text!r}. {hint}")
        found.add(place)
    return np.array(sorted(found), np.int64)
