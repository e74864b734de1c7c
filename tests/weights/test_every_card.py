"""The contract of a shipped card: it parses, its weights are what it says, its network is there."""

from __future__ import annotations

import importlib
import inspect
import json

import numpy as np
import pytest

from visionkit.resources import models_dir
from visionkit.weights import build_network, card_names, load_card, load_weights

NAMES = card_names()


def test_every_folder_of_models_holds_a_card():
    folders = {path.name for path in models_dir().iterdir() if path.is_dir()}
    assert sorted(folders - {"labels"}) == NAMES  # labels: the sets that several cards share


@pytest.mark.parametrize("name", NAMES)
def test_card_is_whole(name):
    card = load_card(name)
    assert card.summary
    assert card.weights
    assert card.metrics, "a shipped model says what it scores"
    if any(entry.file for entry in card.weights):
        assert card.trained is not None, "bundled weights were trained here: say how"
    for entry in card.weights:
        if entry.url:
            assert entry.bytes or entry.about_bytes, "a download says how large it is"
            assert card.licence_note, "weights of others: say what their authors say"
        if entry.file:
            assert card.weights_path(entry.format).stat().st_size <= 6_000_000


BUNDLED = [name for name in NAMES if any(entry.format == "visionkit" for entry in load_card(name).weights)]


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_weights_fill_their_network(name):
    card = load_card(name)
    model = build_network(card)
    load_weights(model, card)
    assert all(np.isfinite(np.asarray(variable)).all() for variable in model.variables)


@pytest.mark.parametrize("name", NAMES)
def test_network_is_a_function_of_nets_that_takes_the_arguments(name):
    card = load_card(name)
    nets = importlib.import_module("visionkit.nets")
    inspect.signature(getattr(nets, card.network)).bind_partial(**card.args)


@pytest.mark.parametrize("name", NAMES)
def test_a_number_says_whose_it_is(name):
    for metric in load_card(name).metrics:
        assert metric.command if metric.value is not None else metric.source


CLASSIFIERS = [name for name in NAMES if load_card(name).task == "classify"]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_has_names_for_its_classes(name):
    card = load_card(name)
    assert card.labels or card.heads
    assert all(label.isprintable() and label == label.strip() for label in card.labels)
    assert {"preset", "mean"} & card.input.keys()


def test_official_checkpoints_have_their_cards(shared):
    """Every checkpoint of a network that classifies, against the reference: address, hash, size, numbers, input."""
    reference = json.loads((shared / "parity" / "checkpoints.json").read_text())
    cards = {entry.url: load_card(name) for name in NAMES for entry in load_card(name).weights if entry.url}
    official = {
        checkpoint["url"]: (network, checkpoint)
        for network, checkpoints in reference["checkpoints"].items()
        for checkpoint in checkpoints
        if checkpoint["labels"] == "imagenet"
    }
    assert {url for url, card in cards.items() if card.task == "classify"} == set(official)
    for url, (network, checkpoint) in official.items():
        card = cards[url]
        (entry,) = card.weights
        assert (card.network, entry.sha256) == (network, checkpoint["sha256_prefix"])
        assert abs(entry.about_bytes / 2**20 - checkpoint["file_mb"]) < 0.001
        assert {metric.name: metric.original for metric in card.metrics} == checkpoint["metrics"]["ImageNet-1K"]
        assert checkpoint["weights"] in card.summary
        assert list(card.labels) == reference["labels"]["imagenet"]
        rule = card.input
        assert f"crop_size=[{rule['size_hw'][0]}] resize_size=[{rule['resize_size']}]" in checkpoint["transforms"]
        # these two have transform_input=True in torchvision: their own rule, undone and turned into TensorFlow's
        assert rule["preset"] == ("tf" if network in ("googlenet", "inception_v3") else "torch")
