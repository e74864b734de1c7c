"""ONNX Runtime, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from visionkit.errors import ModelError
from visionkit.runtime.base import Array, Runner, Signature, TensorSpec
from visionkit.runtime.quiet import quiet

__all__ = ["open_onnxruntime"]

DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    **{f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}


def open_onnxruntime(
    content: bytes,
    signature: Signature | None = None,
    *,
    threads: int,
    precision: str = "file",
    label: str = "the ONNX model",
) -> Runner:
    """A runner over the bytes of an `.onnx`; with a signature, the file is one we converted.

    Raises:
        ModelError: `model-corrupt` where ONNX Runtime refuses the file.
    """
    with quiet():
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Threads that spin while they wait take the cores that decode and draw, and are slower once the cores are busy.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no parent
            raise ModelError(
                "model-corrupt", f"{label} ({len(content):,} bytes) is refused by ONNX Runtime: {error}"
            ) from error
    return OnnxRunner(session, signature, threads=threads, precision=precision)


class OnnxRunner(Runner):
    """Runs a session; ONNX Runtime allocates its outputs anew at each call."""

    def __init__(self, session: Any, signature: Signature | None, *, threads: int, precision: str) -> None:
        found = Signature(
            tuple(spec_of(node) for node in session.get_inputs()),
            tuple(spec_of(node) for node in session.get_outputs()),
        )
        super().__init__("onnxruntime", signature or found, threads=threads, precision=precision)
        self._session = session
        self._input_keys = signature.input_keys if signature else [spec.name for spec in found.inputs]
        self._output_keys = signature.output_keys if signature else [spec.name for spec in found.outputs]

    def _run(self, feed: list[Array]) -> Sequence[Array]:
        return self._session.run(self._output_keys, dict(zip(self._input_keys, feed, strict=True)))

    def _release(self) -> None:
        self._session = None


def spec_of(node: Any) -> TensorSpec:
    if node.type not in DTYPES:
        raise ModelError("model-unsupported", f"the ONNX tensor {node.name!r} is of type {node.type}, not an array")
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in node.shape)
    return TensorSpec(node.name, shape, np.dtype(DTYPES[node.type]))
