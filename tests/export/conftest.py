"""What several files of these tests share; a file with models of its own has fixtures of the same names."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.export.unsaturated import small_card

    return small_card(tmp_path_factory.mktemp("cards") / "tiny")[0].folder


@pytest.fixture(scope="module")
def exported(card: Path) -> Path:
    from visionkit.export import export_model

    path = card.parent / "tiny.tflite"
    export_model(card, path, format="litert")
    return path
