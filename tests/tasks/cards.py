"""Small classifiers for tests: a card's folder with random weights of a tiny residual network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

SIZE_HW = (40, 56)
COLORS = ("blue", "green", "red", "dark", "bright")


def write_card(
    folder: Path,
    *,
    labels: Sequence[str] = COLORS,
    heads: Mapping[str, Sequence[str]] | None = None,
    size_hw: tuple[int, int] = SIZE_HW,
    seed: int = 3,
    extra: str = "",
    gain: float = 8,
) -> Path:
    """Write `folder/card.toml` and its weights; returns the folder. The network answers differently to other images.

    With the usual `gain` of the last layer its probabilities are 0 and 1, with 0.2 far from that.
    """
    from visionkit.runtime.quiet import import_keras

    keras = import_keras()
    from visionkit import nets

    keras.utils.set_random_seed(seed)
    args = {"depths": [1, 1], "width": 8, "stem": "small"}
    classes = len(labels) if heads is None else {head: len(names) for head, names in heads.items()}
    model = nets.resnet(**args, classes=classes, size_hw=size_hw)
    for layer in model.layers:  # spread the answers: heads begin near zero
        if layer.name.startswith("logits"):
            kernel, bias = layer.get_weights()
            layer.set_weights([gain * kernel, bias])
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "tiny.weights.h5"
    model.save_weights(weights)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    lines = ['task = "classify"', 'network = "resnet"', 'licence = "Apache-2.0"']
    if heads is None:
        lines.append(f"labels = {json.dumps(list(labels))}")
    lines += [extra, "[args]", "depths = [1, 1]", "width = 8", 'stem = "small"']
    lines += ["[input]", f"size_hw = {list(size_hw)}", 'resize = "shortest_side"', 'preset = "torch"']
    if heads is not None:
        lines += ["[heads]", *(f"{head} = {json.dumps(list(names))}" for head, names in heads.items())]
    lines += ["[[weights]]", 'file = "tiny.weights.h5"', f'sha256 = "{sha256}"', 'format = "visionkit"']
    (folder / "card.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
