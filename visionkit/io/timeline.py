"""Places of pictures in a source: index and time, strictly increasing, with gaps and restarts written down."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from visionkit.io.picture import Picture

__all__ = ["Placed", "Timeline"]

_HISTORY = 15
_FINE = 1_000_000  # denominators up to here bring back the exact period from a float
_JITTER_MS = 2  # containers that count milliseconds round each time


@dataclass(slots=True)
class Placed:
    """A picture with its index in the source, its time, and the events found on the way from the one before."""

    picture: Picture
    index: int
    pts_ms: Fraction
    duration_ms: Fraction | None
    lost_before: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)


class Timeline:
    """Gives each picture its place.

    Times are the container's. Where they fall back, they are carried on from the last one (`discontinuity`); where one
    alone is out of order, it is put between its neighbours. A picture lasts until the next one.

    Args:
        rate: frames per second by the container, for streams without times; 25 where it does not say either.
        first_index: index of the first picture.
        holes_are_losses: a hole in an even beat is lost pictures, even where nothing else speaks of loss: true of a
            transport stream, which is made at an even beat and loses packets on its way.
    """

    def __init__(self, rate: Fraction | None, first_index: int = 0, *, holes_are_losses: bool = False) -> None:
        self._steps: deque[float] = deque([float(1000 / rate) if rate else 40.0], maxlen=_HISTORY)
        self._told = 0
        self._offset = Fraction(0)
        self._raw: Fraction | None = None
        self._out: Fraction | None = None
        self._lasts: Fraction | None = None
        self._index = first_index - 1
        self._doubt = False
        self._holes_are_losses = holes_are_losses

    def place(self, pictures: Iterable[Picture]) -> Iterator[Placed]:
        """Every picture in its place, two pictures after it came."""
        waiting: Placed | None = None
        for picture, following in _with_next(pictures):
            placed = self._next(picture, following)
            if waiting is not None:
                yield self._lasting(waiting, placed)
            waiting = placed
        if waiting is not None:
            waiting.duration_ms = waiting.picture.duration_ms or self._usual()
            yield waiting

    def _next(self, picture: Picture, following: Picture | None) -> Placed:
        raw = picture.pts_ms
        if raw is None:
            raw = Fraction(0) if self._raw is None else self._raw + self._usual()
        events: list[dict[str, Any]] = []
        lost = picture.lost_before
        out = raw + self._offset
        if self._raw is not None and self._out is not None:
            if out <= self._out or self._strays(out, following):
                out = self._again(raw, following, events)
            step = out - self._out
            lost = self._missing(picture, step)
            if lost or self._hole(step):
                events.append(_gap(self._index + 1, lost, self._out, out))
            elif not events:
                self._steps.append(float(step))
                self._told += 1
        # Until the next key frame pictures may be predicted from the lost one.
        self._doubt = not picture.key and (self._doubt or lost > 0)
        picture.damaged |= self._doubt
        self._index += 1 + lost
        self._raw, self._out, self._lasts = raw, out, picture.duration_ms
        return Placed(picture, self._index, out, None, lost, events)

    def _again(self, raw: Fraction, following: Picture | None, events: list[dict[str, Any]]) -> Fraction:
        """A time after the last one for a picture whose own is not."""
        last = self._out if self._out is not None else Fraction(0)
        then = following.pts_ms if following is not None else None
        event = {
            "event": "discontinuity",
            "index": self._index + 1,
            "container_ms": float(raw),
            "after_ms": float(last),
        }
        if then is not None and then + self._offset > last:
            events.append({**event, "kind": "out-of-order"})
            return (last + then + self._offset) / 2
        out = last + self._usual()
        self._offset = out - raw
        events.append({**event, "kind": "restart", "offset_ms": float(self._offset)})
        return out

    def _strays(self, out: Fraction, following: Picture | None) -> bool:
        """Whether the time alone leaps ahead, and the next one is back in line."""
        then = following.pts_ms if following is not None else None
        if then is None or self._out is None:
            return False
        then += self._offset
        return self._out < then < out and out - self._out > 2 * self._usual_ms() + _JITTER_MS

    def _missing(self, picture: Picture, step: Fraction) -> int:
        """How many pictures were lost before this one: by the clock where the beat is even, else by packets."""
        by_clock = max(0, round(float(step) / self._usual_ms()) - 1)
        if picture.lost_before:
            return by_clock if self._even() else picture.lost_before
        if self._holes_are_losses and self._hole(step):
            return by_clock
        return by_clock if picture.trouble_before and not self._explained(step) else 0

    def _even(self) -> bool:
        """Whether nearly all of the last pictures stood equally far apart."""
        usual = self._usual_ms()
        alike = sum(abs(step - usual) <= _JITTER_MS for step in self._steps)
        return self._told >= _HISTORY and alike >= _HISTORY - 3

    def _hole(self, step: Fraction) -> bool:
        """Whether a picture is missing from an even beat; told as a gap of no frames: nothing else speaks of loss."""
        return step >= 2 * self._usual_ms() - _JITTER_MS and self._even() and not self._explained(step)

    def _explained(self, step: Fraction) -> bool:
        """Whether the container itself says that the picture before lasts about that long."""
        return self._lasts is not None and self._lasts * 4 >= step * 3

    def _lasting(self, placed: Placed, following: Placed) -> Placed:
        lasts = following.pts_ms - placed.pts_ms
        if following.lost_before:
            lasts = min(lasts, placed.picture.duration_ms or self._usual())
        placed.duration_ms = lasts
        return placed

    def _usual(self) -> Fraction:
        """The middle of the last steps; the container's period before there are any."""
        return Fraction(self._usual_ms()).limit_denominator(_FINE)

    def _usual_ms(self) -> float:
        return sorted(self._steps)[len(self._steps) // 2]


def _gap(index: int, frames: int, start: Fraction, stop: Fraction) -> dict[str, Any]:
    return {"event": "gap", "index": index, "frames": frames, "from_ms": float(start), "to_ms": float(stop)}


def _with_next(pictures: Iterable[Picture]) -> Iterator[tuple[Picture, Picture | None]]:
    previous: Picture | None = None
    for picture in pictures:
        if previous is not None:
            yield previous, picture
        previous = picture
    if previous is not None:
        yield previous, None
