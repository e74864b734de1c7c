"""Weights brought by hand: checked, tried, copied to where fetched ones lie."""

from __future__ import annotations

import dataclasses
import hashlib

import keras
import numpy as np
import pytest

from tests.weights.keras_nets import card_of, torch_state
from tests.weights.torch_files import Opcodes, write_checkpoint, write_members
from visionkit.errors import ModelError, OutputError
from visionkit.weights import Weights, build_network, import_weights

LENET = card_of("lenet5", (32, 32), 7)
RESNET = card_of("resnet18", (64, 64), 5)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


def named(card, path, digits=8):
    """The card, its weights those of the file at `path`."""
    sha = hashlib.sha256(path.read_bytes()).hexdigest()[:digits]
    entry = Weights(None, f"https://example.org/net-{sha}.pth", sha, "torchvision")
    return dataclasses.replace(card, weights=(entry,))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("brought") / "mine.pth"
    return write_checkpoint(path, torch_state(build_network(RESNET), "fc"))


def test_the_cards_own_weights_are_found_afterwards(cache, checkpoint):
    card = named(RESNET, checkpoint)
    path = import_weights(card, checkpoint)
    assert path == cache / card.weights[0].name
    assert path.read_bytes() == checkpoint.read_bytes()
    assert card.weights_path() == path
    assert [item.name for item in cache.iterdir() if not item.name.endswith(".lock")] == [path.name]


def test_weights_that_are_not_the_cards(cache, checkpoint, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"x")
    card = named(RESNET, other)
    with pytest.raises(ModelError) as caught:
        import_weights(card, checkpoint)
    assert caught.value.slug == "hash-mismatch"
    for words in (str(checkpoint), card.weights[0].sha256, card.weights[0].url, "--allow-other-weights"):
        assert words in caught.value.message
    assert not cache.exists()
    path = import_weights(card, checkpoint, allow_other=True)
    assert path.parent == cache / "own"
    assert path.read_bytes() == checkpoint.read_bytes()
    with pytest.raises(ModelError, match="are not on this machine"):
        card.weights_path()  # they do not pass for the official ones


def test_own_weights_of_keras(cache, tmp_path):
    model = build_network(LENET)
    model.save_weights(tmp_path / "mine.weights.h5")
    with pytest.raises(ModelError, match="came with VisionKit and are not imported"):
        import_weights(LENET, tmp_path / "mine.weights.h5")
    path = import_weights(LENET, tmp_path / "mine.weights.h5", allow_other=True)
    assert path.name.startswith("lenet5-")
    assert path.name.endswith("-mine.weights.h5")


def test_nothing_unfit_is_copied(cache, tmp_path):
    wrong = write_checkpoint(tmp_path / "wrong.pth", {"conv1.weight": np.zeros((3, 3), np.float32)})
    with pytest.raises(ModelError, match="does not fit resnet18") as caught:
        import_weights(named(RESNET, wrong), wrong)
    assert caught.value.slug == "model-unfit"
    hostile = tmp_path / "hostile.pth"
    write_members(hostile, {"data.pkl": Opcodes().name("os", "system").value(("touch x",)).raw(b"R").end()})
    with pytest.raises(ModelError, match=r"os\.system") as caught:
        import_weights(named(RESNET, hostile), hostile, attempt=None)
    assert caught.value.slug == "model-unsafe"
    with pytest.raises(ModelError, match="there is no such file"):
        import_weights(RESNET, tmp_path / "none.pth")
    assert not cache.exists() or not any(path.suffix == ".pth" for path in cache.iterdir())


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch, checkpoint):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VISIONKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError) as caught:
        import_weights(named(RESNET, checkpoint), checkpoint, attempt=None)
    assert caught.value.slug == "cache-unwritable"
