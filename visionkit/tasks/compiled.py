"""What tasks over a compiled network have in common."""

from __future__ import annotations

__all__ = ["CompiledTask"]


class CompiledTask:
    """A task that owns a network: it tells which, and gives its memory back.

    Args:
        network: the network as the task sees it; closed with the task if it can be.

    Attributes:
        model: name, sha256, runtime and precision, where the network came from a card.
    """

    def __init__(self, network: object) -> None:
        self.model: dict[str, str] = {}
        self._network = network

    def describe(self) -> dict[str, str]:
        """Name, sha256, runtime and precision of the model, for a run's manifest."""
        return dict(self.model)

    def close(self) -> None:
        """Give the network's memory back, where it has any of its own."""
        close = getattr(self._network, "close", None)
        if close is not None:
            close()
