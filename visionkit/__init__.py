"""VisionKit: Keras vision networks in video and image pipelines, from a laptop to the edge.

The public names are loaded when first touched, so that `import visionkit` costs no TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionkit import nets
    from visionkit.api import load, recipe, run, stream

__version__ = "0.1.0"
__all__ = ["__version__", "load", "nets", "recipe", "run", "stream"]

_PLACES = dict.fromkeys(("load", "recipe", "run", "stream"), "visionkit.api") | {"nets": "visionkit.nets"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'visionkit' has no attribute {name!r}")
    module = importlib.import_module(_PLACES[name])
    return module if name == "nets" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
