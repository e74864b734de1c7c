"""Models as files for others: the whole of a model, from pixels to results, tried before it gets its name."""

from __future__ import annotations

from visionkit.export.exporting import export_model
from visionkit.export.segment_saved_model import export_segmenter

__all__ = ["export_model", "export_segmenter"]
