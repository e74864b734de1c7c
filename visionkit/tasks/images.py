"""What every task checks of the images and boxes it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.geometry.boxes import box_sizes, clip_boxes

__all__ = ["checked_box", "checked_size"]


def checked_size(image: npt.NDArray[Any]) -> tuple[int, int]:
    """Height and width of an image, which must be uint8 (H, W, 3)."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f"shape={np.shape(image)}, dtype={getattr(image, 'dtype', type(image).__name__)}"
        raise ValueError(f"`image` must be uint8 (H, W, 3). Received: {got}.")
    if 0 in image.shape:
        raise ValueError(f"`image` must have at least one pixel. Received: shape={image.shape}.")
    return int(image.shape[0]), int(image.shape[1])


def checked_box(xyxy: npt.ArrayLike, size_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
    """A box float32 (4,) xyxy cut to the image; some of it must lie inside."""
    box = np.asarray(xyxy, np.float32)
    if box.shape != (4,) or not np.isfinite(box).all():
        raise ValueError(f"`xyxy` must be four finite numbers. Received: xyxy={xyxy!r}.")
    inside = clip_boxes(box, size_hw)
    if not (box_sizes(inside) > 0).all():
        raise ValueError(
            f"`xyxy` must have some area inside the image of {size_hw[1]} x {size_hw[0]} pixels. "
            f"Received: xyxy={box.tolist()}."
        )
    return inside
