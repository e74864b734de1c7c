"""Every card's network as a SavedModel and, where LiteRT's builtins suffice, as a `.tflite`, equal to Keras.

`export_model` is the judge: it runs what it wrote without VisionKit and compares, networks within 1e-4 (SavedModels
1e-5), and `serving_default`, images in and results out, with the task in Keras within 1e-4. Weights that are not on
this machine are random, and sizes are small where a network allows: what is exported is the network, not its knowledge.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from tests.export.detector_weights import spread, spread_levels
from tests.export.unsaturated import pictures
from visionkit.errors import ModelError
from visionkit.export import export_model
from visionkit.weights import Card, card_names, load_card

SUFFIXES = {"savedmodel": "", "litert": ".tflite"}
END_TO_END = 1e-4
SMALL = {"classify": (64, 80), "segment": (64, 96)}
TWO_STAGES = (160, 224)
SIZES = {"inception_v3": (96, 112), "alexnet": (80, 96), "siambox_light": None, "skin": None, "bccd_cells": None}

# Where builtins do not suffice, and why. Empty: all of our layers are made of operations that LiteRT has.
WITHOUT_BUILTINS: dict[str, str] = {}

# Exported at each run of the tests; the others take many minutes together, or gigabytes (VGG: 550 MB of weights).
QUICK = {
    ("sign_digits_stn", "litert"),
    ("skin", "litert"),
    ("siambox_light", "litert"),
}


def same_network(card: Card) -> str:
    """What makes two cards one network: they differ in weights and in the size that images are resized to."""
    rule = {key: value for key, value in card.input.items() if key not in ("resize_size", "preset")}
    return f"{card.network} {dict(card.args)} {rule}"


CARDS = {same_network(load_card(name)): name for name in reversed(card_names())}
CASES = [
    pytest.param(name, kind, marks=[] if (name, kind) in QUICK else pytest.mark.slow)
    for name in sorted(CARDS.values())
    for kind in SUFFIXES
]


def at_random(model: keras.Model, *_: Any, **__: Any) -> None:
    """A network with random weights whose answers are neither all the same nor explode."""
    quieten_residuals(model)
    if two_stages(model.name):
        spread(model, seen_by(model, 3))
        return
    normalise(model)
    if isinstance(model.output, dict) and "box_deltas" in model.output:
        spread_levels(model, seen_by(model, 3))


def seen_by(model: keras.Model, count: int) -> np.ndarray:
    """Pictures float32 (count, H, W, C) of the network's size, from -2 to 2."""
    height, width, channels = model.inputs[0].shape[1:]
    return (np.stack(pictures([(height, width)] * count))[..., :channels] / np.float32(64) - 2).astype(np.float32)


def two_stages(network: str) -> bool:
    return "rcnn" in network


def normalise(model: keras.Model) -> None:
    """Weights as they are at first, normalisations of what they see: answers neither explode nor are all the same.

    Not of what hardly varies over a few pictures, such as the mean of a whole map: that would enlarge rounding errors.
    """
    normal = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if len(model.inputs) != 1 or None in model.inputs[0].shape[1:] or not normal:
        return
    seen = seen_by(model, 5)
    for layer in normal:
        layer.momentum = 0.0
    model(seen, training=True)
    for layer in normal:
        variance = np.asarray(layer.moving_variance)
        layer.moving_variance.assign(np.maximum(variance, max(1e-2, float(np.median(variance)) / 10)))
    answers = [layer for layer in model.layers if getattr(layer, "kernel", None) is not None]
    named = [layer for layer in answers if layer.name == "logits"]
    for layer in named or answers[-1:] * (not isinstance(model.output, dict)):
        # deep networks at random enlarge each pixel: answers a quarter apart
        apart = float(np.std(np.asarray(model(seen, training=False)), axis=0).mean())
        layer.kernel.assign(layer.kernel / (4 * max(apart, 1e-6)))


def quieten_residuals(model: keras.Model) -> None:
    """A quarter of their scale for the normalisations that are added to something, but to that of a projection.

    A deep sum of equals enlarges each pixel's rounding a thousand times: float32 lies 4e-4 from float64 in DeepLab on
    ResNet-50, in Keras as elsewhere, and 2e-5 so.
    """
    for layer in model.layers:
        if not isinstance(layer, keras.layers.Add):
            continue
        added = [tensor._keras_history.operation for tensor in layer.input]
        for one in added:
            if isinstance(one, keras.layers.BatchNormalization) and "downsample" not in one.name:
                one.gamma.assign(one.gamma / 4)


@pytest.fixture
def random_weights(monkeypatch, tmp_path) -> None:
    """A network is left as it was built, and nothing is fetched."""
    file = tmp_path / "random.weights.h5"
    file.write_bytes(b"random")
    monkeypatch.setattr("visionkit.weights.obtain", lambda *_, **__: file)
    monkeypatch.setattr("visionkit.weights.load_weights", at_random)
    keras.utils.set_random_seed(3)


def test_every_card_is_here():
    assert {same_network(load_card(name)) for name in card_names()} == set(CARDS)
    assert {name for name, _ in QUICK} | set(WITHOUT_BUILTINS) <= set(CARDS.values())


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_cards_network_is_exported(name, kind, tmp_path, request):
    card = load_card(name)
    size_hw = TWO_STAGES if two_stages(card.network) else SIZES.get(name, SMALL.get(card.task))
    if not any(card.find(entry) for entry in card.weights):
        request.getfixturevalue("random_weights")
    place = tmp_path / f"made{SUFFIXES[kind]}"
    images = pictures([(120, 90), (75, 130)])
    if kind == "litert" and name in WITHOUT_BUILTINS:
        with pytest.raises(ModelError, match="in layer") as caught:
            export_model(card, place, format=kind, size_hw=size_hw, probes=images)
        assert caught.value.slug == "export-builtins"
        return
    artifact = export_model(card, place, format=kind, size_hw=size_hw, probes=images)
    checked, tolerances = artifact.made["checked"], artifact.made["tolerances"]
    assert set(artifact.parts.values()) <= set(checked)
    for part in artifact.parts.values():
        assert max(checked[part].values()) <= artifact.made["raw_tolerance"]
    for output, tolerance in tolerances.items():
        assert tolerance <= END_TO_END
        assert checked["serving_default"][output] <= tolerance
    if card.task == "detect":  # no answer is like any other
        assert all(count > 0 for told, count in artifact.probes().items() if told.startswith("serving/num_detections/"))
