"""Small classifiers whose answers are far from 0 and 1, so that whatever goes wrong before them shows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tests.nets.synthetic import calibrate
from visionkit import nets
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.load_classify import card_rule
from visionkit.weights import Card, load_card

LABELS = ("blue", "green", "red", "dark", "bright")
SIZES = ((40, 56), (90, 51), (300, 420), (33, 57))
COLOURS = ((220, 40, 30), (40, 200, 60), (30, 60, 230), (40, 40, 40), (210, 220, 215))


def pictures(sizes: Any = SIZES) -> list[np.ndarray]:
    """uint8 (H, W, 3) BGR: each of another colour, which changes along the image, and noise."""
    random = np.random.default_rng(5)
    out = []
    for place, (height, width) in enumerate(sizes):
        y, x = np.mgrid[:height, :width]
        slope = 60 * np.stack([y / height, x / width, (x + y) / (height + width)], axis=-1) - 30
        colour = np.array(COLOURS[place % len(COLOURS)])
        out.append(np.clip(colour + slope + random.normal(0, 20, slope.shape), 0, 255).astype(np.uint8))
    return out


def soften(model: keras.Model, rule: InputRule) -> None:
    """Statistics of pictures in the normalisations, logits of a deviation of 1 over the pictures."""
    inputs = rule.batch(pictures([(64, 64)] * len(COLOURS)))
    calibrate(model, inputs)
    found = model(inputs, training=False)
    for head, logits in (found if isinstance(found, dict) else {"": found}).items():
        layer = model.get_layer(f"logits_{head}" if head else "logits")
        spread, middle = float(np.std(np.asarray(logits), axis=0).mean()), np.asarray(logits).mean(axis=0)
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel / spread, (bias - middle) / spread])


def small_card(
    folder: Path, *, labels: Any = LABELS, heads: Any = None, network: str = "resnet", args: Any = None, **rule: Any
) -> tuple[Card, Path]:
    """A card with this input rule, and the file of its weights; `folder` is that of the card."""
    folder.mkdir(parents=True, exist_ok=True)
    args = {"depths": [1, 1], "width": 8, "stem": "small"} if args is None else args
    rule = {"size_hw": [40, 56], "resize": "stretch", "preset": "torch", **rule}
    card = Card(folder.name, folder, "classify", network, "Apache-2.0", args=args, input=rule)
    keras.utils.set_random_seed(4)
    counts: Any = {head: len(names) for head, names in heads.items()} if heads else len(labels)
    model = getattr(nets, network)(**{"classes": counts, **args}, size_hw=tuple(rule["size_hw"]))
    soften(model, card_rule(card))
    weights = folder / "small.weights.h5"
    model.save_weights(weights)
    lines = ['task = "classify"', f'network = "{network}"', 'licence = "Apache-2.0"']
    lines += [] if heads or not labels else [f"labels = {json.dumps(list(labels))}"]
    lines += ["[args]", *(f"{key} = {json.dumps(value)}" for key, value in args.items())]
    lines += ["[input]", *(f"{key} = {json.dumps(value)}" for key, value in rule.items())]
    lines += ["[heads]", *(f"{head} = {json.dumps(list(names))}" for head, names in heads.items())] if heads else []
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    lines += ["[[weights]]", f'file = "{weights.name}"', f'sha256 = "{digest}"', 'format = "visionkit"']
    (folder / "card.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_card(folder), weights
