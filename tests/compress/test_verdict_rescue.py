"""The rescue's search on made numbers: as few layers in float as will do, in few tries."""

from __future__ import annotations

import pytest

from visionkit.compress.report_data import LayerDamage
from visionkit.compress.rescue import rescue
from visionkit.compress.verdict import Interval, VariantFacts

LAYERS = [LayerDamage(f"layer{k}", "CONV_2D", 10.0 + k) for k in range(20)]


def searched(needed, layers=LAYERS):
    tries = []

    def trying(kept):
        tries.append(len(kept))
        loss = max(0.0, float(needed - len(kept)))
        return VariantFacts("int8-rescued", drop=Interval(loss, loss, loss), images=1000)

    first = VariantFacts("int8", drop=Interval(needed, needed, needed), images=1000)
    steps = rescue(layers, trying, lambda facts: facts.drop.high <= 0, first)
    return steps, tries


@pytest.mark.parametrize("needed", range(1, 21))
def test_the_fewest_layers_are_found_in_few_tries(needed):
    steps, tries = searched(needed)
    assert steps[-1].kept == tuple(layer.name for layer in LAYERS[:needed])
    assert steps[-1].facts.drop.value == 0
    assert len(tries) == len(set(tries)) <= 9
    assert len(steps) == len(tries) + 1  # and the one that was there


def test_where_nothing_helps_all_layers_are_the_last_step():
    steps, tries = searched(99)
    assert len(steps[-1].kept) == 20
    assert steps[-1].facts.drop.value > 0
    assert tries == [1, 2, 4, 8, 16, 20]


def test_one_layer():
    steps, tries = searched(1, LAYERS[:1])
    assert tries == [1]
    assert [step.kept for step in steps] == [(), ("layer0",)]
