"""The contract of a shipped card: it parses, its weights are what it says, its network is there."""

from __future__ import annotations

import importlib
import inspect

import pytest

from visionkit.resources import models_dir
from visionkit.weights import card_names, load_card

NAMES = card_names()


def test_every_folder_of_models_holds_a_card():
    assert sorted(path.name for path in models_dir().iterdir() if path.is_dir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_card_is_whole(name):
    card = load_card(name)
    assert card.summary
    assert card.weights
    assert card.metrics, "a shipped model says what it scores"
    if any(entry.file for entry in card.weights):
        assert card.trained is not None, "bundled weights were trained here: say how"
    for entry in card.weights:
        if entry.file:
            assert card.weights_path(entry.format).stat().st_size <= 6_000_000


@pytest.mark.parametrize("name", NAMES)
def test_network_is_a_function_of_nets_that_takes_the_arguments(name):
    card = load_card(name)
    nets = importlib.import_module("visionkit.nets")
    inspect.signature(getattr(nets, card.network)).bind_partial(**card.args)
