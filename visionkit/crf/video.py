"""The dense CRF over a video: it goes on from the last frame's marginals, carried along by optical flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.crf.engine import Engine, FastMeanField
from visionkit.crf.params import CRFParams
from visionkit.crf.unary import check_image, check_unary

__all__ = ["Flicker", "VideoCRF", "backward_flow", "flicker_index", "warp"]

Array = npt.NDArray[np.float32]
CUT = 0.5  # share of pixels whose flow fails from which on a frame is taken for the first of another scene
DIFFERENT = 24  # grey values between a pixel and the one the flow says it was, from which on the flow has failed there


def backward_flow(image: npt.NDArray[np.uint8], before: npt.NDArray[np.uint8]) -> Array:
    """Where each pixel of `image` (H, W, 3) was in `before`: float32 (H, W, 2), x and y in pixels relative to itself.

    Kroeger et al., Fast Optical Flow using Dense Inverse Search, ECCV 2016; OpenCV's, preset "fast".
    """
    flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    return np.asarray(flow.calc(_grey(image), _grey(before), None))


def warp(values: npt.NDArray[Any], flow: Array, *, nearest: bool = False) -> npt.NDArray[Any]:
    """`values` (H, W) or (H, W, L) fetched from where `flow` says each pixel was; beyond the edge: the edge's."""
    height, width = flow.shape[:2]
    grid = np.indices((height, width), np.float32)[::-1].transpose(1, 2, 0) + flow
    x, y = np.ascontiguousarray(grid[..., 0]), np.ascontiguousarray(grid[..., 1])
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    planes = np.atleast_3d(values)
    out = np.empty((height, width, planes.shape[2]), values.dtype)
    for i in range(0, planes.shape[2], 4):  # OpenCV remaps four channels at once at most
        part = np.ascontiguousarray(planes[..., i : i + 4])
        out[..., i : i + 4] = np.atleast_3d(cv2.remap(part, x, y, how, borderMode=cv2.BORDER_REPLICATE))
    return out.reshape(values.shape)


def flicker_index(
    labels: npt.NDArray[np.integer[Any]], before: npt.NDArray[np.integer[Any]], flow: Array, valid: npt.ArrayLike = True
) -> float:
    """Share of pixels whose label differs from the one the flow carries there from the frame before; 0 is steady.

    The temporal consistency of Liu et al., Efficient Semantic Video Segmentation with Per-frame Inference (ECCV 2020),
    compares labels with the last frame's, warped by optical flow, in the same way; it takes their mean IoU, here it is
    the share of pixels that differ, which needs no rule for absent classes. That pixels newly uncovered do not count is
    as in the warping error of Lai et al., Learning Blind Video Temporal Consistency (ECCV 2018).

    Args:
        labels, before: integer (H, W), this frame's and the last one's.
        flow: float32 (H, W, 2) of `backward_flow`.
        valid: bool (H, W), pixels that count (not those newly uncovered); nan where none does.
    """
    carried = warp(before.astype(np.float32), flow, nearest=True)
    counted = np.broadcast_to(np.asarray(valid, bool), labels.shape)
    if not counted.any():
        return float("nan")
    return float((carried.astype(np.int64) != labels)[counted].mean())


@dataclass
class Flicker:
    """The mean of the flicker index over a video: call it with each frame's image and labels.

    The flow is that of the images, the same whatever made the labels, so that two methods are measured alike; pixels
    where it fails (newly uncovered, or a cut) do not count.
    """

    total: float = 0.0
    frames: int = 0

    def __post_init__(self) -> None:
        self._before: tuple[npt.NDArray[np.uint8], npt.NDArray[Any]] | None = None

    def __call__(self, image: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer[Any]]) -> float | None:
        """The index between this frame and the last one; None for the first and after a cut."""
        before, self._before = self._before, (image, labels)
        if before is None or before[0].shape != image.shape:
            return None
        flow = backward_flow(image, before[0])
        valid = _agrees(image, before[0], flow)
        if valid.mean() < 1 - CUT:
            return None
        index = flicker_index(labels, before[1], flow, valid)
        self.total += index
        self.frames += 1
        return index

    @property
    def mean(self) -> float:
        """Over all pairs of frames so far; nan where there was none."""
        return self.total / self.frames if self.frames else float("nan")


class VideoCRF:
    """A dense CRF called with one frame after the other.

    The first frame, one of another size or number of labels, and one after a cut start from their unaries and get all
    iterations. Every other gets `warm_iterations` and starts from a mixture of its own probabilities and the last
    marginals, carried along by optical flow. The unary itself stays the frame's own, so that what changed is seen; yet
    a CRF with strong kernels holds on to labels that the unary hardly contradicts, a reason not to start from the
    carried marginals alone (`memory=1`).

    Args:
        params: default: CRFParams().
        warm_iterations: updates of a frame that follows another.
        memory: in [0, 1], the share of the carried marginals in the start. Where the flow fails it is 0.
        threads, engine: as of `FastMeanField`.
    """

    def __init__(
        self,
        params: CRFParams | None = None,
        *,
        warm_iterations: int = 2,
        memory: float = 0.5,
        threads: int | None = None,
        engine: Engine = "auto",
    ) -> None:
        if warm_iterations < 0:
            raise ValueError(f"`warm_iterations` must be at least 0. Received: warm_iterations={warm_iterations}.")
        if not 0 <= memory <= 1:
            raise ValueError(f"`memory` must lie in [0, 1]. Received: memory={memory}.")
        self.params = params or CRFParams()
        self.warm_iterations, self.memory = warm_iterations, float(memory)
        self.threads, self.engine = threads, engine
        self.warm = False
        self._before: tuple[npt.NDArray[np.uint8], Array] | None = None

    def reset(self) -> None:
        """Forget the last frame: the next one is the first of something else."""
        self._before = None

    def __call__(
        self, unary: npt.ArrayLike, image: npt.NDArray[np.uint8], *, field: FastMeanField | None = None
    ) -> Array:
        """Marginals float32 (H, W, L) of the next frame; `warm` says afterwards whether the last one was of use.

        Args:
            unary: (H, W, L).
            image: uint8 (H, W, 3) BGR.
            field: `prepare` of the image, which needs no other frame and may have been made in another thread.
        """
        costs = check_unary(unary)
        picture = check_image(image, costs.shape[:2])
        if picture.dtype != np.uint8 or picture.shape[2] not in (1, 3):
            raise ValueError(
                "`image` must be uint8 (H, W, 3) or (H, W, 1), for optical flow. "
                f"Received: shape={picture.shape}, dtype={picture.dtype}."
            )
        if field is None:
            field = self.prepare(picture)
        elif field.size_hw != costs.shape[:2] or field.params != self.params:
            raise ValueError(
                f"`field` must be made of this image by these parameters. Received: a field of {field.size_hw} with "
                f"{field.params}, an image of {costs.shape[:2]} and {self.params}."
            )
        carried = self._carried(picture, costs.shape)
        self.warm = carried is not None
        if carried is None:
            q = field(costs)
        else:
            before, trusted = carried
            share = (np.float32(self.memory) * trusted)[..., None]
            own = field(costs, iterations=0)
            before -= own  # own + share * (before - own), in the carried marginals' memory
            before *= share
            before += own
            q = field(costs, initial=before, iterations=self.warm_iterations)
        self._before = (np.array(picture), q)
        return q

    def prepare(self, image: npt.NDArray[np.uint8]) -> FastMeanField:
        """The field of a frame (H, W, 3), its lattice built: of a few updates about half of the work."""
        return FastMeanField(image, self.params, threads=self.threads, engine=self.engine)

    def _carried(self, image: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> tuple[Array, Array] | None:
        if self._before is None or self._before[1].shape != shape or self._before[0].shape != image.shape:
            return None
        if min(shape[:2]) < 16:  # DIS needs a patch or two
            return None
        before, q = self._before
        flow = backward_flow(image, before)
        trusted = _agrees(image, before, flow).astype(np.float32)
        if trusted.mean() < 1 - CUT:
            return None
        return warp(q, flow), trusted


def _agrees(image: npt.NDArray[np.uint8], before: npt.NDArray[np.uint8], flow: Array) -> npt.NDArray[np.bool_]:
    """Pixels (H, W) that look like what the flow says they were, and were inside of the frame."""
    height, width = flow.shape[:2]
    y, x = np.indices((height, width))
    inside = (
        (x + flow[..., 0] > -1) & (x + flow[..., 0] < width) & (y + flow[..., 1] > -1) & (y + flow[..., 1] < height)
    )
    carried = warp(_grey(before).astype(np.float32), flow)
    return np.asarray((np.abs(carried - _grey(image)) < DIFFERENT) & inside)


def _grey(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if image.shape[2] == 1:
        return np.ascontiguousarray(image[..., 0])
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
