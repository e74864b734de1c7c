"""Whether a calibration's red and blue are in the right order, and what is said where that cannot be told."""

from __future__ import annotations

import numpy as np
import pytest

from tests.compress.test_calibration import RULE, pictures
from visionkit.compress.calibration_checks import Checked, checked


def network(gains, sure):
    """A network that is sure by `sure` of the k-th image, and by `gains[k]` surer with red and blue exchanged."""
    calls = iter(range(1 << 30))

    def answer(_):
        place, exchanged = divmod(next(calls), 2)
        share = sure + gains[place % len(gains)] * exchanged
        return {"logits": np.log(np.array([[share, 1 - share]]))}

    return answer


def told(gains, *, count=32, sure=0.85, hue=0):
    return checked(pictures(count, hue), RULE, network=network(gains, sure))


def test_a_network_that_loses_by_the_exchange_settles_it():
    assert told([-0.05, -0.01, -0.02, 0.005]) == Checked()
    assert [one.slug for one in told([0.05, 0.01, 0.02, -0.005]).findings] == ["channel-order"]


def test_two_images_on_which_it_turns_round_do_not_hide_the_rest():
    """30 of 32 gain 0.02, two lose 0.34: the mean of that is below 0, of what counts up to 0.1 it is 0.0125."""
    gains = ([0.02] * 15 + [-0.34]) * 2
    assert np.mean(gains) < 0
    assert [one.slug for one in told(gains, hue=-40).findings] == ["channel-order"]


@pytest.mark.parametrize(
    ("gains", "how", "words"),
    [
        ([0.01], {"count": 5}, "5 images are too few"),
        ([0.05], {"sure": 0.55}, "does not know such images: it is sure by 60% in the mean"),
        ([0.02, -0.02], {}, "on 32 images the network is as sure with red and blue exchanged"),
    ],
)
def test_what_cannot_be_told_is_said(gains, how, words):
    found = told(gains, **how)
    assert found.findings == ()
    assert words in found.unjudged


def test_other_evidence():
    assert checked(pictures(16), RULE).unjudged == "there is no network to ask"
    maps = checked(pictures(16), RULE, network=lambda _: {"features": np.zeros((1, 4))})
    assert "tells no class" in maps.unjudged
    assert checked(pictures(16, 40), RULE, reference=pictures(16, 40)) == Checked()
