"""Masks as COCO writes them: lengths of runs down the columns, and these as a string.

The runs begin with the zeros, possibly none, and go down column after column. In the string each length (from the
fourth on: its difference from the one two before) is written in groups of five bits, lowest first; a group is a
character from 48 on, 32 more where another follows, and bit 16 of the last one is the sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["counts_to_string", "mask_to_counts", "rle_area", "rle_decode", "rle_encode", "string_to_counts"]

Mask = npt.NDArray[np.bool_]


def mask_to_counts(mask: npt.ArrayLike) -> list[int]:
    """Lengths of the runs of a mask (H, W), zeros first."""
    pixels = np.asarray(mask)
    if pixels.ndim != 2:
        raise ValueError(f"`mask` must be (H, W). Received: shape={pixels.shape}.")
    line = pixels.astype(bool).ravel(order="F")
    if not line.size:
        return []
    edges = np.flatnonzero(line[1:] != line[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [line.size]])).tolist()
    return [0, *runs] if line[0] else runs


def rle_encode(mask: npt.ArrayLike, *, compressed: bool = True) -> dict[str, Any]:
    """A mask (H, W) as `{"size": [H, W], "counts": …}`, the counts a string, or a list where not `compressed`."""
    counts = mask_to_counts(mask)
    height, width = np.shape(mask)
    return {"size": [int(height), int(width)], "counts": counts_to_string(counts) if compressed else counts}


def rle_decode(rle: Mapping[str, Any]) -> Mask:
    """The mask, bool (H, W), of `{"size": [H, W], "counts": string, bytes or list}`.

    Raises:
        ValueError: the string is none of COCO's, or the runs are negative or do not fill the mask.
    """
    (height, width), counts = _checked(rle)
    ends = np.fromiter(accumulate(counts), np.int64, len(counts))
    line = np.zeros(height * width, bool)
    for start, end in zip(ends[0::2], ends[1::2], strict=False):
        line[start:end] = True
    return line.reshape(width, height).T.copy()


def rle_area(rle: Mapping[str, Any]) -> int:
    """Pixels of the mask, without making it."""
    return sum(_checked(rle)[1][1::2])


def _checked(rle: Mapping[str, Any]) -> tuple[tuple[int, int], list[int]]:
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, Sequence) or len(size) != 2 or any(not isinstance(n, Integral) or n < 0 for n in size):
        raise ValueError(f"`size` must be [height, width]. Received: size={size!r}.")
    if isinstance(counts, str | bytes):
        counts = string_to_counts(counts)
    if not isinstance(counts, Sequence) or any(not isinstance(n, Integral) or isinstance(n, bool) for n in counts):
        raise ValueError(f"`counts` must be a string or a list of integers. Received: {type(counts).__name__}.")
    if any(n < 0 for n in counts) or sum(counts) != size[0] * size[1]:
        raise ValueError(
            f"The runs must not be negative, and fill {size[0]} x {size[1]} pixels. Received: sum {sum(counts)}."
        )
    return (int(size[0]), int(size[1])), [int(n) for n in counts]


def counts_to_string(counts: Sequence[int]) -> str:
    """Runs as COCO's string."""
    letters = []
    for index, count in enumerate(counts):
        rest = count - counts[index - 2] if index > 2 else count
        while True:
            group = rest & 31
            rest >>= 5  # the sign stays
            more = rest != (-1 if group & 16 else 0)
            letters.append(chr(group + 32 * more + 48))
            if not more:
                break
    return "".join(letters)


def string_to_counts(text: str | bytes) -> list[int]:
    """The runs of COCO's string.

    Raises:
        ValueError: a character is none of its, or the end is missing.
    """
    letters = text if isinstance(text, bytes) else text.encode("ascii", "replace")
    counts: list[int] = []
    value = shift = 0
    for letter in letters:
        group = letter - 48
        if not 0 <= group < 64:
            raise ValueError(f"A run-length string holds characters from '0' to 'o'. Received: {chr(letter)!r}.")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("The run-length string ends in the middle of a number.")
    return counts
