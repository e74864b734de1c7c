"""Rectifying: a region that the camera saw at a slant, as a straight crop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError, UsageError
from visionkit.geometry.homography import corner_homography, size_corners
from visionkit.structures import Rectified
from visionkit.tasks.compiled import CompiledTask
from visionkit.tasks.images import checked_box, checked_size
from visionkit.tasks.transform import THETA, TransformRule
from visionkit.tasks.warp import BORDERS, MAX_SIDE, warp

if TYPE_CHECKING:
    from visionkit.runtime import Runner

__all__ = ["CORNER_ORDER", "BoxRectifier", "CornerRectifier", "Rectifier", "TransformerRectifier", "checked_crop_size"]

CORNER_ORDER = "top left, top right, bottom right, bottom left"
MAX_PIXELS = 100_000_000  # of a crop
ASPECT = 0.02  # how far height by width of a frame may be from that of the frame the corners were given for

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


class Rectifier:
    """One contract for whatever knows the region: `rectifier(image)` is the `Rectified`, a list gives a list.

    Args:
        size_hw: of the crops; None is for the rectifier to say.
        antialias: average what a pixel of the crop covers, where the crop is much smaller than the region.
        border: what a crop shows outside of the image: `zero` is black, `clamp` the nearest pixel of the image's edge.
    """

    def __init__(
        self, size_hw: tuple[int, int] | None = None, *, antialias: bool = False, border: str = "zero"
    ) -> None:
        if border not in BORDERS:
            raise ValueError(f"`border` must be one of {', '.join(BORDERS)}. Received: border={border!r}.")
        self.size_hw = None if size_hw is None else checked_crop_size(size_hw)
        self.antialias, self.border = antialias, border

    @overload
    def __call__(self, images: Image) -> Rectified: ...
    @overload
    def __call__(self, images: Sequence[Image]) -> list[Rectified]: ...
    def __call__(self, images: Image | Sequence[Image]) -> Rectified | list[Rectified]:
        """The region of one BGR image uint8 (H, W, 3), or of each image of a list.

        Raises:
            ValueError: an image is not uint8 (H, W, 3).
            ModelError: there is no such region in the image.
        """
        if isinstance(images, np.ndarray):
            return self.whole(images)
        return [self.whole(image) for image in images]

    def whole(self, image: Image) -> Rectified:
        """The region of an image."""
        raise NotImplementedError

    def inside(self, image: Image, xyxy: npt.NDArray[np.float32]) -> Rectified:
        """The region of an image that lies in a box float32 (4,) xyxy."""
        raise ValueError(f"{type(self).__name__} does not look into boxes.")

    def check(self, size_hw: tuple[int, int]) -> None:
        """Refuse a first image of this size, before any is worked on."""

    def describe(self) -> dict[str, Any] | None:
        """Of the model, for a run's manifest; None without one."""
        return None

    def settings(self) -> dict[str, Any]:
        """What else the crops depend on."""
        size_hw = None if self.size_hw is None else list(self.size_hw)
        return {"size_hw": size_hw, "antialias": self.antialias, "border": self.border}

    def _warp(self, image: Image, matrix: Floats, size_hw: tuple[int, int]) -> Image:
        return warp(image, matrix, size_hw, antialias=self.antialias, border=self.border)

    def close(self) -> None:
        """Give a network's memory back."""


class CornerRectifier(Rectifier):
    """The region between four corners.

    The corners belong to images of one size, that of the first. An image of the same shape and another size is taken
    for the same view, larger or smaller, and the corners with it.

    Args:
        corners: (4, 2) xy in absolute pixels: where the crop's top left, top right, bottom right and bottom left
            corners lie; outside of the image too.
        size_hw: of the crop; None is the length of the region's longer sides.
        how: `antialias` and `border` as `Rectifier`.

    Raises:
        UsageError: `bad-corners`, `size-too-large`.
    """

    def __init__(self, corners: npt.ArrayLike, size_hw: tuple[int, int] | None = None, **how: Any) -> None:
        self.corners = checked_corners(corners)
        super().__init__(_longer_sides(self.corners) if size_hw is None else size_hw, **how)
        self._matrix = corner_homography(self.corners, self._size)
        self._image_hw: tuple[int, int] | None = None

    @property
    def _size(self) -> tuple[int, int]:
        if self.size_hw is None:
            raise RuntimeError("the size of the crops is known from the start")
        return self.size_hw

    def check(self, size_hw: tuple[int, int]) -> None:
        """Take `size_hw` for the size that the corners belong to.

        Raises:
            UsageError: `corners-outside`; nothing of the region is inside.
        """
        if self.outside(size_hw) >= 1:
            height, width = size_hw
            raise UsageError(
                "corners-outside",
                f"The corners {_told(self.corners)} enclose nothing of the first frame, which is {width} wide and "
                f"{height} high.",
            )
        self._image_hw = size_hw

    def outside(self, size_hw: tuple[int, int]) -> float:
        """The share of the region that lies outside of an image of this size, 0 to 1."""
        whole = self.corners.astype(np.float32)
        shared, _ = cv2.intersectConvexConvex(whole, size_corners(size_hw).astype(np.float32))
        share = 1 - shared / _area(self.corners)
        return 1.0 if shared <= 0 else 0.0 if share < 1e-6 else float(share)

    def whole(self, image: Image) -> Rectified:
        """The region of an image.

        Raises:
            ModelError: `frame-unfit`; the image has not the shape of the first.
        """
        size_hw = checked_size(image)
        if self._image_hw is None:
            self.check(size_hw)
        matrix, corners = self._matrix, self.corners
        if self._image_hw is not None and size_hw != self._image_hw:
            scale = self._scale(size_hw, self._image_hw)
            matrix, corners = np.diag([*scale, 1.0]) @ matrix, corners * scale
        return Rectified(self._warp(image, matrix, self._size), corners, matrix)

    def settings(self) -> dict[str, Any]:
        """Corners, size, averaging."""
        return {"corners": self.corners.tolist(), **super().settings()}

    def _scale(self, size_hw: tuple[int, int], first_hw: tuple[int, int]) -> Floats:
        scale = np.array([size_hw[1] / first_hw[1], size_hw[0] / first_hw[0]])
        if abs(scale[0] / scale[1] - 1) > ASPECT:
            raise ModelError(
                "frame-unfit",
                f"the corners are for frames of {first_hw[1]} x {first_hw[0]}; this one, {size_hw[1]} x {size_hw[0]}, "
                "has another shape",
            )
        return scale


class BoxRectifier(Rectifier):
    """Upright boxes as crops of one size, as between a detector and a classifier without a transformer.

    Args:
        size_hw: of the crops.
        how: `antialias`, which is on, and `border` as `Rectifier`.
    """

    def __init__(self, size_hw: tuple[int, int], **how: Any) -> None:
        super().__init__(size_hw, **{"antialias": True, **how})

    def whole(self, image: Image) -> Rectified:
        """All of the image."""
        height, width = checked_size(image)
        return self.inside(image, np.array([0, 0, width, height], np.float32))

    def inside(self, image: Image, xyxy: npt.NDArray[np.float32]) -> Rectified:
        """A box of an image."""
        x1, y1, x2, y2 = checked_box(xyxy, checked_size(image)).tolist()
        corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
        size_hw = self.size_hw or (1, 1)
        matrix = corner_homography(corners, size_hw)
        return Rectified(self._warp(image, matrix, size_hw), corners, matrix)


class TransformerRectifier(CompiledTask, Rectifier):
    """The region that a trained spatial transformer looks at.

    Args:
        runner: the localisation network: one image (B, h, w, C) in, `theta` (B, n) out.
        transform: how an image becomes its input, and what theta means.
        size_hw: of the crops; None is the size of the transformer's output.
        how: `antialias` and `border` as `Rectifier`.

    Attributes:
        index: which transformer, where the network has several side by side.
    """

    def __init__(
        self,
        runner: Runner,
        transform: TransformRule,
        size_hw: tuple[int, int] | None = None,
        **how: Any,
    ) -> None:
        CompiledTask.__init__(self, runner)
        Rectifier.__init__(self, size_hw or transform.size_hw, **how)
        self.runner, self.transform, self.index = runner, transform, 0
        (self._input,) = runner.inputs.values()

    def whole(self, image: Image) -> Rectified:
        """The region of an image.

        Raises:
            ModelError: `region-unfit`, `model-not-finite`.
        """
        return self._rectified(image)

    def inside(self, image: Image, xyxy: npt.NDArray[np.float32]) -> Rectified:
        """The region of a box: the transformer sees nothing but its pixels, the crop may reach beyond."""
        x1, y1, x2, y2 = checked_box(xyxy, checked_size(image)).tolist()
        left, top = math.floor(x1), math.floor(y1)
        part = image[top : max(math.ceil(y2), top + 1), left : max(math.ceil(x2), left + 1)]
        found = self._rectified(part)
        outline = found.outline + np.array([left, top])
        if found.homography is None:
            return Rectified(found.image, outline)
        matrix = np.array([[1.0, 0, left], [0, 1, top], [0, 0, 1]]) @ found.homography
        return Rectified(self._warp(image, matrix, found.size_hw), outline, matrix)

    def _rectified(self, image: Image) -> Rectified:
        how: dict[str, Any] = {"antialias": self.antialias, "border": self.border}
        return self.transform.rectified(image, self.theta(image), self.size_hw, **how)

    def theta(self, image: Image) -> Floats:
        """What the localisation network says of an image, (n,)."""
        inputs = np.zeros(tuple(int(n or 1) for n in self._input.shape), np.float32)
        inputs[0] = self.transform.rule(image)
        found = self.runner(**{self._input.name: inputs})[THETA]
        return np.asarray(self.transform.thetas(found[0])[self.index])

    def describe(self) -> dict[str, Any]:
        """Name, sha256, runtime and precision of the model."""
        return dict(self.model)

    def settings(self) -> dict[str, Any]:
        """Transform, size, averaging."""
        rule = self.transform.rule
        how = {"transform": self.transform.transform, "input_hw": list(rule.size_hw), "resize": rule.resize}
        return {**how, **Rectifier.settings(self)}

    def close(self) -> None:
        """Give the network's memory back."""
        CompiledTask.close(self)


def checked_corners(corners: npt.ArrayLike) -> Floats:
    """Four corners (4, 2) xy of a convex region, clockwise as one looks at the image.

    Raises:
        UsageError: `bad-corners`.
    """
    points = np.asarray(corners, np.float64)
    if points.shape != (4, 2) or not np.isfinite(points).all() or np.abs(points).max() > 1e6:
        raise _bad(f"four points, none further away than a million pixels. Received: {points.tolist()}")
    told = f"Received: {_told(points)}"
    sides = np.roll(points, -1, axis=0) - points
    ahead = np.roll(sides, -1, axis=0)
    turns = sides[:, 0] * ahead[:, 1] - sides[:, 1] * ahead[:, 0]
    # How far each corner is from the line through its neighbours: below a hundredth of a pixel it is on the line.
    bases = np.linalg.norm(np.roll(points, 1, axis=0) - np.roll(points, -1, axis=0), axis=1)
    heights = np.abs(np.roll(turns, 1)) / np.maximum(bases, 1e-12)
    if heights.min() < 0.01:
        raise _bad(f"four corners, no three of them on a line. {told}")
    if (turns < 0).all():
        raise _bad(
            f"the corners clockwise, in the order {CORNER_ORDER}; these go round the other way, and the crop would be "
            f"mirrored. {told}"
        )
    if not (turns > 0).all():
        raise _bad(f"the corners of a convex region one after the other, in the order {CORNER_ORDER}. {told}")
    if _area(points) < 1:
        raise _bad(f"a region of at least one pixel. {told}")
    return points


def checked_crop_size(size_hw: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a crop.

    Raises:
        ValueError: they are not positive integers.
        UsageError: `size-too-large`.
    """
    height, width = size_hw
    if min(height, width) < 1 or int(height) != height or int(width) != width:
        raise ValueError(f"`size_hw` must be two positive integers. Received: size_hw={size_hw!r}.")
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise UsageError(
            "size-too-large",
            f"A crop may have sides of up to {MAX_SIDE:,} and {MAX_PIXELS // 10**6} million pixels. Received: {width} "
            f"wide and {height} high; give a smaller size.",
        )
    return int(height), int(width)


def _longer_sides(corners: Floats) -> tuple[int, int]:
    """Height and width that lose nothing along the region's sides."""
    top, right, bottom, left = np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1).tolist()
    return max(1, round(max(left, right))), max(1, round(max(top, bottom)))


def _area(corners: Floats) -> float:
    x, y = corners.T
    return float(0.5 * (x * np.roll(y, -1) - np.roll(x, -1) * y).sum())


def _told(corners: Floats) -> str:
    return ",".join(f"{number:g}" for number in corners.ravel())


def _bad(expected: str) -> UsageError:
    return UsageError("bad-corners", f"Rectifying expected {expected}.")
