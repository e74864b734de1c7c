"""What a network is made of: sizes, costs and receptive fields, layer by layer.

The public names are loaded when first touched: the arithmetic and the rows cost no Keras.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionkit.inspection.counts import count_convolution, count_dense, count_locally_connected
    from visionkit.inspection.facts import LayerFacts, Summary, WindowFacts
    from visionkit.inspection.keras_summary import summarize

__all__ = [
    "LayerFacts",
    "Summary",
    "WindowFacts",
    "count_convolution",
    "count_dense",
    "count_locally_connected",
    "summarize",
]

_PLACES = {
    "LayerFacts": "facts",
    "Summary": "facts",
    "WindowFacts": "facts",
    "count_convolution": "counts",
    "count_dense": "counts",
    "count_locally_connected": "counts",
    "summarize": "keras_summary",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'visionkit.inspection' has no attribute {name!r}")
    return getattr(importlib.import_module(f"visionkit.inspection.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
