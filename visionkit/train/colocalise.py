"""Finding what a set of images has in common, without labels: the spatial transformer's co-localisation.

Jaderberg, Simonyan, Zisserman, Kavukcuoglu, Spatial transformer networks, NIPS 2015, appendix A.2 (of the extended
version): crops of the same object lie closer together, in the features of a fixed encoder, than a crop and a random
patch of its image. Crops of nothing must not be alike in these features, or it is learnt to look away; of several
starts, take that of the lowest loss.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers, ops

from visionkit.layers.spatial_transformer import SpatialTransformer

__all__ = ["CoLocalisationLoss", "colocaliser", "random_thetas"]


@keras.saving.register_keras_serializable(package="visionkit")
class CoLocalisationLoss(keras.losses.Loss):
    """The mean over pairs n, m != n of max(0, |e(T_n) - e(T_m)|^2 - |e(T_n) - e(R_n)|^2 + margin).

    Called with anything and features (B, 2, D): of each image's crop T, and of a random patch R of it.

    Args:
        margin: by how much a pair must be closer.
    """

    def __init__(self, margin: float = 1.0, name: str = "colocalisation", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        if not margin > 0:
            raise ValueError(f"`margin` must be positive. Received: margin={margin}.")
        self.margin = float(margin)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """One number for each image, (B,)."""
        found, patch = y_pred[:, 0], y_pred[:, 1]
        apart = ops.sum(ops.square(found[:, None] - found[None]), axis=-1)  # (B, B)
        away = ops.sum(ops.square(found - patch), axis=-1)
        pairs = ops.maximum(apart - away[:, None] + self.margin, 0.0)
        count = ops.shape(found)[0]
        others = 1 - ops.eye(count, dtype=pairs.dtype)
        return ops.sum(pairs * others, axis=1) / ops.maximum(ops.cast(count, pairs.dtype) - 1, 1.0)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "margin": self.margin}


def colocaliser(localiser: keras.Model, encoder: keras.Model, *, transform: str = "attention") -> keras.Model:
    """A network of `[image, random theta]` -> features (B, 2, D) that `CoLocalisationLoss` takes.

    Args:
        localiser: image (B, H, W, C) -> theta (B, n), which learns.
        encoder: crop (B, h, w, C) -> features (B, D); its weights are left alone.
        transform: of the crops and of the random patches.

    Raises:
        ValueError: the crop's size is open.
    """
    encoder.trainable = False
    _, height, width, _ = encoder.inputs[0].shape
    if height is None or width is None:
        raise ValueError("`encoder` must have an input of fixed size, which is the crop's.")
    image = keras.Input(localiser.inputs[0].shape[1:], name="image")
    random = keras.Input(localiser.outputs[0].shape[1:], name="random_theta")
    crop = SpatialTransformer((height, width), transform, border="clamp", name="straight")
    features = [encoder(crop([image, theta])) for theta in (localiser(image), random)]
    features = [layers.Reshape((1, x.shape[-1]))(x) for x in features]
    return keras.Model([image, random], layers.Concatenate(axis=1, name="features")(features), name="colocaliser")


def random_thetas(count: int, scale: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Thetas (count, 3) of square patches of `scale` of the image's side, anywhere within it."""
    if not 0 < scale <= 1:
        raise ValueError(f"`scale` must be above 0 and at most 1. Received: scale={scale}.")
    place = rng.uniform(scale - 1, 1 - scale, (count, 2))
    return np.column_stack([np.full(count, scale), place]).astype(np.float32)
