"""Where cards, recipes and caches lie: alike in a wheel, an editable install and a bare checkout."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_dir", "models_dir", "pipelines_dir"]

_PACKAGE = Path(__file__).resolve().parent


def models_dir() -> Path:
    """The folder of the model cards that came with VisionKit."""
    return _data_dir("models")


def pipelines_dir() -> Path:
    """The folder of the recipes that came with VisionKit."""
    return _data_dir("pipelines")


def cache_dir(create: bool = True) -> Path | None:
    """The user's folder for fetched weights and measurements, or None where nothing can be written.

    It is `$VISIONKIT_CACHE`, else `$XDG_CACHE_HOME/visionkit`, else `~/.cache/visionkit`. None is no error: what is
    cached is fetched or measured again.

    Args:
        create: make the folder if it is not there; without, None is returned only where there is no home folder.
    """
    folder = _cache_place()
    if folder is None or not create:
        return folder
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def _cache_place() -> Path | None:
    if place := os.environ.get("VISIONKIT_CACHE"):
        return Path(place)
    if place := os.environ.get("XDG_CACHE_HOME"):
        return Path(place) / "visionkit"
    try:
        return Path.home() / ".cache" / "visionkit"
    except RuntimeError:  # neither $HOME nor an entry in the password file
        return None


def _data_dir(name: str) -> Path:
    """In a wheel the data is a package of ours; in a checkout, installed or not, it lies beside the code."""
    shipped = _PACKAGE / f"_{name}"
    return shipped if shipped.is_dir() else _PACKAGE.parent / name
