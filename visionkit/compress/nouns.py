"""What the numbers of a verdict are of: images with classes, or a tracker's sequences with frames."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NOUNS", "Nouns"]


@dataclass(frozen=True)
class Nouns:
    """What the numbers are of, in words.

    Args:
        unit: what is measured on and drawn as one; `counted`: what there may be several of in one.
        group: what has a score of its own.
        shot: what a time is of.
        within: what is drawn anew inside a unit, behind `drawing the images again and again`.
    """

    unit: str = "image"
    counted: str = "object"
    group: str = "class"
    shot: str = "image"
    within: str = ""

    @property
    def units(self) -> str:
        return f"{self.unit}s"

    @property
    def groups(self) -> str:
        return f"{self.group}{'es' if self.group.endswith('s') else 's'}"

    @property
    def a_shot(self) -> str:
        return f"{'an' if self.shot[0] in 'aeiou' else 'a'} {self.shot}"

    def told(self, count: int) -> str:
        """So many units."""
        return f"{count} {self.unit if count == 1 else self.units}"


NOUNS = Nouns()
