"""OpenVINO, on the CPU, with the precision always said: left alone it computes in bfloat16 where the processor can."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visionkit.errors import ModelError
from visionkit.runtime.base import Array, Runner, Signature, TensorSpec
from visionkit.runtime.quiet import quiet

__all__ = ["open_openvino"]

HINTS = {"float32": "f32", "file": "f32", "bfloat16": "bf16"}


def open_openvino(
    content: bytes | Path,
    signature: Signature | None = None,
    *,
    threads: int,
    precision: str = "file",
    label: str = "the ONNX model",
) -> Runner:
    """A runner over the bytes of an `.onnx`, or an `.xml`; with a signature, the file is one we converted.

    Raises:
        ModelError: `model-corrupt` where OpenVINO refuses the file.
    """
    with quiet():
        import openvino

        settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            # A thread pinned to a core that somebody else keeps busy holds up all others: on two busy cores the median
            # of ResNet-50 was 55 ms with pinning and 29 ms without; the 10th percentiles were 24 and 25.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            core = openvino.Core()
            source: Any = content if isinstance(content, Path) else io.BytesIO(content)
            compiled = core.compile_model(core.read_model(source), "CPU", settings)
        except RuntimeError as error:
            size = content.stat().st_size if isinstance(content, Path) else len(content)
            raise ModelError("model-corrupt", f"{label} ({size:,} bytes) is refused by OpenVINO: {error}") from error
    return OpenVinoRunner(compiled, signature, threads=threads, precision=precision)


class OpenVinoRunner(Runner):
    """Runs one inference request by port numbers that were looked up once."""

    def __init__(self, compiled: Any, signature: Signature | None, *, threads: int, precision: str) -> None:
        found = Signature(
            tuple(spec_of(port) for port in compiled.inputs), tuple(spec_of(port) for port in compiled.outputs)
        )
        super().__init__("openvino", signature or found, threads=threads, precision=precision)
        inputs = signature.input_keys if signature else [spec.name for spec in found.inputs]
        outputs = signature.output_keys if signature else [spec.name for spec in found.outputs]
        self._input_ports = [port_of(compiled.inputs, key) for key in inputs]
        self._output_ports = [port_of(compiled.outputs, key) for key in outputs]
        self._request = compiled.create_infer_request()

    def _run(self, feed: list[Array]) -> Sequence[Array]:
        # The inputs are only read until this returns, so they need no copy; the outputs are copied.
        results = self._request.infer(
            dict(zip(self._input_ports, feed, strict=True)), share_inputs=True, share_outputs=False
        )
        return [results[port] for port in self._output_ports]

    def _release(self) -> None:
        self._request = None


def port_of(ports: Sequence[Any], key: str) -> int:
    return next(index for index, port in enumerate(ports) if key in port.get_names())


def spec_of(port: Any) -> TensorSpec:
    shape = tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), shape, np.dtype(port.get_element_type().to_dtype()))
