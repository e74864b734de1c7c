"""SiamFC: the fully convolutional Siamese network for tracking, at the paper's sizes.

Bertinetto, Valmadre, Henriques, Vedaldi, Torr, Fully-convolutional Siamese networks for object tracking, ECCVW 2016,
table 1; batch normalisation and the final gain as in the authors' code.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import layers

from visionkit.layers.correlation import CrossCorrelation

__all__ = ["EXEMPLAR_SIZE", "SEARCH_SIZE", "STRIDE", "siamfc", "siamfc_branch", "siamfc_exemplar", "siamfc_search"]

EXEMPLAR_SIZE = 127
SEARCH_SIZE = 255
STRIDE = 8
GAIN = 1e-3  # the responses are sums over 9216 products


class _Conv(NamedTuple):
    """One convolution of the branch, and the pooling behind it."""

    channels: int
    kernel: int
    stride: int = 1
    groups: int = 1
    last: bool = False
    pool: bool = False


CONVOLUTIONS = (
    _Conv(96, 11, stride=2, pool=True),
    _Conv(256, 5, groups=2, pool=True),
    _Conv(384, 3),
    _Conv(384, 3, groups=2),
    _Conv(256, 3, groups=2, last=True),
)


def siamfc_branch() -> keras.Model:
    """The branch: RGB float32 (B, H, W, 3) in 0-255 -> features of stride 8: 127 -> (B, 6, 6, 256), 255 -> 22 x 22.

    There is no padding, so that a shift of the image by 8 pixels shifts the features by one.
    """
    image = keras.Input((None, None, 3), name="image")
    x: Any = image
    for i, conv in enumerate(CONVOLUTIONS, 1):
        x = layers.Conv2D(conv.channels, conv.kernel, conv.stride, groups=conv.groups, name=f"conv{i}")(x)
        if not conv.last:
            x = layers.BatchNormalization(epsilon=1e-5, momentum=0.95, name=f"bn{i}")(x)
            x = layers.ReLU(name=f"relu{i}")(x)
        if conv.pool:
            x = layers.MaxPooling2D(3, 2, name=f"pool{i}")(x)
    return keras.Model(image, x, name="branch")


def siamfc(*, exemplar_size: int = EXEMPLAR_SIZE, search_size: int = SEARCH_SIZE) -> keras.Model:
    """The whole network: `exemplar` (B, 127, 127, 3) and `search` (B, 255, 255, 3), RGB float32 in 0-255.

    Returns:
        A model with the output `response` (B, 17, 17, 1): logits, high where the exemplar's object is.

    Raises:
        ValueError: a size leaves no features, or the exemplar is larger than the search region.
    """
    if not 87 <= exemplar_size <= search_size:
        raise ValueError(
            "`exemplar_size` must be at least 87 and not exceed `search_size`. "
            f"Received: exemplar_size={exemplar_size}, search_size={search_size}."
        )
    branch = siamfc_branch()
    exemplar = keras.Input((exemplar_size, exemplar_size, 3), name="exemplar")
    search = keras.Input((search_size, search_size, 3), name="search")
    response = CrossCorrelation("full", name="correlation")([branch(exemplar), branch(search)])
    gain = keras.initializers.Constant(GAIN)
    response = layers.Conv2D(1, 1, kernel_initializer=gain, name="adjust")(response)
    return keras.Model({"exemplar": exemplar, "search": search}, {"response": response}, name="siamfc")


def siamfc_exemplar(model: keras.Model) -> keras.Model:
    """The part of `model` that runs once: `exemplar` (B, 127, 127, 3) -> `exemplar_features` (B, 6, 6, 256)."""
    exemplar = keras.Input(model.input["exemplar"].shape[1:], name="exemplar")
    features = model.get_layer("branch")(exemplar)
    return keras.Model({"exemplar": exemplar}, {"exemplar_features": features}, name="siamfc_exemplar")


def siamfc_search(model: keras.Model) -> keras.Model:
    """The part of `model` that runs on each frame: `exemplar_features` and `search` (B, 255, 255, 3) -> `response`."""
    branch = model.get_layer("branch")
    z = keras.Input(branch(model.input["exemplar"]).shape[1:], name="exemplar_features")
    search = keras.Input(model.input["search"].shape[1:], name="search")
    response = model.get_layer("adjust")(model.get_layer("correlation")([z, branch(search)]))
    inputs = {"exemplar_features": z, "search": search}
    return keras.Model(inputs, {"response": response}, name="siamfc_search")
