"""Models as files for others: the whole of a model, from pixels to results, tried before it gets its name."""

from __future__ import annotations

from visionkit.export.exporting import export_model

__all__ = ["export_model"]
