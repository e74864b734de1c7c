"""Folders that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from visionkit.errors import OutputError
from visionkit.export.folder import new_folder


def test_a_folder_that_is_there_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "net"
    with new_folder(target) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(OutputError, match="already exists") as error, new_folder(target):
        pass
    assert error.value.slug == "exists"
    with pytest.raises(ZeroDivisionError), new_folder(target, overwrite=True) as folder:
        (folder / "a").write_text(str(1 / 0))
    assert (target / "a").read_text() == "old"
    with new_folder(target, overwrite=True) as folder:
        (folder / "b").write_text("new")
    assert [p.name for p in target.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_a_file_in_the_way_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "net").write_text("mine")
    with pytest.raises(OutputError, match="remove it"), new_folder(tmp_path / "net", overwrite=True):
        pass
    with pytest.raises(OutputError, match="cannot write"), new_folder(tmp_path / "nowhere" / "net"):
        pass
