"""Checkpoints made of noise: each tensor of a reference follows from its name, shape and kind."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

MEAN = np.array((0.485, 0.456, 0.406), np.float32)
STD = np.array((0.229, 0.224, 0.225), np.float32)


@dataclass(frozen=True)
class Reference:
    """`NAME.json` and `NAME.npz` of a folder: a checkpoint, images and what torchvision made of them."""

    facts: dict[str, object]
    arrays: dict[str, np.ndarray]

    @classmethod
    def read(cls, folder: Path, name: str) -> Reference:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
            return cls(json.loads((folder / f"{name}.json").read_text()), dict(arrays))

    def state(self) -> dict[str, np.ndarray]:
        """The checkpoint, in torch's layout."""
        return synthetic_state(self.facts, self.arrays)

    def cases(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Images uint8 (B, H, W, 3) RGB of one size, and their logits (B, L): `image`, or `image_0`, `image_1` …"""
        for name, image in self.arrays.items():
            if name == "image" or name.startswith("image_"):
                logits = self.arrays[name.replace("image", "logits")]
                yield (image, logits) if image.ndim == 4 else (image[None], np.reshape(logits, (1, -1)))


def synthetic_state(facts: dict, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors that `state_dict` of a reference lists; "calibrated" ones lie in `arrays` as `bn/NAME`."""
    scale = facts.get("scale") or {}
    return {
        name: make_tensor(name, entry, arrays) * np.float32(scale[name])
        if name in scale
        else make_tensor(name, entry, arrays)
        for name, entry in facts["state_dict"].items()
    }


def make_tensor(name: str, entry: dict, arrays: dict[str, np.ndarray]) -> np.ndarray:
    shape, kind = tuple(entry["shape"]), entry["kind"]
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    if kind == "normal":
        values = math.sqrt(2 / math.prod(shape[1:])) * random.standard_normal(size=shape)
    elif kind == "uniform":
        values = random.uniform(0.5, 1.5, size=shape)
    elif kind == "bias":
        values = 0.05 * random.standard_normal(size=shape)
    elif kind == "zeros":
        return np.zeros(shape, np.int64)
    elif kind == "calibrated":
        # heads that only training runs were never calibrated
        values = arrays.get(f"bn/{name}", np.full(shape, float(name.endswith("running_var"))))
    else:
        raise ValueError(f"unknown kind {kind!r} of {name}")
    return np.asarray(values, np.float32)


def normalized(image: np.ndarray) -> np.ndarray:
    """Images uint8 RGB as torchvision feeds them: float32, by ImageNet's mean and deviation."""
    return (image.astype(np.float32) / 255 - MEAN) / STD


def calibrate(model: keras.Model, images: np.ndarray) -> keras.Model:
    """Statistics of what the normalisations see: with arbitrary ones a deep network turns rounding into noise."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)
    return model
