"""A model's network: built and filled with weights when it is first needed, compiled, remembered by its digest."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.errors import ModelError

if TYPE_CHECKING:
    import keras

    from visionkit.runtime import Runner
    from visionkit.weights import Card
    from visionkit.weights.fetch import Progress

__all__ = ["CardNetwork", "Network", "code_digest"]

# What decides the numbers that a network computes: its layers, its architecture, how weights are put into it.
ROOMS_OF_NETWORKS = ("layers", "nets", "weights")


class Network:
    """A network as tasks ask for its parts.

    Args:
        card: says what it is.
        path: where its weights lie.
        sha256: of them.
        arguments: keyword arguments of the network's function, such as sizes; they go before the card's.
    """

    def __init__(self, card: Card, path: Path, sha256: str, arguments: Mapping[str, Any] | None = None) -> None:
        self.card, self.path, self.sha256 = card, path, sha256
        self.arguments = {**card.args, **(arguments or {})}

    @property
    def digest(self) -> str:
        """Changes whenever the network's answers would."""
        raise NotImplementedError

    @property
    def bytes(self) -> int:
        """Size of the weights."""
        return self.path.stat().st_size

    def model(self) -> keras.Model:
        """The Keras network with its weights; the same object at each call."""
        raise NotImplementedError

    def with_arguments(self, **arguments: Any) -> Network:
        """The same network with other arguments, such as another size."""
        raise NotImplementedError

    def compiled(
        self, part: str = "", build: Callable[[keras.Model], keras.Model] | None = None, **options: Any
    ) -> Runner:
        """A runner over the network, or over what `build` makes of it; Keras is imported only if none is remembered.

        Args:
            part: names what `build` makes, for the digest.
            build: from the network to the one that is run.
            options: runtime, precision, threads and batch of `visionkit.runtime.compile_cached`.
        """
        from visionkit.runtime import compile_cached

        def made() -> keras.Model:
            model = self.model()
            return model if build is None else build(model)

        return compile_cached(f"{self.digest} {part}", made, **options)

    def facts(self, runner: Runner) -> dict[str, str]:
        """Name, sha256, runtime and precision, as a task describes its model."""
        return {
            "name": self.card.name,
            "sha256": self.sha256,
            "runtime": runner.name,
            "precision": runner.precision,
        }


class CardNetwork(Network):
    """The Keras network of a card.

    Args:
        card: names the function of `visionkit.nets` and its arguments.
        weights: a file with weights in the place of the card's own.
        arguments: further keyword arguments of the function, such as sizes; they go before the card's.
        on_build: called before the network is built, compiled and measured, which takes seconds and happens once.
        notice, progress: of a download, where the weights are not on this machine (`visionkit.weights.obtain`).

    Attributes:
        sha256: of the file with the weights.

    Raises:
        ModelError: the weights are missing and cannot be fetched, or are not what the card says.
    """

    def __init__(
        self,
        card: Card,
        *,
        weights: str | Path | None = None,
        arguments: Mapping[str, Any] | None = None,
        on_build: Callable[[], None] | None = None,
        notice: Callable[[str], None] | None = None,
        progress: Progress | None = None,
    ) -> None:
        from visionkit.weights import obtain
        from visionkit.weights.card import sha256_of

        path = obtain(card, notice=notice, progress=progress) if weights is None else Path(weights)
        super().__init__(card, path, sha256_of(path), arguments)
        self._on_build = on_build
        self._model: keras.Model | None = None

    @property
    def digest(self) -> str:
        """Changes whenever the network's answers would: architecture, arguments, weights, the code behind them."""
        facts = {"args": self.arguments, "weights": self.sha256, "code": code_digest()}
        return f"{self.card.network} {json.dumps(facts, sort_keys=True)}"

    def model(self) -> keras.Model:
        """The network with its weights; the same object at each call.

        Raises:
            ModelError: `network-unknown`, `network-unfit` (arguments), or the weights do not fit.
        """
        if self._model is None:
            if self._on_build is not None:
                self._on_build()
            self._model = self._build()
        return self._model

    def with_arguments(self, **arguments: Any) -> CardNetwork:
        """The same network with other arguments, such as another size."""
        known = {**self.arguments, **arguments}
        return CardNetwork(self.card, weights=self.path, arguments=known, on_build=self._on_build)

    def _build(self) -> keras.Model:
        from visionkit.runtime.quiet import import_keras

        import_keras()
        from visionkit import nets
        from visionkit.weights import load_weights

        function = getattr(nets, self.card.network, None)
        if function is None:
            raise ModelError("network-unknown", f"{self.card.name}: there is no network {self.card.network!r}.")
        try:
            model = function(**self.arguments)
        except (TypeError, ValueError) as error:
            raise ModelError(
                "network-unfit", f"{self.card.name}: {self.card.network} does not take these arguments: {error}"
            ) from error
        load_weights(model, self.card, self.path)
        return model


@functools.cache
def code_digest() -> str:
    """A digest of the source of networks, layers and converters, read without importing them: that imports Keras."""
    package = Path(__file__).parents[1]
    files = [file for room in ROOMS_OF_NETWORKS for file in sorted((package / room).glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
