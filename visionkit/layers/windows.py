"""Where pooling windows lie along one axis: the floor rule, the ceil rule, and torch's last window."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops

__all__ = ["Window", "pair"]


class Window(NamedTuple):
    """Windows along one axis, in pixels. Sizes are integers, or scalar tensors where a map's size is open."""

    size: int
    stride: int
    padding: int
    ceil_mode: bool

    def count(self, length: Any) -> Any:
        """How many windows a map of `length` has."""
        room = length + 2 * self.padding - self.size
        if not self.ceil_mode:
            return room // self.stride + 1
        count = -(-room // self.stride) + 1
        # the last window must start inside the map or its left padding
        if isinstance(length, int):
            return count - int((count - 1) * self.stride >= length + self.padding)
        return count - ops.cast((count - 1) * self.stride >= length + self.padding, "int32")

    def margins(self, length: Any) -> tuple[Any, Any]:
        """Pixels to add before and after, so that the windows that lie fully inside are the ones that count."""
        reach = (self.count(length) - 1) * self.stride + self.size
        after = reach - length - self.padding
        if isinstance(length, int):
            return self.padding, max(after, 0)
        return self.padding, ops.maximum(after, 0)

    def is_same(self, length: int) -> bool:
        """Whether these are TensorFlow's "same" windows: ceil(length / stride) of them, the odd pixel added after."""
        count = -(-length // self.stride)
        total = max((count - 1) * self.stride + self.size - length, 0)
        return self.count(length) == count and self.margins(length) == (total // 2, total - total // 2)

    def shares(self, length: Any, count_include_pad: bool) -> Any:
        """(windows,): the share of each window's pixels that count in a mean."""
        xp: Any = np if isinstance(length, int) else ops
        start = xp.arange(self.count(length), dtype="int32") * self.stride - self.padding
        if count_include_pad:
            covered = xp.minimum(start + self.size, length + self.padding) - start
        else:
            covered = xp.minimum(start + self.size, length) - xp.maximum(start, 0)
        return covered / self.size


def pair(value: Any, name: str, *, least: int) -> tuple[int, int]:
    """Two integers of at least `least`, from two or from one for both.

    Raises:
        ValueError: anything else, with the argument's `name`.
    """
    values = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < least for n in values):
        raise ValueError(
            f"`{name}` must be an integer of at least {least}, or two of them. Received: {name}={value!r}."
        )
    return values
