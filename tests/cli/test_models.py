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


def test_numbers_of_others_and_their_terms(cards, capsys):
    path = cards / "away" / "card.toml"
    text = path.read_text().replace("value = 0.61\noriginal = 0.5", 'original = 0.7\nsource = "them, not us"')
    path.write_text(text.replace('licence = "Apache-2.0"', 'licence = "MIT"\nlicence_note = "and ask the owner"'))
    assert run(["models", "list"]) == 0
    assert "away  track  21.0 MB  AUC 0.7 (four clips), reported  MIT + terms  no\n" in capsys.readouterr().out
    assert run(["models", "show", "away"]) == 0
    out = capsys.readouterr().out
    assert "AUC 0.7 (four clips); reported by them, not us\n" in out
    assert "and ask the owner" in out


def test_fetch_says_what_comes_and_where_it_lies(cards, capsys, monkeypatch):
    from visionkit.cli import models

    asked = []

    def fetch(card, entry, progress):
        asked.append((card.name, entry.url))
        progress(10, 20)
        return cards / "x"

    monkeypatch.setattr(models, "fetch", fetch)
    assert run(["models", "fetch", "away", "here"]) == 0
    printed = capsys.readouterr()
    assert printed.err == "Fetching away: 21.0 MB from example.org, licence Apache-2.0\n"
    assert printed.out == f"{cards / 'x'}\nhere: came with VisionKit, nothing to fetch.\n"
    assert asked == [("away", "https://example.org/w.h5")]


def test_fetch_without_a_network_tells_the_way_by_hand(cards, capsys, monkeypatch, tmp_path):
    def closed(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.OpenerDirector.open", closed)
    assert run(["models", "fetch", "away"]) == 5
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith(
        "visionkit: error[fetch-failed]: https://example.org/w.h5: the connection failed (no network)."
    )
    assert f"in the folder {tmp_path / 'cache' / 'weights'} under the name" in err
    assert err.endswith("No download is needed for: here.")


def test_import_checks_the_hash_before_anything_else(cards, capsys, tmp_path):
    brought = tmp_path / "brought.h5"
    brought.write_bytes(b"other")
    assert run(["models", "import", "away", str(brought)]) == 5
    assert "error[hash-mismatch]" in capsys.readouterr().err
    assert run(["models", "import", "away", str(brought), "--allow-other-weights"]) == 5
    assert "holds no weights that can be read here: it is text (5 bytes)" in capsys.readouterr().err
    assert run(["models", "import", "away", str(tmp_path / "none")]) == 5
    assert "error[weights-missing]" in capsys.readouterr().err


def test_import_tries_the_network_and_keeps_a_copy(tmp_path, monkeypatch, capsys):
    """The whole way: a checkpoint of the right hash for a shipped network, found by the card afterwards."""
    from tests.weights.keras_nets import torch_state
    from tests.weights.torch_files import write_checkpoint
    from visionkit import nets
    from visionkit.weights import load_card

    path = write_checkpoint(tmp_path / "mine.pth", torch_state(nets.resnet18(), "fc"))
    sha = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    shipped = load_card("resnet18").folder
    folder = tmp_path / "models" / "resnet18"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text((shipped / "card.toml").read_text().replace("f37072fd", sha))
    monkeypatch.setattr(registry, "models_dir", lambda: tmp_path / "models")
    monkeypatch.setenv("VISIONKIT_CACHE", str(tmp_path / "cache"))
    assert run(["models", "import", "resnet18", str(path)]) == 0
    kept = tmp_path / "cache" / "weights" / f"resnet18-{sha}.pth"
    assert capsys.readouterr().out == f"{kept}\n"
    assert kept.read_bytes() == path.read_bytes()
    assert run(["models", "list"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("yes")
