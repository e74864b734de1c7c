"""The networks inside an exported model, in the place of those that a card's network is built for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from visionkit.errors import ModelError, RecipeError, UsageError
from visionkit.tasks.network import CardNetwork, Network, code_digest

if TYPE_CHECKING:
    import keras

    from visionkit.runtime import Runner
    from visionkit.weights import Card
    from visionkit.weights.artifact import Artifact

__all__ = ["ArtifactNetwork", "card_of", "described", "network_of", "one_size", "options_of"]

Size = tuple[int, int]
Options = TypeVar("Options")

WHOLE = ("", "low", "trunk")  # parts whose input is the image


def card_of(name: str | os.PathLike[str], task: str) -> tuple[Card, Artifact | None]:
    """The card called `name` or lying there; or that of an exported model, and the model.

    Raises:
        ModelError: there is none, or it is for another task (`model-unfit`); `artifact-corrupt`, `hash-mismatch`.
        RecipeError: the card does not fit its schema.
    """
    from visionkit.weights import card_names, load_card
    from visionkit.weights.artifact import read_artifact

    artifact = None if os.fspath(name) in card_names() else read_artifact(os.fspath(name))
    card = load_card(name) if artifact is None else artifact.card
    if card.task != task:
        what = {"classify": "a classifier", "segment": "a segmenter", "detect": "a detector", "track": "a tracker"}
        raise ModelError("model-unfit", f"{card.name} is a model to {card.task}, not to {task}. Give {what[task]}.")
    return card, artifact


def network_of(
    card: Card,
    artifact: Artifact | None,
    *,
    weights: str | Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    trust: bool = False,
    **telling: Any,
) -> Network:
    """The network of a card, or the one in an artifact.

    Args:
        card: of `card_of`.
        artifact: of `card_of`.
        weights, arguments: as `CardNetwork`.
        trust: as `ArtifactNetwork`.
        telling: `on_build`, `notice`, `progress` of `CardNetwork`.

    Raises:
        UsageError: `option-unfit`; weights for an artifact, which holds its own.
    """
    if artifact is None:
        return CardNetwork(card, weights=weights, arguments=arguments, **telling)
    if weights is not None:
        raise UsageError("option-unfit", f"{artifact.path.name} has its weights in it; leave weights out.")
    return ArtifactNetwork(artifact, arguments=arguments, trust=trust, on_build=telling.get("on_build"))


@contextlib.contextmanager
def described(artifact: Artifact | None) -> Iterator[None]:
    """Within, what does not fit is the fault of an artifact's description: `ModelError` `artifact-corrupt`."""
    try:
        yield
    except (ValueError, TypeError, KeyError, OverflowError, RecipeError) as error:
        if artifact is None:
            raise
        raise ModelError(
            "artifact-corrupt",
            f"The artifact {artifact.path} cannot be used: its description does not fit ({error}). Get it again.",
        ) from error


def options_of(
    card: Card, artifact: Artifact | None, given: Mapping[str, Any], make: Callable[[Card, Mapping[str, Any]], Options]
) -> Options:
    """A task's options, the card's under those given; an artifact's card is tried alone first."""
    if artifact is not None:
        with described(artifact):
            make(card, {})
    return make(card, given)


def one_size(artifact: Artifact | None, size_hw: Size | None) -> None:
    """Refuse a size that an artifact does not have.

    Raises:
        UsageError: `size-fixed`.
    """
    own = () if artifact is None else tuple(artifact.card.input["size_hw"])
    if own and size_hw is not None and tuple(size_hw) != own:
        raise UsageError(
            "size-fixed",
            f"{artifact.path.name if artifact else ''} was exported for inputs of {own[0]} x {own[1]} (height, width). "
            f"Received: {tuple(size_hw)}. Leave the size out, or export again.",
        )


class ArtifactNetwork(Network):
    """What an exported model answers where a task asks for the parts of a network.

    A `.tflite` runs in LiteRT, a SavedModel's signatures in whichever runtime is fastest; a `.keras` holds the network
    as its card builds it, and is treated as that is.

    Args:
        artifact: with its description.
        arguments: of the network's function that the card does not have.
        trust: the file may run code (SavedModel), or crash us (a `.tflite` is otherwise tried in a child first).
        on_build: called before a network is compiled and measured.

    Raises:
        ModelError: `artifact-unfit`; the format holds final results only, not the network's parts.
    """

    def __init__(
        self,
        artifact: Artifact,
        *,
        arguments: Mapping[str, Any] | None = None,
        trust: bool = False,
        on_build: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(artifact.card, artifact.path, artifact.sha256, arguments)
        self.artifact, self._trust, self._on_build = artifact, trust, on_build
        self._keras: keras.Model | None = None

    @property
    def digest(self) -> str:
        """Changes whenever the network's answers would."""
        return f"artifact {self.sha256} {code_digest()}"

    @property
    def bytes(self) -> int:
        """How much of it there is."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files if file.is_file())

    def model(self) -> keras.Model:
        """The network of a `.keras`; the same object at each call.

        Raises:
            ModelError: `model-not-keras`; any other format has no layers left.
        """
        if self.artifact.format != "keras":
            raise ModelError(
                "model-not-keras",
                f"{self.path.name} is a compiled model, whose layers cannot be asked for: give its card or a .keras.",
            )
        if self._keras is None:
            from visionkit.runtime.files import load_keras_file

            if self._on_build is not None:
                self._on_build()
            self._keras = load_keras_file(self.path)
        return self._keras

    def compiled(
        self, part: str = "", build: Callable[[keras.Model], keras.Model] | None = None, **options: Any
    ) -> Runner:
        """A runner over a part, float32 in and out.

        Args:
            part: as the task names it, of the artifact's `parts`.
            build: what makes it of a `.keras`.
            options: runtime, precision, threads and batch of `visionkit.runtime.compile_model`; a file that has its own
                batch keeps that.
        """
        if self.artifact.format == "keras":
            return super().compiled(part, build, **options)
        from visionkit.runtime import compile_model
        from visionkit.runtime.steps import float_face

        signature = self.artifact.parts.get(part)
        if signature is None and not self.artifact.parts:
            kind = self.artifact.format
            raise ModelError(
                "artifact-unfit",
                f"{self.path.name} is one graph, as {kind} has them, without the part {part!r} of its network that is "
                "asked for. Export the card as litert or savedmodel, which hold each part.",
            )
        if signature is None:
            known = ", ".join(repr(name) for name in self.artifact.parts)
            raise ModelError(
                "artifact-unfit",
                f"{self.path.name} does not hold the part {part!r} of its network that is asked for; it holds {known}. "
                "Give the card that it was made from.",
            )
        if self.artifact.format == "litert":
            options.pop("batch", None)
        runner = float_face(compile_model(self.path, signature=signature, trust=self._trust, **options))
        self._check_size(part, runner)
        if runner.precision == "file":
            runner.precision = self.artifact.kind
        return runner

    def _check_size(self, part: str, runner: Runner) -> None:
        """Raises ModelError `artifact-corrupt` where the description tells another size than the network has."""
        told = self.card.input.get("size_hw")
        shape = next(iter(runner.inputs.values())).shape
        if told is not None and part in WHOLE and tuple(told) not in (shape[1:3], shape[2:4]):
            runner.close()
            raise ModelError(
                "artifact-corrupt",
                f"The artifact {self.path} cannot be used: its network takes {shape}, its description says {told}. Get "
                "it again.",
            )

    def with_arguments(self, **arguments: Any) -> ArtifactNetwork:
        """The same network; what is said of its size must be so."""
        one_size(self.artifact, arguments.get("size_hw"))
        known = {**self.arguments, **arguments}
        twin = ArtifactNetwork(self.artifact, arguments=known, trust=self._trust, on_build=self._on_build)
        twin._keras = self._keras
        return twin
