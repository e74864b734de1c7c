"""Say which package is missing, before work begins: an edge device has a part of what VisionKit can use."""

from __future__ import annotations

import importlib.util

from visionkit.errors import UsageError

__all__ = ["need"]


def need(what: str, *packages: str) -> None:
    """Refuse what none of `packages` is installed for; nothing is imported.

    Args:
        what: begins the sentence "… needs the package".
        packages: any one of these will do, the best one first.

    Raises:
        UsageError: `package-missing`.
    """
    if not any(importlib.util.find_spec(package) for package in packages):
        either = " or ".join(packages)
        raise UsageError(
            "package-missing",
            f"{what} needs the package {either}, which is not installed here: pip install {packages[0]}.",
        )
