"""Which layers suffer most from 8 bits: each is quantized alone, and the answers are compared with those of float."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.compress.report import LayerDamage

if TYPE_CHECKING:
    from visionkit.compress.calibration import Calibration
    from visionkit.weights import Card
    from visionkit.weights.artifact import Artifact

__all__ = ["layer_pattern", "network_feeds", "rank_layers"]

Feed = Mapping[str, npt.NDArray[Any]]
IMAGES = 12  # that answers are compared on
NO_DAMAGE_DB = 120.0  # what is said where the answers are the same bit by bit


def layer_pattern(layer: str) -> str:
    """The regular expression that means this layer only."""
    return re.escape(layer)


def rank_layers(source: Path, calibration: Calibration, *, most: int = 24) -> list[LayerDamage]:
    """The damage of each layer, the worst first; nothing for an artifact whose network has several parts.

    The layers whose own error is largest when all are quantized are tried alone, `most` of them.

    Args:
        source: a float `.tflite` artifact.
        calibration: a few of its images are calibrated on, and answers to them compared.

    Raises:
        ModelError: `quantization-failed`.
    """
    from visionkit.compress.ai_edge import available
    from visionkit.compress.quantize_network import layer_errors, quantize_network
    from visionkit.runtime.tflite_file import split_signatures
    from visionkit.weights.artifact import model_bytes, read_artifact

    artifact = read_artifact(source)
    if artifact is None or len(artifact.parts) != 1:
        return []
    content = split_signatures(model_bytes(source))[next(iter(artifact.parts.values()))]
    feeds = network_feeds(artifact, content, calibration, IMAGES)
    how: dict[str, Any] = {"kind": "int8", "engine": "ai-edge" if available() else "auto"}
    whole = quantize_network(content, feeds, **how).content
    kinds: dict[str, list[str]] = {}
    worst: dict[str, float] = {}
    for row in layer_errors(content, whole, feeds):
        if row.layer:
            kinds.setdefault(row.layer, []).append(row.kind)
            worst[row.layer] = max(worst.get(row.layer, 0.0), row.added)
    chosen = sorted(worst, key=lambda layer: -worst[layer])[:most]
    expected = _answers(content, feeds)
    ranked = []
    for layer in chosen:
        others = f"(?!{re.escape(layer)}$).*"
        alone = quantize_network(content, feeds, keep_float=[others], **how).content
        kind = "+".join(dict.fromkeys(kinds[layer]))
        ranked.append(LayerDamage(layer, kind, signal_to_noise(expected, _answers(alone, feeds))))
    return sorted(ranked, key=lambda one: one.snr_db)


def network_feeds(artifact: Artifact, content: bytes, calibration: Calibration, count: int) -> list[Feed]:
    """What the network of a file with one signature takes for some of the images, by the name of its input."""
    from visionkit.runtime.litert import open_litert

    with open_litert(content, threads=1) as runner:
        (name,) = runner.inputs
    inputs = calibration.network_inputs(_rule(artifact.card))
    few = min(count, len(inputs))
    return [{name: inputs[k * len(inputs) // few]} for k in range(few)]


def _rule(card: Card) -> Any:
    from visionkit.tasks.input_rule import InputRule
    from visionkit.tasks.load_classify import card_rule

    return card_rule(card) if card.task == "classify" else InputRule.from_card(card)


def _answers(content: bytes, feeds: Sequence[Feed]) -> list[npt.NDArray[np.float64]]:
    """Each output over all feeds."""
    from visionkit.runtime.litert import open_litert

    with open_litert(content, threads=1) as runner:
        rows = [runner(**feed) for feed in feeds]
    return [np.stack([row[name] for row in rows]).astype(np.float64) for name in rows[0]]


def signal_to_noise(expected: Sequence[npt.NDArray[Any]], received: Sequence[npt.NDArray[Any]]) -> float:
    """In dB, of the output that suffers most: variance of what is expected over that of the difference."""
    found = NO_DAMAGE_DB
    for one, other in zip(expected, received, strict=True):
        signal, noise = float(np.var(one)), float(np.mean((one - other) ** 2))
        if signal > 0 and noise > 0:
            found = min(found, 10 * math.log10(signal / noise))
    return found
