"""What every tensor of a `.tflite` is while it runs, for ranges and for errors layer by layer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from visionkit.runtime.base import Array
from visionkit.runtime.quiet import quiet
from visionkit.runtime.tflite_file import data_of, main_graph, read_model, text_of

__all__ = ["Feed", "watch_tensors"]

Feed = Mapping[str, Array]


def watch_tensors(content: bytes, feeds: Iterable[Feed], see: Callable[[str, Array], None]) -> None:
    """Runs a file with one signature on each feed and shows every number tensor that is computed.

    Args:
        content: the `.tflite`.
        feeds: inputs by name, one mapping for each call.
        see: (name, values float32) of float tensors and of quantized ones, which are shown as what they stand for;
            values that are not finite are left out.
    """
    from ai_edge_litert.interpreter import Interpreter

    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of the memory that watching takes
        interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True, num_threads=1)
        interpreter.allocate_tensors()
    (key,) = interpreter.get_signature_list()
    caller = interpreter.get_signature_runner(key)
    computed = _computed(content)
    details = [detail for detail in interpreter.get_tensor_details() if detail["index"] in computed]
    for feed in feeds:
        caller(**feed)
        for detail in details:
            try:
                values = interpreter.get_tensor(detail["index"])
            except ValueError:  # never computed: fused into its neighbour
                continue
            values = _as_float(values, detail["quantization"])
            if values is not None and values.size and np.isfinite(values).all():
                see(computed[detail["index"]], values)


def _computed(content: bytes) -> dict[int, str]:
    """Names of the tensors that do not lie in the file, by number."""
    model: Any = read_model(content)
    ((_, graph),) = main_graph(model).items()
    return {index: text_of(tensor.name) for index, tensor in enumerate(graph.tensors) if data_of(model, tensor) is None}


def _as_float(values: Array, quantization: tuple[float, int]) -> Array | None:
    scale, zero_point = quantization
    if values.dtype == np.float32:
        return values
    if values.dtype in (np.int8, np.uint8, np.int16) and scale:
        return (values.astype(np.float32) - zero_point) * np.float32(scale)
    return None
