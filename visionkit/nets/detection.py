"""Rules of detectors, which live where no Keras is needed: `visionkit.geometry.detection_rules`."""

from visionkit.geometry.detection_rules import RCNN_RULES, RCNNRule, rcnn_rule

__all__ = ["RCNN_RULES", "RCNNRule", "rcnn_rule"]
