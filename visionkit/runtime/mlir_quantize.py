"""TensorFlow's own quantizer, run on a float `.tflite` whose tensors' ranges are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from visionkit.errors import ModelError
from visionkit.runtime.quiet import import_tensorflow, quiet
from visionkit.runtime.tflite_file import data_of, read_model, set_scale, text_of, type_of, write_model

__all__ = ["quantize_ranges"]


def quantize_ranges(
    content: bytes,
    ranges: Mapping[str, tuple[float, float]],
    *,
    keep: Sequence[str] = (),
    per_channel: bool = True,
) -> bytes:
    """The file with integer arithmetic between float inputs and outputs.

    It is what `TFLiteConverter` does behind a `representative_dataset`, entered where the ranges have been measured.

    Args:
        content: a float `.tflite` with one signature.
        ranges: least and largest value by tensor name.
        keep: names of output tensors whose operations stay in float.
        per_channel: a scale for each output channel of the weights, or one for all.

    Raises:
        ModelError: `quantization-failed`.
    """
    model = read_model(content)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            limits = ranges.get(text_of(tensor.name))
            if limits is not None and type_of(tensor) == "float32" and data_of(model, tensor) is None:
                set_scale(tensor, limits=limits)
    import_tensorflow()
    from tensorflow.compiler.mlir.lite import types_pb2
    from tensorflow.lite.python.convert import mlir_quantize

    try:
        with quiet():
            return bytes(
                mlir_quantize(
                    write_model(model),
                    disable_per_channel=not per_channel,
                    inference_type=types_pb2.QUANTIZED_INT8,
                    denylisted_nodes=set(keep) or None,
                )
            )
    except Exception as error:  # it raises whatever it likes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            "quantization-failed", f"TensorFlow's quantizer does not take this network: {reason}; try engine 'ai-edge'"
        ) from error
