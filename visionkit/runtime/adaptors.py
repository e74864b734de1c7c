"""The runtimes: what each runs, what it needs installed, which precisions it offers, how it is opened."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

from visionkit.errors import UsageError
from visionkit.runtime.base import Runner

__all__ = ["ADAPTORS", "Adaptor", "available_runtimes", "find_adaptor"]


@dataclass(frozen=True)
class Adaptor:
    """A runtime.

    Attributes:
        name: as in `--runtime`.
        suffix: of the file it opens; None where it runs the Keras model itself.
        opener: (content, signature, *, threads, precision) -> Runner; None where it runs the Keras model itself.
        modules: what must be importable.
        precisions: the arithmetic it offers.
        remedy: how to install it.
    """

    name: str
    suffix: str | None
    opener: Callable[..., Runner] | None
    modules: tuple[str, ...]
    precisions: tuple[str, ...] = ("float32",)
    remedy: str = "pip install visionkit"

    @property
    def missing(self) -> list[str]:
        """The modules that are not installed; nothing is imported to find out."""
        return [module for module in self.modules if importlib.util.find_spec(module) is None]

    def absence(self) -> str | None:
        """Why the runtime cannot be used here, None when it can."""
        return f"not installed ({', '.join(self.missing)}): {self.remedy}" if self.missing else None


def deferred(module: str, function: str) -> Callable[..., Runner]:
    """A function that is imported when it is called."""

    def call(*args: object, **options: object) -> Runner:
        return getattr(importlib.import_module(f"visionkit.runtime.{module}"), function)(*args, **options)

    return call


ADAPTORS: dict[str, Adaptor] = {
    adaptor.name: adaptor
    for adaptor in (
        Adaptor("keras", None, None, ("keras",)),
        Adaptor("savedmodel", ".pb", deferred("tensorflow_runtime", "open_savedmodel"), ("tensorflow",)),
        Adaptor(
            "litert",
            ".tflite",
            deferred("litert", "open_litert"),
            ("ai_edge_litert",),
            ("float32", "float16"),
            "pip install ai-edge-litert",
        ),
        Adaptor(
            "onnxruntime",
            ".onnx",
            deferred("onnx_runtime", "open_onnxruntime"),
            ("onnxruntime",),
            remedy="pip install onnxruntime onnx tf2onnx",
        ),
        Adaptor(
            "openvino",
            ".onnx",
            deferred("openvino_runtime", "open_openvino"),
            ("openvino",),
            ("float32", "bfloat16"),  # asked for float16 it computes in bfloat16 on processors that have no float16
            "pip install visionkit[openvino]",
        ),
    )
}


def find_adaptor(name: str, precision: str) -> Adaptor:
    """The adaptor of this name, installed and able to compute in this precision.

    Raises:
        UsageError: `runtime-unknown`, `runtime-missing` or `runtime-precision`.
    """
    if name not in ADAPTORS:
        raise UsageError("runtime-unknown", f"no runtime {name!r}; use one of auto, {', '.join(ADAPTORS)}")
    adaptor = ADAPTORS[name]
    if adaptor.missing:
        raise UsageError("runtime-missing", f"the runtime {name} is {adaptor.absence()}")
    if precision not in adaptor.precisions:
        raise UsageError(
            "runtime-precision", f"{name} computes in {', '.join(adaptor.precisions)} here. Received: {precision!r}"
        )
    return adaptor


def available_runtimes() -> dict[str, str | None]:
    """Every runtime, with the reason why it cannot be used here or None when it can; imports none of them."""
    return {name: adaptor.absence() for name, adaptor in ADAPTORS.items()}
