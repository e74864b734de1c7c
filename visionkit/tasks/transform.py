"""What a spatial transformer chose: from its theta, and the rule that made its input, to a region of the image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.geometry.homography import apply_homography, size_corners, theta_to_homography
from visionkit.geometry.transformer import CONTROL, TRANSFORMS, theta_size, transform_points
from visionkit.structures import Rectified
from visionkit.tasks.images import checked_size
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.warp import warp, warp_along

if TYPE_CHECKING:
    import keras

__all__ = ["THETA", "TransformRule", "with_theta"]

THETA = "theta"  # the layer that holds it, and the network's output
EDGE = 24  # points a side of an outline that may be bent

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TransformRule:
    """Where the pixels of a transformer's output come from in an image of any size.

    Of the transformers that read the network's input; what one inside the network looks at is not told.

    Args:
        rule: made the network's input of the image.
        transform: `affine`, `attention`, `projective` or `tps`.
        align_corners: as the transformer has it.
        control: rows and columns of a spline's control points.
        output_hw: of the transformer's output; None takes the size of the network's input.
    """

    rule: InputRule
    transform: str = "affine"
    align_corners: bool = False
    control: tuple[int, int] = CONTROL
    output_hw: tuple[int, int] | None = None

    @classmethod
    def of_network(cls, rule: InputRule, args: Mapping[str, Any], size: int) -> TransformRule:
        """The rule of a network whose theta has `size` numbers; `args` are those of its function in the card.

        Raises:
            ModelError: `transform-unknown`.
        """
        rows, columns = args.get("control", CONTROL)
        control = (int(rows), int(columns))
        given = args.get("transform")
        kinds = [given] if given in TRANSFORMS else [name for name in TRANSFORMS if theta_size(name, control) == size]
        if not kinds or size % theta_size(kinds[0], control):
            raise ModelError(
                "transform-unknown",
                f"the network's theta has {size} numbers, which is no theta of {', '.join(kinds or TRANSFORMS)}",
            )
        view = args.get("view_hw")
        output_hw = None if view is None else (view, view) if isinstance(view, int) else (int(view[0]), int(view[1]))
        return cls(rule, kinds[0], bool(args.get("align_corners", False)), control, output_hw)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Of the transformer's output."""
        return self.output_hw or self.rule.size_hw

    def thetas(self, theta: npt.ArrayLike) -> Floats:
        """The thetas (K, n) of one image: a network may have several transformers side by side.

        Raises:
            ModelError: `model-not-finite`.
        """
        numbers = np.asarray(theta, np.float64).reshape(-1, theta_size(self.transform, self.control))
        if not np.isfinite(numbers).all():
            raise ModelError("model-not-finite", "the transformer's theta is not finite (NaN or infinity)")
        return numbers

    def homography(self, theta: npt.ArrayLike, image_hw: tuple[int, int], size_hw: tuple[int, int]) -> Floats | None:
        """The matrix (3, 3) from continuous pixels of a crop of `size_hw` to those of the image; None for a spline.

        Raises:
            ModelError: `region-unfit`; the crop reaches over the horizon of the plane it would straighten.
        """
        if self.transform == "tps":
            return None
        seen = theta_to_homography(theta, self.rule.size_hw, size_hw, align_corners=self.align_corners)
        found = self._to_image(image_hw) @ seen
        below = np.column_stack([size_corners(size_hw), np.ones(4)]) @ found[2]
        if not (np.isfinite(found).all() and (below > 1e-9 * np.abs(below).max()).all()):
            raise ModelError("region-unfit", "the transformer's region reaches over the horizon; it is no crop")
        return np.asarray(found)

    def places(
        self, theta: npt.ArrayLike, points: npt.ArrayLike, image_hw: tuple[int, int], size_hw: tuple[int, int]
    ) -> Floats:
        """Where continuous points (P, 2) xy of a crop lie in the image, (P, 2)."""
        out = _spread(size_hw, self.align_corners)
        seen = _spread(self.rule.size_hw, self.align_corners)
        moved = transform_points(theta, (np.asarray(points) - out[0]) / out[1], self.transform, self.control)
        return apply_homography(self._to_image(image_hw), moved * seen[1] + seen[0])

    def outline(self, theta: npt.ArrayLike, image_hw: tuple[int, int]) -> Floats:
        """The region's edge in the image, (P, 2) xy: four corners, or a bent line from corner to corner."""
        corners = size_corners(self.size_hw)
        if self.transform != "tps":
            return apply_homography(np.asarray(self.homography(theta, image_hw, self.size_hw)), corners)
        steps = np.linspace(0, 1, EDGE, endpoint=False)[:, None]
        edge = np.concatenate([a + steps * (b - a) for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)])
        return self.places(theta, edge, image_hw, self.size_hw)

    def rectified(
        self, image: Image, theta: npt.ArrayLike, size_hw: tuple[int, int] | None = None, **how: Any
    ) -> Rectified:
        """The region of an image that one theta (n,) says, as a crop.

        Args:
            size_hw: of the crop; None is the size of the transformer's output.
            how: `antialias` and `border` as `visionkit.tasks.warp.warp`.

        Raises:
            ModelError: `region-unfit`.
        """
        image_hw, size_hw = checked_size(image), size_hw or self.size_hw
        outline, matrix = self.outline(theta, image_hw), self.homography(theta, image_hw, size_hw)
        if matrix is not None:
            return Rectified(warp(image, matrix, size_hw, **how), outline, matrix)
        crop = warp_along(image, lambda p: self.places(theta, p, image_hw, size_hw), size_hw, **how)
        return Rectified(crop, outline)

    def look(self, image: Image, theta: npt.ArrayLike) -> Rectified:
        """As `rectified`, with the pixels that the network sees: cut out of its input, black where that ends.

        Raises:
            ModelError: `region-unfit`.
        """
        image_hw, size_hw, seen = checked_size(image), self.size_hw, self.rule.pixels(image)
        outline, matrix = self.outline(theta, image_hw), self.homography(theta, image_hw, size_hw)
        into = np.linalg.inv(self._to_image(image_hw))
        if matrix is not None:
            return Rectified(warp(seen, into @ matrix, size_hw), outline, matrix)
        crop = warp_along(seen, lambda p: apply_homography(into, self.places(theta, p, image_hw, size_hw)), size_hw)
        return Rectified(crop, outline)

    def _to_image(self, image_hw: tuple[int, int]) -> Floats:
        """From pixels of the network's input to those of the image."""
        x1, y1, x2, y2 = self.rule.window(image_hw)
        height, width = self.rule.size_hw
        return np.array([[(x2 - x1) / width, 0, x1], [0, (y2 - y1) / height, y1], [0, 0, 1]])


def _spread(size_hw: tuple[int, int], align_corners: bool) -> tuple[Floats, Floats]:
    """Middle and half width (2,) xy, in continuous pixels, of what -1 and 1 stand for."""
    size = np.array([size_hw[1], size_hw[0]], np.float64)
    return size / 2, (size - align_corners) / 2


def with_theta(model: keras.Model, name: str, *, alone: bool = False) -> keras.Model:
    """The network with the output of its layer `theta` beside its own, or alone.

    The thetas of several transformers side by side (`theta`, `theta_2` …) are one after the other.

    Raises:
        ModelError: `no-transformer`.
    """
    from visionkit.runtime.quiet import import_keras

    keras = import_keras()
    found = [layer.output for layer in model.layers if re.fullmatch(rf"{THETA}(_\d+)?", layer.name)]
    if not found:
        inside = any(layer.name.startswith(f"{THETA}_inside") for layer in model.layers)
        why = (
            "its only spatial transformer is inside of the network and looks at feature maps, which are no region of "
            "the image."
            if inside
            else f"has no layer called '{THETA}': there is no spatial transformer in its network."
        )
        raise ModelError("no-transformer", f"{name}{':' if inside else ''} {why}")
    theta = found[0] if len(found) == 1 else keras.layers.Concatenate(name="thetas")(found)
    if alone:
        return keras.Model(model.input, {THETA: theta})
    own = model.output
    return keras.Model(model.input, {**(own if isinstance(own, dict) else {"logits": own}), THETA: theta})
