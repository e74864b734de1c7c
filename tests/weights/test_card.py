"""Cards: what fits is held, what does not is refused by name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from visionkit import weights
from visionkit.errors import ModelError, RecipeError
from visionkit.weights import registry
from visionkit.weights.card import Metric, Trained
from visionkit.weights.card_file import INPUT, TASKS, read_card

DATA = b"not really weights"
SHA = hashlib.sha256(DATA).hexdigest()
CARD = f"""
summary = "a tracker"
task = "track"
network = "tiny"
licence = "Apache-2.0"
paper = "Nobody, Nothing, Nowhere 2020"

[args]
width = 0.5

[input]
exemplar_size = 127
search_size = 255
context = 0.5
mean = [0, 0.5, 1]

[options]
lost_below = 0.2

[[metrics]]
name = "AUC"
data = "four clips"
value = 0.61
original = 0.58

[[weights]]
file = "tiny.weights.h5"
sha256 = "{SHA}"
format = "visionkit"

[trained]
command = "visionkit train siamese --seed 3"
data = "rendered scenes"
seed = 3
hours = 2
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder of models that holds one card, `tiny`, in the place of the shipped ones."""
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(CARD)
    (folder / "tiny.weights.h5").write_bytes(DATA)
    monkeypatch.setattr(registry, "models_dir", lambda: tmp_path / "models")
    monkeypatch.setenv("VISIONKIT_CACHE", str(tmp_path / "cache"))
    return folder


def change(folder: Path, old: str, new: str) -> Path:
    text = CARD.replace(old, new)
    assert text != CARD
    path = folder / "card.toml"
    path.write_text(text)
    return path


def test_a_card_is_held_whole(folder):
    card = weights.load_card("tiny")
    assert (card.name, card.task, card.network, card.licence) == ("tiny", "track", "tiny", "Apache-2.0")
    assert card.args == {"width": 0.5}
    assert card.input == {"exemplar_size": 127, "search_size": 255, "context": 0.5, "mean": [0, 0.5, 1]}
    assert card.options == {"lost_below": 0.2}
    assert card.labels == ()
    assert card.metrics == (Metric("AUC", "four clips", 0.61, 0.58),)
    assert card.trained == Trained("visionkit train siamese --seed 3", "rendered scenes", 3, 2)
    assert card.weights[0].name == "tiny.weights.h5"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "summary =",
            "sumary =",
            "the card has an unknown key `sumary`. Did you mean `summary`? Known: summary, task,",
        ),
        (
            "context =",
            "kontext =",
            "[input] (task track) has an unknown key `kontext`. Did you mean `context`? Known: exe",
        ),
        ("original =", "orig =", "[[metrics]] 1 has an unknown key `orig`"),
        ('format = "visionkit"', "", "[[weights]] 1 lacks the key `format`."),
        ("hours =", "days =", "[trained] has an unknown key `days`. Known: command, data, seed, hours."),
        ('task = "track"', "", "the card lacks the key `task`."),
        ('task = "track"', 'task = "follow"', "`task` of the card must be one of classify, segment, detect, track."),
        ('task = "track"', "task = 3", "`task` of the card must be a string. Received: 3."),
        ("exemplar_size = 127", "exemplar_size = true", "`exemplar_size` of [input] (task track) must be an integer."),
        ("exemplar_size = 127", "exemplar_size = 0", "must be positive. Received: 0."),
        ("mean = [0, 0.5, 1]", "mean = [0, 0.5]", "must be [float, float, float]. Received: [0, 0.5]."),
        ("value = 0.61\noriginal = 0.58", "", "[[metrics]] 1 must have `value` (measured here), `original` (reported)"),
        ("value = 0.61", "value = nan", "`value` of [[metrics]] 1 must be finite. Received: nan."),
        ("[[metrics]]", "[metrics]", "`metrics` of the card must be a list. Received: {'name': 'AUC'"),
        ("tiny.weights.h5", "../tiny.h5", "`file` of [[weights]] 1 must be a path inside the card's folder."),
        ("tiny.weights.h5", "/etc/passwd", "`file` of [[weights]] 1 must be a path inside the card's folder."),
        (SHA, SHA[:8], "`sha256` of [[weights]] 1 must have all 64 digits, as it has a `file`."),
        (
            SHA,
            SHA.upper()[:-1] + "G",
            "`sha256` of [[weights]] 1 must be 64 (or torchvision's 8) lower-case hex digits.",
        ),
        ('file = "tiny.weights.h5"', "", "[[weights]] 1 must have either `file` or `url`."),
        (
            'file = "tiny.weights.h5"',
            'url = "http://example.org/x"',
            "`url` of [[weights]] 1 must be an https address.",
        ),
        ('network = "tiny"', 'network = "os.system"', "`network` of the card must be the name of a function"),
        ('summary = "a tracker"', 'labels = ["a", 2]', "`labels` must be strings with something in them. Received: 2."),
        ('summary = "a tracker"', 'labels_file = "none.txt"', "`labels_file` 'none.txt' cannot be read"),
        (
            'summary = "a tracker"',
            'label_set = "all"',
            "`label_set` must be one of coco-91, imagenet-1k, voc-21. Received: 'all'.",
        ),
        (
            'summary = "a tracker"',
            'labels = ["a"]\nlabel_set = "imagenet-1k"',
            "the card must have one of `labels`, `label_set`.",
        ),
        (
            "[options]",
            "[heads]\na = ['b']\n[options]",
            "[heads] names the heads of a card to classify without `labels`",
        ),
    ],
)
def test_what_does_not_fit_is_named(folder, old, new, message):
    path = change(folder, old, new)
    with pytest.raises(RecipeError) as caught:
        weights.load_card("tiny")
    assert caught.value.slug == "card-invalid"
    assert caught.value.message.startswith(f"The card {path} does not fit: ")
    assert message in caught.value.message


@pytest.mark.parametrize(
    "raw", [b"task = ", b"task = 'a'\ntask = 'b'", b"\xff\xfe", b"a = " + b"[" * 20000, b"#" * 1_000_001]
)
def test_what_is_not_toml_is_refused(folder, raw):
    (folder / "card.toml").write_bytes(raw)
    with pytest.raises(RecipeError) as caught:
        weights.load_card("tiny")
    assert caught.value.slug == "card-invalid"


def test_labels_may_lie_beside_the_card(folder):
    (folder / "labels.txt").write_text("cat\ndog\n", encoding="utf-8")
    change(folder, 'summary = "a tracker"', 'labels_file = "labels.txt"')
    assert weights.load_card("tiny").labels == ("cat", "dog")


def test_an_image_task_needs_a_size_and_a_resize(tmp_path):
    path = tmp_path / "card.toml"
    text = 'task = "{}"\nnetwork = "n"\nlicence = "MIT"\n[input]\nsize_hw = [320, 480]\nresize = "letterbox"\n'
    for task in TASKS[:3]:
        path.write_text(text.format(task))
        assert read_card(path).input == {"size_hw": [320, 480], "resize": "letterbox"}
    path.write_text(text.format("detect").replace("320, ", ""))
    with pytest.raises(RecipeError, match=r"must be \[int, int\]"):
        read_card(path)
    assert set(INPUT) == set(TASKS)


IMAGE = """
task = "classify"
network = "n"
licence = "MIT"
licence_note = "and more"
{labels}
[input]
size_hw = [224, 288]
resize = "shortest_side"
resize_size = 320
preset = "tf"
[[metrics]]
name = "acc@1"
data = "all of it"
original = 71
source = "them"
"""


def test_a_classifier_of_others(tmp_path):
    path = tmp_path / "card.toml"
    path.write_text(IMAGE.format(labels='label_set = "imagenet-1k"'))
    card = read_card(path)
    assert (len(card.labels), card.labels[0], card.labels[-1]) == (1000, "tench", "toilet tissue")
    assert card.heads == {}
    assert card.input["preset"] == "tf"
    assert card.metrics == (Metric("acc@1", "all of it", None, 71, source="them"),)
    assert card.licence_note == "and more"


def test_a_classifier_of_several_heads(tmp_path):
    path = tmp_path / "card.toml"
    path.write_text(IMAGE.format(labels="") + '[heads]\ncolour = ["red", "green"]\nshape = ["round"]\n')
    card = read_card(path)
    assert card.heads == {"colour": ("red", "green"), "shape": ("round",)}
    assert card.labels == ()
    for wrong in ("colour = []", "[heads.a]\nb = 1", "'a b' = ['c']", "a = [1]"):
        path.write_text(IMAGE.format(labels="") + f"[heads]\n{wrong}\n")
        with pytest.raises(RecipeError, match=r"heads\]"):
            read_card(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('preset = "tf"', 'preset = "tf"\nmean = [0, 0, 0]', "`preset`, which says all of `mean`"),
        (
            'preset = "tf"',
            'preset = "tf"\nstd = [1, 1, 1]\nchannel_order = "rgb"',
            "says all of `channel_order`, `std`",
        ),
        ('preset = "tf"', 'preset = "jax"', "must be one of torch, tf, caffe"),
        ('preset = "tf"', 'channel_order = "grb"', "must be one of rgb, bgr"),
        ("resize_size = 320", "resize_size = 287", "`resize_size` of [input] must be at least 288"),
        ('"shortest_side"', '"stretch"', '`resize_size` of [input] goes with resize = "shortest_side" only'),
    ],
)
def test_rules_of_input_that_exclude_each_other(tmp_path, old, new, message):
    text = IMAGE.format(labels="").replace(old, new)
    (tmp_path / "card.toml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_card(tmp_path / "card.toml")
    assert message in caught.value.message


def test_a_byte_order_mark_and_crlf_are_no_matter(folder):
    (folder / "card.toml").write_bytes(b"\xef\xbb\xbf" + CARD.replace("\n", "\r\n").encode())
    assert weights.load_card("tiny").licence == "Apache-2.0"


def test_weights_are_checked_against_the_card(folder):
    card = weights.load_card("tiny")
    assert card.weights_path() == folder / "tiny.weights.h5"
    assert card.weights_path("visionkit") == folder / "tiny.weights.h5"
    assert card.state() == "ok"
    (folder / "tiny.weights.h5").write_bytes(DATA[:-1] + b"X")
    assert card.state() == "mismatch"
    with pytest.raises(ModelError, match=f"the card says {SHA[:16]}") as caught:
        card.weights_path()
    assert (caught.value.slug, caught.value.exit_code) == ("hash-mismatch", 5)


def test_missing_weights_tell_what_is_missing(folder):
    card = weights.load_card("tiny")
    with pytest.raises(ModelError, match=r"no weights of format tflite\. It has: visionkit") as caught:
        card.weights_path("tflite")
    assert caught.value.slug == "weights-missing"
    (folder / "tiny.weights.h5").unlink()
    assert card.state() == "missing"
    with pytest.raises(ModelError, match="which is not there"):
        card.weights_path()


def test_weights_with_an_address_are_looked_for_where_the_error_says(folder, tmp_path):
    url = "https://example.org/models/big-abcd.pth"
    change(folder, 'file = "tiny.weights.h5"', f'url = "{url}"\nbytes = 20')
    card = weights.load_card("tiny")
    place = tmp_path / "cache" / "weights" / f"{SHA[:8]}-big-abcd.pth"
    with pytest.raises(ModelError) as caught:
        card.weights_path()
    assert "`visionkit models fetch tiny` fetches them" in caught.value.message
    assert f"put {url} at {place}." in caught.value.message
    place.parent.mkdir(parents=True)
    place.write_bytes(DATA)
    assert card.weights_path() == place


def test_cards_are_found_by_name_and_by_path(folder):
    assert weights.card_names() == ["tiny"]
    assert [card.name for card in weights.list_cards()] == ["tiny"]
    for place in (folder, f"{folder}/", folder / "card.toml"):
        assert weights.load_card(place).name == "tiny"
    with pytest.raises(ModelError, match=r"There is no model 'tinny'\. Did you mean 'tiny'") as caught:
        weights.load_card("tinny")
    assert caught.value.slug == "unknown-model"
