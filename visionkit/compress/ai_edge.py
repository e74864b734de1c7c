"""The one module that touches ai-edge-quantizer: recipes over a float `.tflite` with one signature."""

from __future__ import annotations

import importlib.util
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from visionkit.errors import ModelError
from visionkit.runtime.quiet import quiet

__all__ = ["available", "quantize_dynamic", "quantize_static"]


def available() -> bool:
    """Whether the extra `quant` is installed."""
    return importlib.util.find_spec("ai_edge_quantizer") is not None


def quantize_static(
    content: bytes,
    ranges: Mapping[str, tuple[float, float]],
    *,
    keep: Sequence[str] = (),
    activation_bits: int = 8,
    per_channel: bool = True,
) -> bytes:
    """The file with integer arithmetic between float inputs and outputs.

    Args:
        content: a float `.tflite`.
        ranges: least and largest value by tensor name (`measure_ranges`).
        keep: names of output tensors whose operations stay in float.
        activation_bits: 8, or 16 with weights of 8.
        per_channel: a scale for each output channel of the weights, or one for all.

    Raises:
        ModelError: `quantization-failed`.
    """
    from ai_edge_quantizer import qtyping

    grain = qtyping.QuantGranularity.CHANNELWISE if per_channel else qtyping.QuantGranularity.TENSORWISE

    def plan(quantizer: Any) -> None:
        every = qtyping.TFLOperationName.ALL_SUPPORTED
        quantizer.add_static_config(".*", every, activation_bits, 8, grain)
        for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            quantizer.update_quantization_recipe(".*", end, algorithm_key="no_quantize")

    told = {
        name: {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}
        for name, (low, high) in ranges.items()
    }
    return _quantized(content, plan, keep, told)


def quantize_dynamic(content: bytes, *, keep: Sequence[str] = ()) -> bytes:
    """The file with int8 weights, whose inputs are rounded while it runs.

    Raises:
        ModelError: `quantization-failed`.
    """
    from ai_edge_quantizer import qtyping

    def plan(quantizer: Any) -> None:
        quantizer.add_dynamic_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, 8)

    return _quantized(content, plan, keep, None)


def _quantized(content: bytes, plan: Any, keep: Sequence[str], ranges: dict[str, Any] | None) -> bytes:
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.quantizer import Quantizer

    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantizer = Quantizer(bytearray(content))
            plan(quantizer)
            for name in keep:  # a scope is the names of all outputs, each with a semicolon behind it
                scope = f"^{re.escape(name)};"
                quantizer.update_quantization_recipe(
                    scope, qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_key="no_quantize"
                )
            return bytes(quantizer.quantize(ranges, enable_progress_report=False).quantized_model)
    except Exception as error:  # it raises whatever it likes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            "quantization-failed", f"ai-edge-quantizer does not take this network: {reason}; try engine 'tensorflow'"
        ) from error
