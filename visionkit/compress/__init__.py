"""Networks made smaller and faster, and what that costs.

The public names are loaded when first touched: importing this package costs NumPy at most.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionkit.compress.ptq import quantize_artifact
    from visionkit.compress.qat import plan_quantization, quantize_aware
    from visionkit.compress.qat_artifact import export_quantized
    from visionkit.compress.qat_export import convert_quantized
    from visionkit.compress.qat_train import train_quantized
    from visionkit.compress.svd import DenseSavings, dense_savings, truncate_dense

__all__ = [
    "DenseSavings",
    "convert_quantized",
    "dense_savings",
    "export_quantized",
    "plan_quantization",
    "quantize_artifact",
    "quantize_aware",
    "train_quantized",
    "truncate_dense",
]

_PLACES = {
    "DenseSavings": "svd",
    "convert_quantized": "qat_export",
    "dense_savings": "svd",
    "export_quantized": "qat_artifact",
    "plan_quantization": "qat",
    "quantize_artifact": "ptq",
    "quantize_aware": "qat",
    "train_quantized": "qat_train",
    "truncate_dense": "svd",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'visionkit.compress' has no attribute {name!r}")
    return getattr(importlib.import_module(f"visionkit.compress.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
