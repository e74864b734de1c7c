"""What `visionkit inspect MODEL` was asked, and what it looks at."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

    from visionkit.inspection.facts import Summary
    from visionkit.weights import Card
    from visionkit.weights.artifact import Artifact

__all__ = ["Request", "Subject", "network_names"]

OWN_NETWORKS = ("alexnet_2012", "lenet5", "unet")


@dataclasses.dataclass(frozen=True)
class Request:
    """The command line, as it was given."""

    target: str
    as_json: bool = False
    max_pixels: int = 100_000_000
    imgsz: tuple[str, ...] = ()
    activations: str | None = None
    filters: str | None = None
    explain: str | None = None
    class_name: str | None = None
    method: str | None = None
    layer: str | None = None
    preset: str | None = None
    out: str | None = None
    overwrite: bool = False
    trust_model: bool = False

    @property
    def looks_inside(self) -> bool:
        """Whether the network itself is needed, with its weights."""
        return bool(self.activations or self.filters or self.explain)


@dataclasses.dataclass
class Subject:
    """What is inspected: the facts to tell, the network where there is one, and what a file says of itself."""

    facts: dict[str, Any]
    summary: Summary | None = None
    model: keras.Model | None = None
    card: Card | None = None
    artifact: Artifact | None = None


def network_names() -> tuple[str, ...]:
    """Networks that need no card, as their builders make them."""
    from visionkit.weights.torchvision import FAMILIES  # Keras is not imported for it

    return (*FAMILIES, *OWN_NETWORKS)
