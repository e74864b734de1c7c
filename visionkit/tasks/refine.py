"""A dense CRF behind a segmentation network: probabilities and the image in, refined probabilities out."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.missing import need

if TYPE_CHECKING:
    from visionkit.crf import CRFParams, FastMeanField, VideoCRF

__all__ = ["MAX_CRF_PIXELS", "Prepared", "Refiner", "VideoRefiner", "warm_iterations"]

Floats = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
Size = tuple[int, int]

MAX_CRF_PIXELS = 1 << 21  # 1920 x 1080 and a little
WARM_SHARE = 0.4  # of the updates, where the start is the frame before


@dataclass(frozen=True, eq=False)
class Prepared:
    """All of a frame's CRF that needs no other frame.

    Args:
        unary: float32 (h, w, L), at the size the CRF works at.
        colors: uint8 (h, w, 3) RGB.
        field: of `colors`.
        shape: (H, W, L) of the answer.
    """

    unary: Floats
    colors: Image
    field: FastMeanField
    shape: tuple[int, ...]


class Refiner:
    """The dense CRF at the image's own size, where its edges are; larger images than `max_pixels` at a smaller one.

    Args:
        params: widths are in pixels of the image.
        threads: None is all cores.
        max_pixels: of the CRF.

    Attributes:
        on_compile: called once, before the first CRF that compiles its loops, which takes seconds once on a machine.
    """

    def __init__(self, params: CRFParams, *, threads: int | None = None, max_pixels: int = MAX_CRF_PIXELS) -> None:
        need("A dense CRF", "numba", "scipy")
        self.params, self.threads, self.max_pixels = params, threads, max_pixels
        self.on_compile: Callable[[], None] | None = None
        self._telling = threading.Lock()

    def __call__(self, probs: Floats, image: Image) -> Floats:
        """Marginals float32 (H, W, L) of probabilities (H, W, L) over an image uint8 (H, W, 3) BGR."""
        ready = self.prepare(probs, image)
        return self.enlarged(ready.field(ready.unary), ready.shape)

    def prepare(self, probs: Floats, image: Image) -> Prepared:
        """The unary and the lattice of probabilities (H, W, L) over an image uint8 (H, W, 3) BGR."""
        from visionkit.crf import FastMeanField, unary_from_probs

        small, colors, params = self.inputs(probs, image)
        self._tell(colors.shape[0] * colors.shape[1])
        field = FastMeanField(colors, params, threads=self.threads)
        return Prepared(unary_from_probs(small), colors, field, probs.shape)

    def video(self) -> VideoRefiner:
        """The same over the frames of a video in order, each starting from the one before."""
        return VideoRefiner(self)

    def inputs(self, probs: Floats, image: Image) -> tuple[Floats, Image, CRFParams]:
        """Probabilities, image in RGB and parameters at the size the CRF works at."""
        size_hw = self.size_of((image.shape[0], image.shape[1]))
        colors = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
        if size_hw == image.shape[:2]:
            return probs, colors, self.params
        small = resized(probs, size_hw, cv2.INTER_AREA)
        colors = np.asarray(cv2.resize(colors, size_hw[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        return small, colors, scaled(self.params, size_hw[0] / image.shape[0])

    def _tell(self, pixels: int) -> None:
        with self._telling:
            told, due = self.on_compile, self.on_compile is not None and _compiles(pixels)
            if due:
                self.on_compile = None
        if told is not None and due:
            told()

    def enlarged(self, marginals: Floats, shape: tuple[int, ...]) -> Floats:
        """Marginals at the size of the image again, `shape` being (H, W, L)."""
        return marginals if marginals.shape == shape else resized(marginals, (shape[0], shape[1]), cv2.INTER_LINEAR)

    def size_of(self, size_hw: Size) -> Size:
        """Height and width at which images of a size are refined."""
        shrink = min(1.0, math.sqrt(self.max_pixels / (size_hw[0] * size_hw[1])))
        if shrink == 1:
            return size_hw
        return max(1, int(size_hw[0] * shrink)), max(1, int(size_hw[1] * shrink))

    def settings(self, size_hw: Size) -> dict[str, Any]:
        """The parameters, and the size, for a run's manifest."""
        return {**dataclasses.asdict(self.params), "size_hw": list(self.size_of(size_hw))}


class VideoRefiner:
    """A refiner called with one frame of a video after the other; each starts from the marginals of the one before.

    They are carried along by optical flow (`visionkit.crf.VideoCRF`), so that two fifths of the updates do. A frame
    behind a cut, a change of size or a `reset` gets all of them and starts from its own probabilities.
    """

    def __init__(self, refiner: Refiner) -> None:
        self._refiner = refiner
        self._field: VideoCRF | None = None

    def __call__(self, probs: Floats, image: Image) -> Floats:
        """Marginals float32 (H, W, L) of the next frame's probabilities (H, W, L) and image uint8 (H, W, 3) BGR."""
        return self.settle(self.prepare(probs, image))

    def prepare(self, probs: Floats, image: Image) -> Prepared:
        """What may be done of any frame, in any thread, before its turn."""
        return self._refiner.prepare(probs, image)

    def settle(self, ready: Prepared) -> Floats:
        """Marginals float32 (H, W, L) of the next frame."""
        from visionkit.crf import VideoCRF

        params = ready.field.params  # they go with the size
        if self._field is None or self._field.params != params:
            updates = warm_iterations(params.iterations)
            self._field = VideoCRF(params, warm_iterations=updates, threads=self._refiner.threads)
        # RGB, for `theta_beta` may be one number a channel; to optical flow either order is grey.
        found = self._field(ready.unary, ready.colors, field=ready.field)
        return self._refiner.enlarged(found, ready.shape)

    @property
    def warm(self) -> bool:
        """Whether the last frame started from the one before it."""
        return self._field is not None and self._field.warm

    def reset(self) -> None:
        """Forget the last frame: the next one is the first of something else."""
        if self._field is not None:
            self._field.reset()


def _compiles(pixels: int) -> bool:
    """Whether a CRF of so many pixels compiles its loops first."""
    from visionkit.crf import must_compile
    from visionkit.crf.engine import EXACT_PIXELS

    return pixels > EXACT_PIXELS and must_compile()


def warm_iterations(iterations: int) -> int:
    """Updates of a frame that follows another, of a CRF that makes so many for a single image."""
    return math.ceil(WARM_SHARE * iterations)


def resized(planes: Floats, size_hw: Size, how: int) -> Floats:
    """Each channel of (H, W, L) at another size, contiguous."""
    out = np.empty((*size_hw, planes.shape[2]), np.float32)
    for place in range(planes.shape[2]):
        out[..., place] = cv2.resize(np.ascontiguousarray(planes[..., place]), size_hw[::-1], interpolation=how)
    return out


def scaled(params: CRFParams, ratio: float) -> CRFParams:
    """The same CRF for an image `ratio` times as large: widths in pixels shrink with it."""
    changed: dict[str, Any] = {}
    for name in ("theta_alpha", "theta_gamma"):
        width = getattr(params, name)
        changed[name] = tuple(ratio * part for part in width) if isinstance(width, tuple) else ratio * width
    return dataclasses.replace(params, **changed)
