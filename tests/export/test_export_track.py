"""Trackers as files: two halves, which plain runtimes run, and which follow an object as the card does."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.export.plain import alone, picture
from visionkit.errors import ModelError, UsageError
from visionkit.export import export_model
from visionkit.export.plan import ExportOptions, make_plan
from visionkit.export.signatures import Signatures
from visionkit.runtime.convert import NamedCall
from visionkit.runtime.keras_net import KerasRunner
from visionkit.tasks import load_tracker
from visionkit.train.sequence import rendered_sequence
from visionkit.weights import load_card

CARD = "siambox_light"
FORMATS = {"savedmodel": "net", "litert": "net.tflite"}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[[str], Path]:
    """The bundled tracker in a format, written when it is first asked for."""
    place = tmp_path_factory.mktemp("made")
    return functools.cache(lambda kind: export_model(CARD, place / FORMATS[kind], format=kind).path)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "savedmodel")) for kind in FORMATS]
)
def test_alone_its_halves_say_what_keras_says(made, kind: str, tmp_path: Path) -> None:
    plan = make_plan(load_card(CARD), ExportOptions(kind))
    assert dict(plan.parts) == {"exemplar": "exemplar", "search": "search"}
    feeds = [plan.raw_inputs(picture(120, 150, seed)) for seed in (0, 1)]
    for signature in ("exemplar", "search", "serving_default"):
        half = "search" if signature == "serving_default" else signature
        runner = KerasRunner(plan.raw[half], threads=1)
        answers = alone(made(kind), [feed[half] for feed in feeds], tmp_path, signature)
        for answer, feed in zip(answers, feeds, strict=True):
            wanted = runner(**feed[half])
            assert set(answer) == set(wanted)
            for name, value in wanted.items():
                assert np.abs(answer[name] - value).max() < 1e-4 * max(1.0, np.abs(value).max())


@pytest.mark.parametrize("kind", list(FORMATS))
def test_it_follows_as_the_card_does(made, kind: str) -> None:
    frames = list(rendered_sequence(25, (120, 190), seed=5))
    tracks = []
    for task in (load_tracker(CARD, runtime="keras"), load_tracker(made(kind), trust=True)):
        found = [task.init(*frames[0]), *(task.update(image) for image, _ in frames[1:])]
        tracks.append(np.array([[*track.xyxy, track.confidence] for track in found]))
    assert np.abs(tracks[0] - tracks[1]).max() < 0.01  # px of 190
    assert np.abs(np.diff(tracks[0][:, :4], axis=0)).max() > 0.5  # it moved


def test_sizes_are_the_cards(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave the size out") as error:
        export_model(CARD, tmp_path / "net", format="savedmodel", size_hw=(96, 96))
    assert error.value.slug == "option-unfit"


def test_a_half_with_its_sides_swapped_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Signatures.raw

    def swapped(self: Signatures, name: str) -> NamedCall:
        call = plain(self, name)

        def told(**tensors):
            return {key: value[..., ::-1] if key == "ltrb" else value for key, value in call.call(**tensors).items()}

        return dataclasses.replace(call, call=told)

    monkeypatch.setattr(Signatures, "raw", swapped)
    with pytest.raises(ModelError, match="'ltrb' of its signature 'search'") as error:
        export_model(CARD, tmp_path / "net", format="savedmodel")
    assert error.value.slug == "export-differs"
    assert not list(tmp_path.iterdir())
