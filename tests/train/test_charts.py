"""Charts: names that do not lie on each other, axes whose numbers differ."""

from __future__ import annotations

import re

import pytest

from visionkit.train.charts import curves


def axis(chart):
    return re.findall(r'text-anchor="end">([^<]*)<', chart)


@pytest.mark.parametrize(("low", "high"), [(0.63, 0.66), (0, 1), (0.9990, 0.9999), (0, 12000), (3, 3.1)])
def test_numbers_of_an_axis_differ_and_are_near_their_places(low, high):
    told = axis(curves("a", {"a": [low, high]}, bottom=low, top=high))
    assert len(set(told)) == 5
    places = [low + (high - low) * part / 4 for part in range(5)]
    assert [float(word) for word in told] == pytest.approx(places, abs=(high - low) / 16)


def test_names_follow_each_other_in_one_text():
    chart = curves("a", {"a name that is longer than most": [1, 2], "<b>": [2, 1]})
    legend = re.search(r"<text [^>]*>(<tspan.*)</text>", chart).group(1)
    assert re.sub(r"<[^>]*>", "|", legend) == "|a name that is longer than most||&lt;b&gt;|"
    assert 'x="' not in legend.replace('dx="', "")
