"""What an exported model is made of, whatever its task and format: the plan that a task's module makes of a card."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError

if TYPE_CHECKING:
    import keras

    from visionkit.crf import CRFParams
    from visionkit.layers.dense_crf import DenseCRF
    from visionkit.weights import Card
    from visionkit.weights.fetch import Progress

__all__ = ["PLANS", "ExportOptions", "ExportPlan", "make_plan"]

Image = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]

ANY_SIZE = ("savedmodel",)  # formats whose `serving_default` takes images of any size


@dataclass(frozen=True)
class ExportOptions:
    """What is asked of an export.

    Args:
        format: `savedmodel`, `litert`, `keras`, `onnx` or `openvino`.
        size_hw: of the network's input, in the place of the card's.
        batch: images in one call, where the format has a fixed number.
        crf: of a segmenter: refine by it, inside the artifact.
        weights: a file with weights in the place of the card's own.
        notice, progress: of a download, where the weights are not on this machine.
        change: what becomes of a classifier's network, filled with weights, before it is exported.
    """

    format: str = "savedmodel"
    size_hw: tuple[int, int] | None = None
    batch: int = 1
    crf: CRFParams | DenseCRF | None = None
    weights: str | Path | None = None
    notice: Callable[[str], None] | None = None
    progress: Progress | None = None
    change: Callable[[keras.Model], keras.Model] | None = None

    @property
    def fixed(self) -> bool:
        """Whether `serving_default` takes images of the network's size only, and one number of them."""
        return self.format not in ANY_SIZE


@dataclass
class ExportPlan:
    """A card's network with all that is around it.

    Images inside are those of `serving_default`: uint8 (B, H, W, 3) RGB. Those of `fit` and `expected` are VisionKit's:
    uint8 (H, W, 3) BGR.

    Args:
        card: what the description says, with the size that is exported.
        model: the network as the card builds it, with its weights: what a `.keras` holds.
        parts: which signature answers what the task's loader asks `CardNetwork.compiled` for, by the part's name ("" is
            the network itself).
        raw: by signature, the network behind it, functional, its sizes fixed but for the batch; inputs and outputs are
            called as `visionkit.runtime.keras_net.signature_of` calls them.
        fit: from an image of any size to one of the size that `serve(…, fixed=True)` takes.
        expected: (images, fixed) to what the task in Python, on Keras, says of each, in the words of `serve` without
            the batch's axis. With `fixed`, images have been through `fit`, and the answer is about them.
        serve: (image, fixed) to the results by name, each with the batch's axis first. With `fixed`, `image` has a
            static shape and the network's size; without, any sizes, and it resizes. None: `serving_default` is the
            signature named `default`.
        default: of `raw`, where there is no `serve`.
        embed: (image, fixed), as `serve` takes them, to the network's features (B, F), where it has them.
        embedded: (image, fixed), as `expected` takes them, to those features (F,) in Python.
        variables: models and layers whose variables the artifact keeps; without any, `model` and `raw`.
        tolerances: by output of `serve`: the largest difference from `expected`, absolute.
        raw_inputs: from an image to the inputs of signatures, as the task would make them, for the probes; what it does
            not name is tried on noise.
        compare: (served, expected, output, tolerance) to the difference found, 0 for equal, where the largest absolute
            difference is not what counts (labels of nearly equal scores); None for those.
        finest: stride of the finest of several maps that results are read from; None where there is one.
        notes: what else the description says in `made`, ready for JSON.
    """

    card: Card
    model: keras.Model
    parts: Mapping[str, str]
    raw: Mapping[str, keras.Model]
    fit: Callable[[Image], Image]
    expected: Callable[[Sequence[Image], bool], list[dict[str, Array]]]
    serve: Callable[[Any, bool], dict[str, Any]] | None = None
    default: str = ""
    embed: Callable[[Any, bool], Any] | None = None
    embedded: Callable[[Image, bool], Array] | None = None
    variables: Sequence[Any] = ()
    tolerances: Mapping[str, float] = field(default_factory=dict)
    raw_inputs: Callable[[Image], Mapping[str, Mapping[str, Array]]] | None = None
    compare: Callable[[Mapping[str, Array], Mapping[str, Array], str, float], float | None] | None = None
    finest: int | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def owners(self) -> list[Any]:
        """Whatever holds variables."""
        if self.variables:
            return list(self.variables)
        return [self.model, *self.raw.values()]


# By a card's task, the module with `make_plan(card, options) -> ExportPlan`; imported when it is needed.
PLANS: dict[str, str] = {
    "classify": "visionkit.export.plan_classify",
    "segment": "visionkit.export.plan_segment",
    "detect": "visionkit.export.plan_detect",
    "track": "visionkit.export.plan_track",
}


def make_plan(card: Card, options: ExportOptions) -> ExportPlan:
    """The plan of a card, its network built and filled with weights.

    Raises:
        ModelError: `task-unsupported`; the weights are missing, or do not fit.
    """
    if card.task not in PLANS:
        raise ModelError(
            "task-unsupported", f"{card.name} is a model to {card.task}; exported are models to {', '.join(PLANS)}."
        )
    module = importlib.import_module(PLANS[card.task])
    plan: ExportPlan = module.make_plan(card, options)
    return plan
