"""How each format of an exported model is written; what it holds is `visionkit.export.signatures`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.errors import ModelError, UsageError
from visionkit.export.signatures import Signatures
from visionkit.runtime.convert import (
    DEFAULT,
    NamedCall,
    convert_named_onnx,
    convert_saved_model,
    first_name,
    write_openvino,
    write_saved_model,
)
from visionkit.runtime.quiet import import_keras, quiet

if TYPE_CHECKING:
    from visionkit.export.plan import ExportPlan

__all__ = ["FORMATS", "Format", "find_format"]


@dataclass(frozen=True)
class Format:
    """A format of exported models.

    Args:
        suffix: of its file; a folder has none.
        write: (signatures, path, select_tf_ops) writes it.
        packages: distributions that write it and check it; the last one is the runtime.
        modules: what they are imported as.
        remedy: how they are installed.
        raw_tolerance: the largest difference of a network's own outputs from Keras, in the share of the largest.
    """

    suffix: str
    write: Callable[[Signatures, Path, bool], None]
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    remedy: str = "pip install visionkit"
    raw_tolerance: float = 1e-4

    @property
    def missing(self) -> list[str]:
        """Modules that are not installed."""
        return [module for module in self.modules if importlib.util.find_spec(module) is None]


def find_format(name: str) -> Format:
    """The format of this name, its packages installed.

    Raises:
        UsageError: `format-unknown`, `format-missing`.
    """
    if name not in FORMATS:
        raise UsageError("format-unknown", f"format must be one of {', '.join(FORMATS)}. Received: {name!r}.")
    if missing := FORMATS[name].missing:
        raise UsageError(
            "format-missing", f"exporting to {name} needs {', '.join(missing)}, not installed: {FORMATS[name].remedy}"
        )
    return FORMATS[name]


def check_backend(name: str) -> None:
    """Only Keras on TensorFlow is traced into graphs. Raises ModelError `export-backend`."""
    backend = import_keras().backend.backend()
    if backend != "tensorflow" and name != "keras":
        raise ModelError(
            "export-backend",
            f"only Keras on TensorFlow is exported to {name}, and this process runs {backend}; set "
            "KERAS_BACKEND=tensorflow, which loads the same weights",
        )


def _savedmodel(signatures: Signatures, path: Path, select_tf_ops: bool) -> None:
    del select_tf_ops
    functions = {}
    with quiet():
        for name, call in signatures.calls.items():
            functions[name] = _traced(name, call, signatures)
    write_saved_model(path, functions, _variables(signatures.plan))


def _traced(name: str, call: NamedCall, signatures: Signatures) -> Any:
    """The traced function; of as many images as come, or else of one, where a layer needs to know."""
    try:
        return call.traced()
    except (TypeError, ValueError) as error:  # OperatorNotAllowedInGraphError is a TypeError
        try:
            return call.with_batch(signatures.options.batch).traced()
        except (TypeError, ValueError):
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                "export-untraceable",
                f"{signatures.plan.card.name} cannot be traced for its signature {name}: {reason}; fix its size",
            ) from error


def _litert(signatures: Signatures, path: Path, select_tf_ops: bool) -> None:
    calls = signatures.calls
    with quiet():
        functions = {first_name(name): call.traced() for name, call in calls.items()}
    between = path.with_name("saved_model")
    write_saved_model(between, functions, _variables(signatures.plan))
    layers = _layer_names(signatures.plan)
    path.write_bytes(convert_saved_model(between, list(calls), select_tf_ops=select_tf_ops, layers=layers))


def _keras(signatures: Signatures, path: Path, select_tf_ops: bool) -> None:
    del select_tf_ops
    with quiet():
        signatures.plan.model.save(path)


def _onnx(signatures: Signatures, path: Path, select_tf_ops: bool) -> None:
    del select_tf_ops
    path.write_bytes(convert_named_onnx(signatures.calls[DEFAULT]))


def _openvino(signatures: Signatures, path: Path, select_tf_ops: bool) -> None:
    del select_tf_ops
    write_openvino(convert_named_onnx(signatures.calls[DEFAULT]), path)


def _variables(plan: ExportPlan) -> list[Any]:
    """TensorFlow's variables behind Keras's, each once."""
    found = {id(variable): variable._value for owner in plan.owners for variable in owner.variables}
    return list(found.values())


def _layer_names(plan: ExportPlan) -> list[str]:
    models = (plan.model, *plan.raw.values())
    layers = (layer for model in models for layer in model._flatten_layers(include_self=False))
    return list(dict.fromkeys(layer.name for layer in layers))


_ORT = ("onnx", "tf2onnx", "onnxruntime")
_OPENVINO = ("onnx", "tf2onnx", "openvino")
FORMATS: dict[str, Format] = {
    "savedmodel": Format("", _savedmodel, ("tensorflow",), ("tensorflow",), raw_tolerance=1e-5),
    "litert": Format(
        ".tflite", _litert, ("tensorflow", "ai-edge-litert"), ("tensorflow", "ai_edge_litert"), "pip install visionkit"
    ),
    "keras": Format(".keras", _keras, ("keras",), ("keras",)),
    "onnx": Format(".onnx", _onnx, _ORT, _ORT, "pip install onnxruntime onnx tf2onnx"),
    "openvino": Format(".xml", _openvino, _OPENVINO, _OPENVINO, "pip install visionkit[openvino]"),
}
