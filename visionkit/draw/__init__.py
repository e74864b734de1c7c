"""Structures drawn over an image, legible at any size of it."""

from visionkit.draw.classes import draw_classes
from visionkit.draw.common import line_width
from visionkit.draw.detect import DetectionDrawer, draw_counts, draw_detections
from visionkit.draw.heatmap import draw_heatmap
from visionkit.draw.region import draw_region_classes, draw_regions
from visionkit.draw.segment import draw_segmentation, draw_uncertainty
from visionkit.draw.track import STATE_COLORS, TrackDrawer, draw_track

__all__ = [
    "STATE_COLORS",
    "DetectionDrawer",
    "TrackDrawer",
    "draw_classes",
    "draw_counts",
    "draw_detections",
    "draw_heatmap",
    "draw_region_classes",
    "draw_regions",
    "draw_segmentation",
    "draw_track",
    "draw_uncertainty",
    "line_width",
]
