"""Segmentation: images in, a class for each of their pixels out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from visionkit.structures import Segmentation
from visionkit.tasks.compiled import CompiledTask
from visionkit.tasks.images import checked_size
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.refine import Refiner
from visionkit.tasks.score_maps import Scores, label_type, spread
from visionkit.tasks.segment_fit import Fit, SizeOptions, fit_of
from visionkit.tasks.segment_network import SegmentNetwork
from visionkit.tasks.strips import LookRows, joined_parts, strips
from visionkit.tasks.tiling import Tile, TilePlan

if TYPE_CHECKING:
    from visionkit.crf import CRFParams

__all__ = ["TTA_SCALES", "SegmentOptions", "Segmenter"]

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Size = tuple[int, int]
Color = tuple[int, int, int]

TTA_SCALES = (0.75, 1.0, 1.25)
KEPT_FITS = 64


@dataclass(frozen=True)
class SegmentOptions:
    """How an image is looked at, and what is made of it.

    Args:
        size: of the network's inputs, and tiles.
        flip: look at the mirrored image too; probabilities are averaged.
        scales: look at the image at each of these sizes, 1 being the usual one.
        crf: refine the answer by a dense CRF with these parameters.
        confidence: give the probability of each pixel's class as well.
        palette: colours RGB of the classes in masks, by class id; those missing have the colours of PASCAL VOC.
    """

    size: SizeOptions = field(default_factory=SizeOptions)
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    crf: CRFParams | None = None
    confidence: bool = False
    palette: tuple[Color, ...] = ()

    def __post_init__(self) -> None:
        scales = tuple(float(scale) for scale in self.scales)
        if not scales or not all(0.1 <= scale <= 8 for scale in scales):
            raise ValueError(f"`scales` must be numbers from 0.1 to 8. Received: scales={self.scales!r}.")
        object.__setattr__(self, "scales", scales)
        palette = tuple(tuple(int(level) for level in color) for color in self.palette)
        if any(len(color) != 3 or not all(0 <= level <= 255 for level in color) for color in palette):
            raise ValueError(f"`palette` must be colours of three levels 0 to 255. Received: {self.palette!r}.")
        object.__setattr__(self, "palette", palette)


class Segmenter(CompiledTask):
    """Images in, the class of every pixel out.

    `segmenter(image)` is the `Segmentation` of one BGR image uint8 (H, W, 3), of that size; `segmenter(images)` the
    list of those of several. The network's logits, at its own resolution, are enlarged bilinearly to the image's size
    before the greatest is taken; with several looks at the image it is the mean of their probabilities, with a CRF its
    marginals.

    Args:
        network: compiled when the first image comes.
        rule: of the card.
        options: size, looks, CRF.
        labels: class names by class id.
        threads: of the CRF; None is all cores.
    """

    def __init__(
        self,
        network: SegmentNetwork,
        rule: InputRule,
        options: SegmentOptions | None = None,
        *,
        labels: Sequence[str] = (),
        threads: int | None = None,
    ) -> None:
        super().__init__(network)
        self.network, self.rule, self.options = network, rule, options or SegmentOptions()
        self.labels = tuple(labels)
        crf = self.options.crf
        self.refiner = None if crf is None else Refiner(crf, threads=threads)
        self._fits: dict[tuple[Size, float], Fit] = {}

    @overload
    def __call__(self, images: Image) -> Segmentation: ...
    @overload
    def __call__(self, images: Sequence[Image]) -> list[Segmentation]: ...
    def __call__(self, images: Image | Sequence[Image]) -> Segmentation | list[Segmentation]:
        """The classes of one image's pixels, or of those of each image of a list.

        Raises:
            ValueError: an image is not uint8 (H, W, 3).
            ModelError: `model-not-finite`, `model-unfit`.
        """
        if not isinstance(images, np.ndarray):
            return [self(image) for image in images]
        return self.answer(self.scores(images), images) if self.refiner else self.read(images)[0]

    def scores(self, image: Image) -> Scores:
        """What the network says of an image, at its own resolution, for each look."""
        size_hw = checked_size(image)
        return Scores(tuple(self._look(image, scale, mirrored) for scale, mirrored in self._looks()), size_hw)

    def read(self, image: Image, *, entropy: bool = False) -> tuple[Segmentation, Floats | None]:
        """The structure of an image without its CRF, and the network's entropy (`Scores.entropy`) if it is wanted.

        Of an image that goes in tiles, scores are held of one row of tiles at a time.
        """
        size_hw = checked_size(image)
        labels: Any = None
        confidence = np.empty(size_hw, np.float32) if self.options.confidence else None
        parts = []
        for scores in self._strips(image):
            found = scores.labels()
            rows = scores.rows or slice(None)
            labels = np.empty(size_hw, found.dtype) if labels is None else labels
            labels[rows] = found
            if confidence is not None:
                confidence[rows] = scores.confidence()
            if entropy:
                parts.append(scores.entropy())
        return Segmentation(labels, confidence), np.concatenate(parts) if entropy else None

    def probs(self, image: Image) -> Floats:
        """The probabilities of all classes at every pixel, float32 (H, W, L); behind the CRF where there is one."""
        scores = self.scores(image)
        return scores.probs() if self.refiner is None else self.refiner(scores.probs(), image)

    def answer(self, scores: Scores, image: Image) -> Segmentation:
        """The structure of one image's scores."""
        if self.refiner is not None:
            return self.refined(self.refiner(scores.probs(), image))
        return Segmentation(scores.labels(), scores.confidence() if self.options.confidence else None)

    def refined(self, probs: Floats) -> Segmentation:
        """The structure of probabilities (H, W, L)."""
        labels = probs.argmax(axis=2).astype(label_type(probs.shape[2]))
        return Segmentation(labels, probs.max(axis=2) if self.options.confidence else None)

    def prepare(self, size_hw: Size) -> None:
        """Compile the network for images of a size, which else happens when the first one comes."""
        for scale in self.options.scales:
            self.network.prepare(self.fit(size_hw, scale).pass_hw)

    def fit(self, size_hw: Size, scale: float = 1.0) -> Fit:
        """How images of a size go into the network."""
        key = (size_hw, scale)
        found = self._fits.get(key)
        if found is None:
            if len(self._fits) >= KEPT_FITS:
                self._fits.clear()
            found = self._fits[key] = fit_of(self.rule, size_hw, self.options.size, scale)
        return found

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
        fit, options = self.fit(size_hw), self.options
        plan = fit.plan
        return {
            "resize": self.rule.resize,
            "input_hw": list(fit.rule.size_hw),
            "tile_hw": None if plan is None else list(plan.tile_hw),
            "overlap": None if plan is None else plan.overlap,
            "scales": list(options.scales),
            "flip": options.flip,
            "crf": None if self.refiner is None else self.refiner.settings(size_hw),
            "threads": self.network.threads,
            "instances": self.network.instances,
        }

    def _looks(self) -> Iterator[tuple[float, bool]]:
        """The size of each look at an image, and whether it is a look at the mirrored one."""
        for scale in self.options.scales:
            yield scale, False
            if self.options.flip:
                yield scale, True

    def _strips(self, image: Image) -> Iterator[Scores]:
        """The scores of an image: whole, or, where it goes in tiles, of one strip after the other."""
        size_hw = checked_size(image)
        if all(self.fit(size_hw, scale).plan is None for scale in self.options.scales):
            yield self.scores(image)
            return
        yield from strips([LookRows(self._parts(image, *look)) for look in self._looks()], size_hw)

    def _look(self, image: Image, scale: float, mirrored: bool) -> Floats:
        """The logits float32 (L, h, w) behind the image, at the network's resolution."""
        ((found, _),) = self._parts(image, scale, mirrored, whole=True)
        return found

    def _parts(
        self, image: Image, scale: float, mirrored: bool, *, whole: bool = False
    ) -> Iterator[tuple[Floats, int]]:
        """Rows of a look's logits from above, at once or, with tiles, as they are finished; and how many there are."""
        fit = self.fit((image.shape[0], image.shape[1]), scale)
        pixels = fit.rule.pixels(np.ascontiguousarray(image[:, ::-1]) if mirrored else image)
        plan = fit.plan
        if plan is None:
            found = self._one_pass(fit, pixels)
            parts = iter([(found, found.shape[1])])
        else:
            parts = joined_parts(plan, lambda tile: self._pass(fit, _cut(plan, pixels, tile)), whole=whole)
        for found, height in parts:
            yield np.ascontiguousarray(found[:, :, ::-1]) if mirrored else found, height

    def _one_pass(self, fit: Fit, pixels: Image) -> Floats:
        found = self._pass(fit, pixels)
        if fit.content is None:
            return found
        top, bottom, left, right = fit.content
        return np.ascontiguousarray(spread(found, fit.rule.size_hw)[:, top:bottom, left:right])

    def _pass(self, fit: Fit, pixels: Image) -> Floats:
        with self.network.inputs(fit.pass_hw) as inputs:
            fit.rule.normalize(pixels, inputs[0])
            return self.network(inputs)


def _cut(plan: TilePlan, pixels: Image, tile: Tile) -> Image:
    """The pixels of a tile, contiguous."""
    (y, x), (height, width) = tile.corner_yx, plan.tile_hw
    return np.ascontiguousarray(pixels[y : y + height, x : x + width])
