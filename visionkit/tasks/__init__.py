"""Tasks: images in, structures out. Loaded when first touched."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionkit.tasks.association import AssociationOptions, Associator, make_associator
    from visionkit.tasks.classify import Classifier, ClassifyOptions
    from visionkit.tasks.counting import CountPlan, Counts
    from visionkit.tasks.dense import DenseClassifier, DenseOptions
    from visionkit.tasks.detect import DetectOptions, Detector
    from visionkit.tasks.input_rule import InputRule
    from visionkit.tasks.load import load_tracker
    from visionkit.tasks.load_classify import load_classifier
    from visionkit.tasks.load_dense import load_dense_classifier
    from visionkit.tasks.load_detect import load_detector
    from visionkit.tasks.load_rectify import load_rectifier
    from visionkit.tasks.load_segment import load_segmenter
    from visionkit.tasks.presence import PresenceOptions
    from visionkit.tasks.rectify import BoxRectifier, CornerRectifier, Rectifier, TransformerRectifier
    from visionkit.tasks.segment import Segmenter, SegmentOptions
    from visionkit.tasks.siamfc import SiamFCOptions, SiamFCTracker
    from visionkit.tasks.track import SiamTracker, TrackerOptions

__all__ = [
    "AssociationOptions",
    "Associator",
    "BoxRectifier",
    "Classifier",
    "ClassifyOptions",
    "CornerRectifier",
    "CountPlan",
    "Counts",
    "DenseClassifier",
    "DenseOptions",
    "DetectOptions",
    "Detector",
    "InputRule",
    "PresenceOptions",
    "Rectifier",
    "SegmentOptions",
    "Segmenter",
    "SiamFCOptions",
    "SiamFCTracker",
    "SiamTracker",
    "TrackerOptions",
    "TransformerRectifier",
    "load_classifier",
    "load_dense_classifier",
    "load_detector",
    "load_rectifier",
    "load_segmenter",
    "load_tracker",
    "make_associator",
]

_PLACES = {
    "AssociationOptions": "association",
    "Associator": "association",
    "BoxRectifier": "rectify",
    "Classifier": "classify",
    "ClassifyOptions": "classify",
    "DenseClassifier": "dense",
    "CornerRectifier": "rectify",
    "CountPlan": "counting",
    "Counts": "counting",
    "DenseOptions": "dense",
    "DetectOptions": "detect",
    "Detector": "detect",
    "InputRule": "input_rule",
    "PresenceOptions": "presence",
    "Rectifier": "rectify",
    "SegmentOptions": "segment",
    "Segmenter": "segment",
    "SiamFCOptions": "siamfc",
    "SiamFCTracker": "siamfc",
    "SiamTracker": "track",
    "TrackerOptions": "track",
    "TransformerRectifier": "rectify",
    "load_classifier": "load_classify",
    "load_dense_classifier": "load_dense",
    "load_detector": "load_detect",
    "load_rectifier": "load_rectify",
    "load_segmenter": "load_segment",
    "load_tracker": "load",
    "make_associator": "association",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'visionkit.tasks' has no attribute {name!r}")
    return getattr(importlib.import_module(f"visionkit.tasks.{_PLACES[name]}"), name)
