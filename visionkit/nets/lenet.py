"""LeNet-5: LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, Proc. IEEE 1998.

Section II.B, with every map of C3 connected to every map of S2, and subsampling by the plain mean.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from visionkit.nets.blocks import Classes, classifier_head, image_input

__all__ = ["lenet5"]

# (convolution, its maps, the subsampling behind it)
MAPS = (("c1", 6, "s2"), ("c3", 16, "s4"), ("c5", 120, None))
UNITS = 84  # of F6
MINIMUM = 32  # leaves one position of C5


def lenet5(
    *,
    classes: Classes = 10,
    size_hw: tuple[int, int] | None = (MINIMUM, MINIMUM),
    channels: int = 1,
    activation: str = "tanh",
) -> keras.Model:
    """LeNet-5: `image` float32 (B, 32, 32, 1) -> `logits` (B, 10); 61,706 parameters.

    Args:
        classes: classes, or a mapping head -> classes, or None for the maps of C5.
        size_hw: height and width, at least 32; a larger image has C5 at more positions, and F6 sees them all.
        channels: of the image.
        activation: any of Keras's; the paper's is a scaled tanh.

    Raises:
        ValueError: an argument is out of range, or the size is open.
    """
    image = image_input("lenet5", size_hw, minimum=MINIMUM, channels=channels, fixed=classes is not None)
    x: Any = image
    for conv, maps, pool in MAPS:
        x = layers.Conv2D(maps, 5, activation=activation, name=conv)(x)
        if pool:
            x = layers.AveragePooling2D(2, name=pool)(x)
    if classes is None:
        return keras.Model(image, x, name="lenet5")
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(UNITS, activation=activation, name="f6")(x)
    return keras.Model(image, classifier_head(x, classes), name="lenet5")
