"""Keras layers on `keras.ops`. Importing this room registers them all, so that saved models find them."""

from __future__ import annotations

from visionkit.layers.bilinear import Bilinear, ResizeLike
from visionkit.layers.correlation import CrossCorrelation
from visionkit.layers.crop import CropLike, PadToMultiple
from visionkit.layers.dense_crf import DenseCRF
from visionkit.layers.maxout import Maxout
from visionkit.layers.neighbourhood import NeighbourhoodAverage2D
from visionkit.layers.normalization import LocalResponseNormalization
from visionkit.layers.pooling import AdaptiveAveragePooling2D, CeilAveragePooling2D, CeilMaxPooling2D, LpPooling2D

__all__ = [
    "AdaptiveAveragePooling2D",
    "Bilinear",
    "CeilAveragePooling2D",
    "CeilMaxPooling2D",
    "CropLike",
    "CrossCorrelation",
    "DenseCRF",
    "LocalResponseNormalization",
    "LpPooling2D",
    "Maxout",
    "NeighbourhoodAverage2D",
    "PadToMultiple",
    "ResizeLike",
]
