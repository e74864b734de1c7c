"""Keras layers on `keras.ops`. Importing this room registers them all, so that saved models find them."""

from __future__ import annotations

from visionkit.layers.bilinear import Bilinear, ResizeLike
from visionkit.layers.boxes import Anchors, BoxDecode, SSDBoxes
from visionkit.layers.correlation import CrossCorrelation
from visionkit.layers.crop import CropLike, PadToMultiple
from visionkit.layers.dense_crf import DenseCRF
from visionkit.layers.maxout import Maxout
from visionkit.layers.neighbourhood import NeighbourhoodAverage2D
from visionkit.layers.normalization import LocalResponseNormalization
from visionkit.layers.objectness import Objectness
from visionkit.layers.pooling import AdaptiveAveragePooling2D, CeilAveragePooling2D, CeilMaxPooling2D, LpPooling2D
from visionkit.layers.proposals import ProposalSelection
from visionkit.layers.region_heads import ClassMasks, ForegroundProbabilities, MergeRegions, SplitRegions
from visionkit.layers.roi_align import PyramidRoIAlign, RoIAlign
from visionkit.layers.roi_pool import RoIPool, SpatialPyramidPooling
from visionkit.layers.spatial_transformer import IdentityTheta, SpatialTransformer
from visionkit.layers.suppression import NonMaximumSuppression

__all__ = [
    "AdaptiveAveragePooling2D",
    "Anchors",
    "Bilinear",
    "BoxDecode",
    "CeilAveragePooling2D",
    "CeilMaxPooling2D",
    "ClassMasks",
    "CropLike",
    "CrossCorrelation",
    "DenseCRF",
    "ForegroundProbabilities",
    "IdentityTheta",
    "LocalResponseNormalization",
    "LpPooling2D",
    "Maxout",
    "MergeRegions",
    "NeighbourhoodAverage2D",
    "NonMaximumSuppression",
    "Objectness",
    "PadToMultiple",
    "ProposalSelection",
    "PyramidRoIAlign",
    "ResizeLike",
    "RoIAlign",
    "RoIPool",
    "SSDBoxes",
    "SpatialPyramidPooling",
    "SpatialTransformer",
    "SplitRegions",
]
