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

from visionkit.crf.engine import ENGINES, FastMeanField, available_engine, mean_field, mean_field_batch
from visionkit.crf.exact import mean_field_exact, objective
from visionkit.crf.params import NORMALIZATIONS, CRFParams
from visionkit.crf.unary import unary_from_labels, unary_from_probs

__all__ = [
    "ENGINES",
    "NORMALIZATIONS",
    "CRFParams",
    "FastMeanField",
    "available_engine",
    "mean_field",
    "mean_field_batch",
    "mean_field_exact",
    "objective",
    "unary_from_labels",
    "unary_from_probs",
]
