"""Models as files for others: the whole of a model, from pixels to answers, in one SavedModel."""

from __future__ import annotations

from visionkit.export.segment_saved_model import export_segmenter

__all__ = ["export_segmenter"]
