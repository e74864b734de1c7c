"""LiteRT (the `.tflite` runtime): needs NumPy and ai-edge-litert, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from visionkit.errors import ModelError
from visionkit.runtime.base import Array, Runner, Signature, TensorSpec
from visionkit.runtime.quiet import quiet

__all__ = ["open_litert"]

REFUSALS = (ValueError, RuntimeError, IndexError, TypeError, MemoryError)
DEFAULT_SIGNATURE = "serving_default"


def open_litert(
    content: bytes,
    signature: Signature | None = None,
    *,
    threads: int,
    precision: str = "file",
    key: str | None = None,
    label: str = "the LiteRT model",
) -> Runner:
    """A runner over the bytes of a `.tflite`.

    Args:
        content: the flatbuffer, with or without files appended to it.
        signature: names and order of a file we converted; None takes names and order from the file.
        threads: cores to use.
        precision: what the runner reports.
        key: signature of the file; None takes `serving_default`, or the only one, or the main graph without any.
        label: how errors call the model.

    Raises:
        ModelError: `model-corrupt`, `model-unsupported` (an operation this runtime lacks), `model-signature`.
    """
    if content[4:8] != b"TFL3":
        raise ModelError(
            "model-corrupt", f"{label} ({len(content):,} bytes) is not a LiteRT flatbuffer: the mark TFL3 is missing"
        )
    try:
        with quiet():
            interpreter = open_interpreter(content, threads)
            return make_runner(interpreter, signature, key, label, threads, precision)
    except REFUSALS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "op" in reason and ("not supported" in reason or "unresolved" in reason.lower()):
            raise ModelError(
                "model-unsupported", f"{label} has operations LiteRT does not know: {reason}; export it with builtins"
            ) from error
        raise ModelError(
            "model-corrupt", f"{label} ({len(content):,} bytes) is a damaged LiteRT model: {reason}; get it again"
        ) from error


def open_interpreter(content: bytes, threads: int) -> Any:
    """An allocated interpreter, with XNNPACK where it takes the network (it raises on some operations)."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    except RuntimeError:
        interpreter = Interpreter(
            model_content=content,
            num_threads=threads,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
    return interpreter


def make_runner(
    interpreter: Any, signature: Signature | None, key: str | None, label: str, threads: int, precision: str
) -> Runner:
    keys = list(interpreter.get_signature_list())
    if not keys:
        if key is not None:
            raise ModelError("model-signature", f"{label} has no signatures; asked for {key!r}")
        inputs = {detail["name"]: detail for detail in interpreter.get_input_details()}
        outputs = {detail["name"]: detail for detail in interpreter.get_output_details()}
        return IndexRunner(interpreter, signature, inputs, outputs, threads=threads, precision=precision)
    chosen = choose_key(keys, key, label)
    caller = interpreter.get_signature_runner(chosen)
    inputs, outputs = caller.get_input_details(), caller.get_output_details()
    if is_main_graph(interpreter, inputs):
        # A living signature runner makes `Interpreter.invoke` refuse, and calling one costs more: it resizes each time.
        del caller
        return IndexRunner(interpreter, signature, inputs, outputs, threads=threads, precision=precision)
    return SignatureRunner(caller, signature, inputs, outputs, threads=threads, precision=precision)


def choose_key(keys: list[str], key: str | None, label: str) -> str:
    if key is None:
        if DEFAULT_SIGNATURE in keys:
            return DEFAULT_SIGNATURE
        if len(keys) == 1:
            return keys[0]
    elif key in keys:
        return key
    asked = "none was asked for" if key is None else f"asked for {key!r}"
    raise ModelError("model-signature", f"{label} has the signatures {keys}; {asked}")


def is_main_graph(interpreter: Any, inputs: dict[str, Any]) -> bool:
    main = {(detail["index"], detail["name"]) for detail in interpreter.get_input_details()}
    return {(detail["index"], detail["name"]) for detail in inputs.values()} == main


class LiteRTRunner(Runner):
    """What both ways of calling the interpreter share: names and specifications from the file's details."""

    def __init__(
        self,
        signature: Signature | None,
        inputs: dict[str, Any],
        outputs: dict[str, Any],
        *,
        threads: int,
        precision: str,
    ) -> None:
        found = Signature(
            tuple(spec_of(name, detail) for name, detail in inputs.items()),
            tuple(spec_of(name, detail) for name, detail in outputs.items()),
        )
        super().__init__("litert", signature or found, threads=threads, precision=precision)
        self._input_keys = signature.input_keys if signature else list(inputs)
        self._output_keys = signature.output_keys if signature else list(outputs)


class IndexRunner(LiteRTRunner):
    """Sets, invokes and gets by tensor indices that were looked up once."""

    def __init__(
        self,
        interpreter: Any,
        signature: Signature | None,
        inputs: dict[str, Any],
        outputs: dict[str, Any],
        *,
        threads: int,
        precision: str,
    ) -> None:
        super().__init__(signature, inputs, outputs, threads=threads, precision=precision)
        self._interpreter = interpreter
        self._input_indices = [inputs[key]["index"] for key in self._input_keys]
        self._output_indices = [outputs[key]["index"] for key in self._output_keys]

    def _run(self, feed: list[Array]) -> Sequence[Array]:
        interpreter = self._interpreter
        for index, array in zip(self._input_indices, feed, strict=True):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in self._output_indices]  # get_tensor copies

    def _release(self) -> None:
        self._interpreter = None


class SignatureRunner(LiteRTRunner):
    """Calls a signature that is not the file's main graph."""

    def __init__(
        self,
        caller: Any,
        signature: Signature | None,
        inputs: dict[str, Any],
        outputs: dict[str, Any],
        *,
        threads: int,
        precision: str,
    ) -> None:
        super().__init__(signature, inputs, outputs, threads=threads, precision=precision)
        self._caller = caller

    def _run(self, feed: list[Array]) -> Sequence[Array]:
        results = self._caller(**dict(zip(self._input_keys, feed, strict=True)))
        return [results[key] for key in self._output_keys]

    def _release(self) -> None:
        self._caller = None


def spec_of(name: str, detail: dict[str, Any]) -> TensorSpec:
    """Sizes are those allocated: a size the file leaves open is 1 unless somebody resized it."""
    scale, zero_point = detail["quantization"]
    shape = tuple(int(size) for size in detail["shape"])
    return TensorSpec(name, shape, np.dtype(detail["dtype"]), (float(scale), int(zero_point)) if scale else None)
