"""`visionkit models`: cards as a table, as a page, as JSON."""

from __future__ import annotations

import hashlib
import json

import pytest

from visionkit.cli.shell import run
from visionkit.weights import registry

DATA = b"weights" * 200
CARD = """
summary = "{name} follows"
task = "track"
network = "tiny"
licence = "Apache-2.0"
[args]
width = 0.5
[input]
exemplar_size = 127
search_size = 255
[[metrics]]
name = "AUC"
data = "four clips"
value = 0.61
original = 0.5
[[weights]]
{where}
sha256 = "{sha}"
format = "visionkit"
"""


@pytest.fixture
def cards(tmp_path, monkeypatch):
    """Two cards in the place of the shipped ones: `here` with its weights, `away` with an address."""
    sha = hashlib.sha256(DATA).hexdigest()
    for name, where in (("here", 'file = "w.h5"'), ("away", 'url = "https://example.org/w.h5"\nbytes = 21000000')):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "card.toml").write_text(CARD.format(name=name, where=where, sha=sha))
    (tmp_path / "models" / "here" / "w.h5").write_bytes(DATA)
    monkeypatch.setattr(registry, "models_dir", lambda: tmp_path / "models")
    monkeypatch.setenv("VISIONKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "models"


def test_list_is_a_table(cards, capsys):
    assert run(["models", "list"]) == 0
    assert capsys.readouterr().out == (
        "NAME  TASK   SIZE     METRIC                 LICENCE     HERE\n"
        "away  track  21.0 MB  AUC 0.61 (four clips)  Apache-2.0  no\n"
        "here  track  1.4 kB   AUC 0.61 (four clips)  Apache-2.0  yes\n"
    )


def test_list_as_json(cards, capsys):
    assert run(["models", "list", "--json"]) == 0
    away, here = json.loads(capsys.readouterr().out)
    assert (away["name"], away["here"], away["size"]) == ("away", False, 21_000_000)
    assert (here["name"], here["here"], here["size"]) == ("here", True, len(DATA))
    assert here["input"] == {"exemplar_size": 127, "search_size": 255}
    assert here["metrics"][0]["value"] == 0.61


def test_show_tells_everything(cards, capsys):
    assert run(["models", "show", "here"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "summary              here follows" in lines
    assert "network              tiny(width=0.5)" in lines
    assert "input search_size    255" in lines
    assert "metric               AUC 0.61 (four clips); the original: 0.5" in lines
    assert lines[-1].endswith(f"sha256 {hashlib.sha256(DATA).hexdigest()}, {cards / 'here' / 'w.h5'}")
    assert run(["models", "show", "here", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["task"] == "track"


def test_show_of_an_unknown_model_names_the_near_one(cards, capsys):
    assert run(["models", "show", "hare"]) == 5
    assert capsys.readouterr().err == (
        "visionkit: error[unknown-model]: There is no model 'hare'. Did you mean 'here'? "
        "`visionkit models list` tells about each.\n"
    )


def test_a_broken_card_is_named(cards, capsys):
    path = cards / "away" / "card.toml"
    path.write_text(path.read_text().replace("licence =", "license ="))
    assert run(["models", "list"]) == 8
    assert capsys.readouterr().err.startswith(
        f"visionkit: error[card-invalid]: The card {path} does not fit: the card has an unknown key `license`. "
        "Did you mean `licence`?"
    )


def test_the_shipped_cards_can_be_listed_and_shown(capsys):
    assert run(["models", "list", "--json"]) == 0
    for card in json.loads(capsys.readouterr().out):
        assert run(["models", "show", card["name"]]) == 0
        assert card["licence"] in capsys.readouterr().out
