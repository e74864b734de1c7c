"""One face over Keras, SavedModel, LiteRT, ONNX Runtime and OpenVINO: named arrays in, named arrays out.

The public names are loaded when first touched: importing this package costs NumPy at most, and `load_tflite` needs
NumPy and ai-edge-litert alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionkit.runtime.adaptors import available_runtimes
    from visionkit.runtime.base import Runner, TensorSpec
    from visionkit.runtime.compiling import compile_cached, compile_model
    from visionkit.runtime.files import load_tflite
    from visionkit.runtime.keras_net import model_digest

__all__ = [
    "Runner",
    "TensorSpec",
    "available_runtimes",
    "compile_cached",
    "compile_model",
    "load_tflite",
    "model_digest",
]

_PLACES = {
    "Runner": "base",
    "TensorSpec": "base",
    "available_runtimes": "adaptors",
    "compile_cached": "compiling",
    "compile_model": "compiling",
    "load_tflite": "files",
    "model_digest": "keras_net",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'visionkit.runtime' has no attribute {name!r}")
    return getattr(importlib.import_module(f"visionkit.runtime.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
