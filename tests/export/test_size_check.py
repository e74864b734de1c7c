"""Sizes at which a network's maps are no maps any more, by its own strides."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.export.unsaturated import small_card
from visionkit.errors import UsageError
from visionkit.export import export_model
from visionkit.export.plan import ExportOptions, make_plan
from visionkit.export.size_check import check_size
from visionkit.weights import Card, load_card


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    """A small resnet: its map is halved once, in layer2."""
    return small_card(tmp_path_factory.mktemp("cards") / "tiny")[0]


def said(card: Card, *size_hw: int) -> str:
    found = (size_hw[0], size_hw[1])
    return check_size(make_plan(card, ExportOptions("litert", size_hw=found)), card, found)


def test_one_cell_cannot_be_made_smaller(card: Card, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"layer2\.0\.\S+ makes a map .* one cell wide .* The least is 3 x 2, the"
    ) as error:
        said(card, 3, 1)
    assert error.value.slug == "size-too-small"
    with pytest.raises(UsageError, match="The least is 2 x 2"):
        export_model(card, tmp_path / "net.tflite", format="litert", size_hw=(1, 1))
    assert not list(tmp_path.iterdir())


def test_a_map_of_one_cell_is_told(card: Card) -> None:
    assert said(card, 2, 40).startswith("at 2 x 40 (height x width) a map of tiny is one cell")
    assert said(card, 3, 3) == said(card, 40, 56) == ""


@pytest.mark.parametrize(
    ("name", "least", "less"),
    [("sign_digits", (17, 17), (16, 40)), ("bccd_cells", (9, 9), (200, 8)), ("skin", (17, 17), (10, 17))],
)
def test_bundled_models(name: str, least: tuple[int, int], less: tuple[int, int]) -> None:
    """Total strides of 32: 17 pixels are two cells before the last; an SSD needs two cells on its first map, of 8."""
    card = load_card(name)
    assert "one cell" in said(card, *least)
    with pytest.raises(UsageError, match="cannot look at images of"):
        said(card, *less)
