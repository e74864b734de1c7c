"""Data is found in a checkout and in a wheel; a cache that cannot be is no error."""

from __future__ import annotations

import pytest

from visionkit import resources


def test_a_checkout_has_its_data_beside_the_code():
    assert (resources.models_dir() / "README.md").is_file()
    assert (resources.pipelines_dir() / "README.md").is_file()


def test_a_wheel_has_its_data_inside(tmp_path, monkeypatch):
    (tmp_path / "_models").mkdir()
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path)
    assert resources.models_dir() == tmp_path / "_models"
    assert resources.pipelines_dir() == tmp_path.parent / "pipelines"


def test_the_cache_is_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.delenv("VISIONKIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert resources.cache_dir() == tmp_path / "xdg" / "visionkit"
    monkeypatch.setenv("VISIONKIT_CACHE", str(tmp_path / "own"))
    assert resources.cache_dir(create=False) == tmp_path / "own"
    assert not (tmp_path / "own").exists()
    folder = resources.cache_dir()
    assert folder is not None
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("VISIONKIT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resources.cache_dir() == tmp_path / ".cache" / "visionkit"


@pytest.mark.parametrize("place", ["file/below", "/proc/no-such-place"])
def test_no_place_for_a_cache_is_none(tmp_path, monkeypatch, place):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("VISIONKIT_CACHE", str(tmp_path / place))
    assert resources.cache_dir() is None
