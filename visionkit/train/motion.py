"""Pairs from unlabelled clips: things that move against their background are boxed by the motion itself."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.train.shapes import Image

__all__ = ["Sighting", "moving_things"]

Box = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sighting:
    """One thing seen twice: its box float32 (4,) xyxy in `first` and in `later`, images uint8 (H, W, 3) BGR."""

    first: Image
    first_box: Box
    later: Image
    later_box: Box


def moving_things(
    frames: Sequence[Image], gap: int, *, least_area: int = 120, largest_share: float = 0.25
) -> list[Sighting]:
    """Sightings `gap` frames apart in consecutive `frames` of one clip, all of one size.

    A thing is a connected region whose optical flow to the next frame (DIS, Kroeger et al., ECCV 2016) differs from the
    picture's own motion. It is followed box by box through the gap; a chain whose regions do not overlap is dropped.
    """
    if len(frames) < gap + 2:
        return []
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    greys = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames]
    limit = largest_share * greys[0].size
    regions: list[list[Box]] = []
    moves: list[npt.NDArray[Any]] = []
    for a, b in itertools.pairwise(greys):
        field = flow.calc(a, b, np.zeros((*a.shape, 2), np.float32))
        regions.append(_regions(field, least_area, limit))
        moves.append(field)
    found = []
    for start in range(len(regions) - gap):
        for box in regions[start]:
            end = _follow(box, regions[start : start + gap + 1], moves[start : start + gap])
            if end is not None:
                found.append(Sighting(frames[start], box, frames[start + gap], end))
    return found


def _regions(field: npt.NDArray[Any], least_area: int, largest_area: float) -> list[Box]:
    """Boxes of the compact regions that move by themselves and do not touch the image's edge."""
    own = field - np.median(field.reshape(-1, 2), axis=0)
    faster = (np.hypot(own[..., 0], own[..., 1]) > 1.0).astype(np.uint8)
    moving = cv2.morphologyEx(faster, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(moving)
    height, width = moving.shape
    boxes = []
    for x, y, w, h, area in stats[1:count]:
        inside = x > 2 and y > 2 and x + w < width - 2 and y + h < height - 2
        compact = area > 0.5 * w * h and 0.25 < w / h < 4
        if inside and compact and least_area <= area <= largest_area:
            boxes.append(np.array([x, y, x + w, y + h], np.float32))
    return boxes


def _follow(box: Box, regions: list[list[Box]], moves: list[npt.NDArray[Any]]) -> Box | None:
    """The box `len(moves)` frames later, or None where the chain breaks."""
    for field, candidates in zip(moves, regions[1:], strict=True):
        x0, y0, x1, y1 = (int(v) for v in box)
        shift = np.median(field[y0:y1, x0:x1].reshape(-1, 2), axis=0)
        expected = box + np.tile(shift, 2)
        best = max(candidates, key=lambda c: _overlap(expected, c), default=None)
        if best is None or _overlap(expected, best) < 0.6:
            return None
        box = best
    return box


def _overlap(a: Box, b: Box) -> float:
    inter = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return float(inter / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter))
