"""Which layers suffer most from 8 bits: each is quantized alone, and the answers are compared with those of float."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.compress.report_data import LayerDamage

if TYPE_CHECKING:
    from visionkit.compress.calibration import Calibration

__all__ = ["layer_pattern", "rank_layers", "signal_to_noise"]

Feed = Mapping[str, npt.NDArray[Any]]
IMAGES = 12  # that answers are compared on
NO_DAMAGE_DB = 120.0  # what is said where the answers are the same bit by bit


@dataclass
class _Layer:
    """One layer of one network: its operations, all layers fused into them, its error when all are quantized."""

    signature: str
    name: str
    kinds: list[str] = field(default_factory=list)
    fused: set[str] = field(default_factory=set)
    error: float = 0.0


def layer_pattern(layer: str) -> str:
    """The regular expression that means this layer only."""
    return re.escape(layer)


def rank_layers(source: Path, calibration: Calibration, *, most: int = 24) -> list[LayerDamage]:
    """The damage of each layer, the worst first.

    The layers that add most to the error when all are quantized are tried alone, `most` of them.

    Args:
        source: a float `.tflite` artifact.
        calibration: a few of its images are calibrated on, and answers to them compared.

    Raises:
        ModelError: `quantization-failed`.
    """
    from visionkit.compress.ai_edge import available
    from visionkit.compress.feeds import network_feeds
    from visionkit.compress.quantize_network import quantize_network
    from visionkit.runtime.tflite_file import split_signatures
    from visionkit.weights.artifact import model_bytes, read_artifact

    artifact = read_artifact(source)
    if artifact is None:
        return []
    parts = split_signatures(model_bytes(source))
    feeds = network_feeds(artifact, parts, calibration.few(IMAGES))
    how: dict[str, Any] = {"kind": "int8", "engine": "ai-edge" if available() else "auto"}
    layers = [layer for name in feeds for layer in _layers(name, parts[name], feeds[name], how)]
    layers = sorted(layers, key=lambda layer: -layer.error)[:most]
    expected = {name: _answers(parts[name], feeds[name]) for name in {layer.signature for layer in layers}}
    ranked = []
    for layer in layers:
        content, inputs = parts[layer.signature], feeds[layer.signature]
        alone = quantize_network(content, inputs, keep_float=_others(content, layer), **how).content
        damage = signal_to_noise(expected[layer.signature], _answers(alone, inputs))
        ranked.append(LayerDamage(layer.name, "+".join(dict.fromkeys(layer.kinds)), damage))
    return sorted(ranked, key=lambda one: one.snr_db)


def signal_to_noise(expected: Sequence[npt.NDArray[Any]], received: Sequence[npt.NDArray[Any]]) -> float:
    """In dB, of the output that suffers most: variance of what is expected over that of the difference."""
    found = NO_DAMAGE_DB
    for one, other in zip(expected, received, strict=True):
        signal, noise = float(np.var(one)), float(np.mean((one - other) ** 2))
        if signal > 0 and noise > 0:
            found = min(found, 10 * math.log10(signal / noise))
    return found


def _layers(signature: str, content: bytes, feeds: Sequence[Feed], how: Mapping[str, Any]) -> list[_Layer]:
    """The layers of a network, with what they add to the error when all are quantized."""
    from visionkit.compress.operations import layers_of
    from visionkit.compress.quantize_network import layer_errors, quantize_network

    found: dict[str, _Layer] = {}
    for row in layer_errors(content, quantize_network(content, feeds, **how).content, feeds):
        if row.layer:
            layer = found.setdefault(row.layer, _Layer(signature, row.layer))
            layer.kinds.append(row.kind)
            layer.fused |= {row.layer, *layers_of(row.name)}
            layer.error = max(layer.error, row.added)
    return list(found.values())


def _others(content: bytes, layer: _Layer) -> list[str]:
    """A pattern of all layers but one; none where there is no other."""
    from visionkit.compress.operations import layers_of, list_operations

    there = {name for row in list_operations(content) for name in (*layers_of(row.name), row.layer) if name}
    return [f"(?!(?:{'|'.join(map(re.escape, layer.fused))})$).*"] if there - layer.fused else []


def _answers(content: bytes, feeds: Sequence[Feed]) -> list[npt.NDArray[np.float64]]:
    """Each output over all feeds."""
    from visionkit.runtime.litert import open_litert

    with open_litert(content, threads=1) as runner:
        rows = [runner(**feed) for feed in feeds]
    return [np.stack([row[name] for row in rows]).astype(np.float64) for name in rows[0]]
