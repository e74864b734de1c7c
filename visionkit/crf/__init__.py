"""Dense CRF: an exact O(N^2) reference and a fast engine.

>>> import numpy as np
>>> from visionkit.crf import CRFParams, mean_field_exact, unary_from_labels
>>> labels = np.zeros((4, 6), int)
>>> labels[:, 3:] = 1
>>> image = np.where(labels[..., None] == 1, 200, 30).astype(np.uint8).repeat(3, axis=2)
>>> labels[1, 1] = 1  # an annotation that the picture contradicts
>>> marginals = mean_field_exact(unary_from_labels(labels, 2, probability=0.7), image, CRFParams(iterations=5))
>>> int(marginals[1, 1].argmax())
0
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from visionkit.crf.engine import ENGINES, FastMeanField, available_engine, mean_field, mean_field_batch, must_compile
from visionkit.crf.exact import mean_field_exact, objective
from visionkit.crf.params import NORMALIZATIONS, CRFParams
from visionkit.crf.unary import unary_from_labels, unary_from_probs

if TYPE_CHECKING:
    from visionkit.crf.video import Flicker, VideoCRF, flicker_index

__all__ = [
    "ENGINES",
    "NORMALIZATIONS",
    "CRFParams",
    "FastMeanField",
    "Flicker",
    "VideoCRF",
    "available_engine",
    "flicker_index",
    "mean_field",
    "mean_field_batch",
    "mean_field_exact",
    "must_compile",
    "objective",
    "unary_from_labels",
    "unary_from_probs",
]


def __getattr__(name: str) -> Any:
    # OpenCV is loaded only where a video is wanted.
    if name in ("Flicker", "VideoCRF", "flicker_index"):
        return getattr(importlib.import_module("visionkit.crf.video"), name)
    raise AttributeError(f"module 'visionkit.crf' has no attribute {name!r}")
