"""What an exported tracker is made of: the half of its network that sees the object, and the half for each frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError, UsageError
from visionkit.export.plan import ExportOptions, ExportPlan
from visionkit.geometry.crops import cell_cover
from visionkit.tasks.load import FAMILIES, network_sizes
from visionkit.tasks.network import CardNetwork

if TYPE_CHECKING:
    import keras

    from visionkit.weights import Card

__all__ = ["make_plan"]

Image = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]

EXEMPLAR, SEARCH = "exemplar", "search"


def make_plan(card: Card, options: ExportOptions) -> ExportPlan:
    """The plan of a Siamese tracker: signatures `exemplar` and `search`, which is `serving_default` as well.

    Their images are RGB float32 in 0-255, cut out of frames as `visionkit.tasks.track` cuts them. Around the networks
    there is no graph: where to look next is the tracker's business, from frame to frame.

    Raises:
        UsageError: `option-unfit`; a tracker has two sizes, which are the card's.
        ModelError: `network-unfit`; the weights are missing, or do not fit.
    """
    family = FAMILIES.get(card.network)
    if family is None:
        raise ModelError("network-unfit", f"{card.name}: {card.network} is no tracker that VisionKit exports.")
    if options.size_hw is not None:
        raise UsageError(
            "option-unfit",
            f"{card.name} has the sizes of its card, of exemplar and search region; leave the size out. "
            f"Received: size_hw={options.size_hw}.",
        )
    network = CardNetwork(
        card,
        weights=options.weights,
        arguments=network_sizes(card),
        notice=options.notice,
        progress=options.progress,
    )
    model = network.model()
    raw = {EXEMPLAR: family.half(0)(model), SEARCH: family.half(1)(model)}
    return _Story(card, model, raw).plan()


class _Story:
    """A tracker's network in two halves."""

    def __init__(self, card: Card, model: keras.Model, raw: dict[str, keras.Model]) -> None:
        self.card, self.model, self.raw = card, model, raw
        self.side = {name: int(model.input[name].shape[1]) for name in (EXEMPLAR, SEARCH)}
        self._runner: Any = None

    def plan(self) -> ExportPlan:
        return ExportPlan(
            card=self.card,
            model=self.model,
            parts={EXEMPLAR: EXEMPLAR, SEARCH: SEARCH},
            raw=self.raw,
            fit=lambda image: self._square(image, SEARCH),
            expected=lambda images, fixed: [self.answer(image) for image in images],
            default=SEARCH,
            variables=[self.model],
            raw_inputs=self.inputs,
        )

    def inputs(self, image: Image) -> dict[str, dict[str, Array]]:
        """An exemplar, and a search region that shows the same at the exemplar's scale in its middle."""
        region = self._square(image, SEARCH)[..., ::-1].astype(np.float32)[None]
        side, inner = self.side[SEARCH], self.side[EXEMPLAR]
        first = (side - inner) // 2
        exemplar = np.ascontiguousarray(region[:, first : first + inner, first : first + inner])
        if self._runner is None:
            from visionkit.runtime.keras_net import KerasRunner

            self._runner = KerasRunner(self.raw[EXEMPLAR], threads=1)
        search: dict[str, Array] = {**self._runner(exemplar=exemplar), SEARCH: region}
        cover = next((tensor for tensor in self.raw[SEARCH].inputs if tensor.name == "exemplar_cover"), None)
        if cover is not None:
            cells = int(cover.shape[1])
            box = np.array([0.3, 0.25, 0.7, 0.75]) * inner
            found = cell_cover(box, inner, cells=cells, stride=side // int(self.raw[SEARCH].output["scores"].shape[1]))
            search[cover.name] = found[None, ..., None]
        return {EXEMPLAR: {EXEMPLAR: exemplar}, SEARCH: search}

    def answer(self, image: Image) -> dict[str, Array]:
        """What the half for each frame says, on Keras, to `inputs`."""
        from visionkit.runtime.keras_net import KerasRunner

        return {
            name: value[0]
            for name, value in KerasRunner(self.raw[SEARCH], threads=1)(**self.inputs(image)[SEARCH]).items()
        }

    def _square(self, image: Image, name: str) -> Image:
        side = self.side[name]
        return np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
