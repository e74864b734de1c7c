"""The errors a user can meet: each has a stable slug for scripts and the exit code of its kind."""

from __future__ import annotations

__all__ = [
    "InputError",
    "ModelError",
    "OutputError",
    "RecipeError",
    "SourceLostError",
    "UsageError",
    "VisionkitError",
]


class VisionkitError(Exception):
    """A failure of the world (not a bug), shown to the user as one line `visionkit: error[slug]: message`.

    Args:
        slug: short stable name of the failure, `words-with-hyphens`; scripts may match on it.
        message: what came, what was expected and what to do, in one line.
    """

    exit_code = 1

    def __init__(self, slug: str, message: str) -> None:
        super().__init__(message)
        self.slug = slug
        self.message = message


class UsageError(VisionkitError):
    """The command cannot be meant as it was typed (exit code 2)."""

    exit_code = 2


class InputError(VisionkitError):
    """A source was refused or could not be decoded (exit code 3)."""

    exit_code = 3


class ModelError(VisionkitError):
    """A model or its weights were refused or failed (exit code 5)."""

    exit_code = 5


class OutputError(VisionkitError):
    """A result could not be written (exit code 6)."""

    exit_code = 6


class SourceLostError(VisionkitError):
    """A live source went away and did not come back (exit code 7)."""

    exit_code = 7


class RecipeError(VisionkitError):
    """A recipe or a card does not parse or does not fit its schema (exit code 8)."""

    exit_code = 8
