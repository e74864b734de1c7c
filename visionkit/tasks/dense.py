"""Dense classification: a classifier's answer at every window of a grid over an image."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError, UsageError
from visionkit.geometry.window_grid import WindowGrid
from visionkit.structures import DenseClassification
from visionkit.tasks.classify import Activation, ClassifyOptions, Labels, probabilities, ranked
from visionkit.tasks.compiled import CompiledTask
from visionkit.tasks.dense_plan import DensePlan, Pass, check_stride
from visionkit.tasks.images import checked_size
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.resample import Span, resample

if TYPE_CHECKING:
    from visionkit.runtime import Runner

__all__ = ["DenseAnswer", "DenseClassifier", "DenseNetwork", "DenseOptions"]

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Size = tuple[int, int]
DenseAnswer = DenseClassification | dict[str, DenseClassification]

DEFAULT_SHORT_SIDE = 720  # of larger images; a window of 224 is about a third of it
MAX_TILE_PIXELS = 1 << 20  # VGG-16's first maps of it take 256 MiB each
MAX_IMAGE_PIXELS = 1 << 26  # after resizing: 768 MiB as floats
COMPILED_SIZES = 4
CROPS_AT_ONCE = 8


@dataclass(frozen=True)
class DenseOptions:
    """How an image becomes windows.

    Args:
        stride: pixels from window to window, a divisor of the network's stride; None is that itself.
        exact: run the classifier on every crop, instead of the dense network on the image.
        short_side: of the image when the windows are cut, in pixels; None leaves images as they are up to
            `DEFAULT_SHORT_SIDE`. An image too small for one window is enlarged to it.
        max_tile_pixels: an image with more is run in parts.
    """

    stride: int | None = None
    exact: bool = False
    short_side: int | None = None
    max_tile_pixels: int = MAX_TILE_PIXELS

    def __post_init__(self) -> None:
        for name in ("stride", "short_side", "max_tile_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}.")


class DenseNetwork:
    """Runners over a classifier and over its dense twin for tiles of some sizes, made when first needed.

    The runtime that was chosen for the first is taken for the others. The dense ones used last are kept.

    Args:
        grid: windows of the network.
        compile_tile: from a tile's size and a runtime (None: the one asked for) to the dense network's runner.
        compile_crops: from a number of crops to the runner of the classifier.
    """

    def __init__(
        self,
        grid: WindowGrid,
        compile_tile: Callable[[Size, str | None], Runner],
        compile_crops: Callable[[int], Runner],
    ) -> None:
        self.grid = grid
        self._compile_tile, self._compile_crops = compile_tile, compile_crops
        self._tiles: OrderedDict[Size, Runner] = OrderedDict()
        self._crops: Runner | None = None
        self.runtime: str | None = None
        self.precision: str | None = None

    def tile(self, size_hw: Size) -> Runner:
        """The dense network for images of one size."""
        runner = self._tiles.pop(size_hw, None)
        if runner is None:
            while len(self._tiles) >= COMPILED_SIZES:
                self._tiles.popitem(last=False)[1].close()
            runner = self._told(self._compile_tile(size_hw, self.runtime))
        self._tiles[size_hw] = runner
        return runner

    def crops(self) -> Runner:
        """The classifier for `CROPS_AT_ONCE` crops."""
        if self._crops is None:
            self._crops = self._told(self._compile_crops(CROPS_AT_ONCE))
        return self._crops

    def close(self) -> None:
        """Give the runners' memory back."""
        for runner in (*self._tiles.values(), *([self._crops] if self._crops else [])):
            runner.close()
        self._tiles.clear()
        self._crops = None

    def _told(self, runner: Runner) -> Runner:
        self.runtime, self.precision = runner.name, runner.precision
        return runner


class DenseClassifier(CompiledTask):
    """Images in, the probabilities of all classes at every window of a grid out.

    `classifier(image)` is the `DenseClassification` of one BGR image uint8 (H, W, 3), `classifier(images)` the list of
    those of several; a network of several heads gives a dict of them by head. Window (r, c) has its corner at
    (r, c) * stride of the resized image; what lies right of and below the last whole window is not looked at. The
    classes of the whole image are the mean of the probabilities over the map.

    Args:
        network: compiled when the first image comes.
        rule: normalises the pixels; how it resizes and cuts does not matter here.
        options: stride, exactness and size.
        labels: class names; by head where there are several.
        kept: what of the whole image's classes is kept.
        heads: the outputs to read, in this order; None is all.
        activation: `softmax` where the network gives logits, `none` where it gives probabilities.

    Attributes:
        stride: pixels of the resized image from window to window.
        exact: whether each window's answer is that of its crop.
        reason: why it is not, or why it is.

    Raises:
        UsageError: `stride-impossible`; `size-too-small` for a `short_side` below the window.
    """

    def __init__(
        self,
        network: DenseNetwork,
        rule: InputRule,
        options: DenseOptions | None = None,
        *,
        labels: Labels = (),
        kept: ClassifyOptions | None = None,
        heads: Sequence[str] | None = None,
        activation: Activation = "softmax",
    ) -> None:
        super().__init__(network)
        self.network, self.rule, self.labels, self.activation = network, rule, labels, activation
        self.options, self.kept = options or DenseOptions(), kept or ClassifyOptions()
        self.stride = check_stride(self.options.stride, network.grid.stride_hw)
        edge = network.grid.edge
        self.exact = self.options.exact or edge is None
        self.reason = "every crop is run" if self.options.exact else edge or "no layer pads its map"
        self._heads = None if heads is None else tuple(heads)
        side, least = self.options.short_side, min(network.grid.window_hw)
        if side is not None and side < least:
            raise UsageError(
                "size-too-small", f"The network's window is {_text(network.grid.window_hw)} pixels. Received: {side}."
            )

    @overload
    def __call__(self, images: Image) -> DenseAnswer: ...
    @overload
    def __call__(self, images: Sequence[Image]) -> list[DenseAnswer]: ...
    def __call__(self, images: Image | Sequence[Image]) -> DenseAnswer | list[DenseAnswer]:
        """The map of one image, or of each image of a list.

        Raises:
            ValueError: an image is not uint8 (H, W, 3).
            ModelError: `model-not-finite`; `frame-too-large` where an image so thin would have to be enlarged too far.
        """
        if not isinstance(images, np.ndarray):
            return [self(image) for image in images]
        size_hw = checked_size(images)
        resized_hw = self.resized(size_hw)
        spans = [Span(n, m, 0, m) for n, m in zip(size_hw, resized_hw, strict=True)]
        pixels = self.rule.normalize(resample(images, *spans))
        plan = self._plan(resized_hw)
        maps = self._crops(plan, pixels) if self.options.exact else self._tiles(plan, pixels)
        answers = {head: self._answer(probs, size_hw, resized_hw) for head, probs in maps.items()}
        return answers if len(answers) > 1 else next(iter(answers.values()))

    def describe(self) -> dict[str, str]:
        """Name, sha256, runtime and precision of the model, for a run's manifest."""
        network = self.network
        if network.runtime is None or network.precision is None:
            return dict(self.model)
        return {**self.model, "runtime": network.runtime, "precision": network.precision}

    def settings(self) -> dict[str, Any]:
        """What else the maps depend on: how the windows are run, their size and stride, and whether they are exact."""
        return {
            "mode": "crops" if self.options.exact else "dense",
            "window_hw": list(self.network.grid.window_hw),
            "stride": self.stride,
            "exact": self.exact,
            "reason": self.reason,
            "short_side": self.options.short_side,
        }

    def prepare(self, size_hw: Size) -> None:
        """Compile the network for images of a size, which else happens when the first one comes."""
        if self.options.exact:
            self.network.crops()
        else:
            self.network.tile(self._plan(self.resized(size_hw)).tile_hw)

    def resized(self, size_hw: Size) -> Size:
        """Height and width at which the windows of an image of `size_hw` are cut: it holds one window at least."""
        height, width = size_hw
        short, window = min(size_hw), self.network.grid.window_hw
        side = self.options.short_side or min(short, DEFAULT_SHORT_SIDE)
        scale = max(side / short, window[0] / height, window[1] / width)
        resized = max(window[0], round(height * scale)), max(window[1], round(width * scale))
        if resized[0] * resized[1] > MAX_IMAGE_PIXELS:
            raise ModelError(
                "frame-too-large",
                f"A frame of {_text(size_hw)} pixels would be run at {_text(resized)}, more than "
                f"{MAX_IMAGE_PIXELS:,} pixels. Crop it, or run it smaller (--imgsz).",
            )
        return resized

    def _plan(self, resized_hw: Size) -> DensePlan:
        grid = self.network.grid
        return DensePlan(resized_hw, grid.window_hw, grid.stride_hw, self.stride, self.options.max_tile_pixels)

    def _tiles(self, plan: DensePlan, pixels: Floats) -> dict[str, Floats]:
        """float32 (h, w, L) by head: the dense network on one tile after another."""
        runner, maps = self.network.tile(plan.tile_hw), dict[str, Floats]()
        tile = np.zeros((1, *plan.tile_hw, pixels.shape[2]), np.float32)
        for run in plan.passes():
            _cut(pixels, run.corner_yx, tile[0])
            for head, values in self._run(runner, tile).items():
                inside = values[0, : run.cells_hw[0], : run.cells_hw[1]]  # (rows, columns, L)
                self._put(maps, head, plan, run, self._probabilities(inside))
        return maps

    def _crops(self, plan: DensePlan, pixels: Floats) -> dict[str, Floats]:
        """float32 (h, w, L) by head: the classifier on one batch of crops after another."""
        runner, maps = self.network.crops(), dict[str, Floats]()
        rows, columns = plan.counts_hw
        batch = np.zeros((CROPS_AT_ONCE, *plan.window_hw, pixels.shape[2]), np.float32)
        for begin in range(0, rows * columns, CROPS_AT_ONCE):
            places = range(begin, min(begin + CROPS_AT_ONCE, rows * columns))
            for place, crop in zip(places, batch, strict=False):
                row, column = divmod(place, columns)
                _cut(pixels, (row * self.stride, column * self.stride), crop)
            for head, values in self._run(runner, batch).items():
                probs = self._probabilities(values[: len(places)])
                if head not in maps:
                    maps[head] = np.empty((rows, columns, probs.shape[-1]), np.float32)
                maps[head].reshape(rows * columns, -1)[places.start : places.stop] = probs
        return maps

    def _run(self, runner: Runner, inputs: Floats) -> dict[str, Floats]:
        (name,) = runner.inputs
        outputs = runner(**{name: inputs})
        heads = self._heads or tuple(runner.outputs)
        for head in heads:
            if not np.isfinite(outputs[head]).all():
                raise ModelError("model-not-finite", "the network's answer is not finite (NaN or infinity)")
        return {head: outputs[head] for head in heads}

    def _probabilities(self, values: Floats) -> Floats:
        """Of values (..., L)."""
        flat = np.ascontiguousarray(values, np.float32).reshape(-1, values.shape[-1])
        found = probabilities(flat, self.activation)
        return found.reshape(*values.shape[:-1], -1)

    def _put(self, maps: dict[str, Floats], head: str, plan: DensePlan, run: Pass, probs: Floats) -> None:
        if head not in maps:
            maps[head] = np.empty((*plan.counts_hw, probs.shape[-1]), np.float32)
        maps[head][run.rows, run.columns] = probs

    def _answer(self, probs: Floats, size_hw: Size, resized_hw: Size) -> DenseClassification:
        scale_y, scale_x = (n / m for n, m in zip(size_hw, resized_hw, strict=True))
        height, width = self.network.grid.window_hw
        return DenseClassification(
            probs=probs,
            x=((np.arange(probs.shape[1]) * self.stride + width / 2) * scale_x).astype(np.float32),
            y=((np.arange(probs.shape[0]) * self.stride + height / 2) * scale_y).astype(np.float32),
            window_hw=(height * scale_y, width * scale_x),
            overall=ranked(probs.mean(axis=(0, 1), dtype=np.float64).astype(np.float32), self.kept),
        )


def _cut(pixels: Floats, corner_yx: Size, out: Floats) -> None:
    """The part of an image (H, W, C) behind a corner into `out` (h, w, C); what lies outside is zero, the mean."""
    part = pixels[corner_yx[0] : corner_yx[0] + out.shape[0], corner_yx[1] : corner_yx[1] + out.shape[1]]
    if part.shape != out.shape:
        out[part.shape[0] :] = 0
        out[:, part.shape[1] :] = 0
    out[: part.shape[0], : part.shape[1]] = part


def _text(size_hw: Size) -> str:
    return f"{size_hw[1]} x {size_hw[0]}"
