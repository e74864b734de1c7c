"""A network of quantization-aware training as an artifact: the card's export with the network of eight bits in it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from visionkit.compress.operations import float_islands, list_operations
from visionkit.compress.ptq import Rebuilt, publish, rebuild
from visionkit.compress.qat import rounded_to
from visionkit.compress.qat_export import convert_quantized
from visionkit.errors import ModelError, UsageError
from visionkit.runtime.tflite_file import kind_of, read_model, split_signatures, write_model
from visionkit.weights.artifact import Artifact, model_bytes

if TYPE_CHECKING:
    from visionkit.weights import Card

__all__ = ["KINDS", "export_quantized"]

KINDS = ("qat-int8", "qat-int8-io")
RAW = "raw"
HEAVY = ("CONV_2D", "FULLY_CONNECTED")


def export_quantized(
    network: keras.Model,
    card: Card,
    path: str | os.PathLike[str],
    *,
    kind: str = "qat-int8",
    overwrite: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> Artifact:
    """Write a network of `quantize_aware` in the place of its card's own, and give what was written.

    The signatures are those of the card's float export: the network itself in integers, the others prepare images and
    results in float32 around it. No calibration: the ranges are the network's. The file is run by the plain runtime
    in another process before it gets its name.

    Args:
        network: made of the card's network.
        card: of one network, such as a classifier's.
        path: of the `.tflite`.
        kind: `qat-int8` takes and gives float32 at the network's ends, `qat-int8-io` int8.
        overwrite: replace what is there, once the new one is complete.
        tell: is given a line where operations stay in float.

    Raises:
        UsageError: `kind-unknown`.
        ModelError: `model-unfit`, the card has several networks; `quantization-unready`; as `export_model`.
        OutputError: as `export_model`.
    """
    from visionkit.export import export_model
    from visionkit.export.destination import check_target

    if kind not in KINDS:
        raise UsageError("kind-unknown", f"kind must be one of {', '.join(KINDS)}. Received: {kind!r}.")
    target = check_target(path, ".tflite", overwrite=overwrite)
    content = convert_quantized(network)
    islands = [row for island in float_islands(list_operations(content)) for row in island]
    if islands:
        layers = ", ".join(dict.fromkeys(row.layer or row.name for row in islands))
        tell(f"{len(islands)} operations compute in float between integers: {layers}.")
    with tempfile.TemporaryDirectory(prefix="visionkit-") as folder:
        source = export_model(card, Path(folder) / "float.tflite", format="litert")
        parts = split_signatures(model_bytes(source.path))
        if set(source.parts.values()) != {RAW}:
            raise ModelError("model-unfit", f"{card.name} is exported as {', '.join(source.parts.values())}, not one.")
        told = _with_features(content, parts[RAW])
        rebuilt = rebuild(parts, {RAW: told}, integer_io=kind == "qat-int8-io")
        for name, reason in rebuilt.dropped.items():
            tell(f"The signature {name} was left out: {reason}.")
        return publish(
            source, rebuilt, target, kind=kind, notes=_notes(source, network, rebuilt, content), overwrite=overwrite
        )


def _with_features(content: bytes, pattern: bytes) -> bytes:
    """The network with what its last weights take, the features, called as in the float network: `embed` gives it."""
    models = read_model(content), read_model(pattern)
    tensors = []
    for model in models:
        graph = model.subgraphs[0]
        heavy = [operation for operation in graph.operators if kind_of(model, operation) in HEAVY]
        tensors += [graph.tensors[heavy[-1].inputs[0]]] if heavy else []
    if len(tensors) == 2 and list(tensors[0].shape) == list(tensors[1].shape):
        tensors[0].name = tensors[1].name
    return write_model(models[0])


def _notes(source: Artifact, network: keras.Model, rebuilt: Rebuilt, content: bytes) -> dict[str, Any]:
    """What the description tells of how it was made."""
    rows = list_operations(content)
    told = {
        "kind": "quantization-aware training",
        "float_sha256": source.sha256,
        "ranges": len(rounded_to(network)),
        "float_islands": sorted({row.layer or row.name for island in float_islands(rows) for row in island}),
        "dropped": dict(rebuilt.dropped),
    }
    kept = {key: value for key, value in source.made.items() if key not in ("checked", "signatures")}
    signatures = source.made.get("signatures", {})
    shown = {name: specs for name, specs in signatures.items() if name not in rebuilt.dropped}
    return {**kept, "signatures": shown, "quantization": told}
