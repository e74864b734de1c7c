"""The feature pyramid: maps of a backbone, each given what the coarser ones know.

Lin, Dollar, Girshick, He, Hariharan, Belongie, Feature pyramid networks for object detection, CVPR 2017, section 3 and
figure 3, with torchvision's names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers

from visionkit.nets.blocks import conv, conv_norm

__all__ = ["CHANNELS", "feature_pyramid"]

CHANNELS = 256


def feature_pyramid(maps: Sequence[Any], *, prefix: str, normalized: bool = False, epsilon: float = 1e-5) -> list[Any]:
    """A map of 256 channels for each of `maps`, and one more of half the last one's size.

    Args:
        maps: (B, h, w, C), fine to coarse; each is of the size of the one before, or half of it.
        prefix: what the names of all layers begin with, such as `backbone.fpn.`.
        normalized: whether a batch normalisation follows each convolution.
        epsilon: of the normalisations.
    """

    def block(x: Any, kernel: int, name: str) -> Any:
        name, padding = f"{prefix}{name}", kernel // 2
        if not normalized:
            return conv(x, CHANNELS, kernel, name=f"{name}.0", padding=padding, bias=True)
        names = (f"{name}.0", f"{name}.1")
        return conv_norm(x, CHANNELS, kernel, names=names, padding=padding, activation=None, epsilon=epsilon)

    merged = [block(maps[-1], 1, f"inner_blocks.{len(maps) - 1}")]
    for level in reversed(range(len(maps) - 1)):
        lateral, above = block(maps[level], 1, f"inner_blocks.{level}"), merged[0]
        if above.shape[1:3] != lateral.shape[1:3]:
            above = layers.UpSampling2D(2, name=f"{prefix}up.{level}")(above)
        merged.insert(0, layers.Add(name=f"{prefix}add.{level}")([lateral, above]))
    pyramid = [block(x, 3, f"layer_blocks.{level}") for level, x in enumerate(merged)]
    # every other position of the coarsest map, for anchors that are larger still
    return [*pyramid, layers.MaxPooling2D(1, 2, name=f"{prefix}extra_blocks")(pyramid[-1])]
