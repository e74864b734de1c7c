"""What a segmentation network says of an image, at its own resolution, spread over the image's pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["Scores", "best_labels", "candidates", "label_type", "normalized_entropy", "softmax_planes", "spread"]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.integer[Any]]
Size = tuple[int, int]

BAND_PIXELS, BAND_VALUES = 1 << 17, 1 << 21  # of the image at a time: a plane stays in the cache, and memory small


@dataclass(frozen=True, eq=False)
class Scores:
    """The logits of one image, one map for each look at it (one, but for test-time augmentation).

    Args:
        maps: float32 (L, h, w) each, of any h and w; the whole image lies behind each, centres of pixels aligned.
        size_hw: of the image.
    """

    maps: tuple[Floats, ...]
    size_hw: Size

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.maps[0])

    def labels(self) -> Labels:
        """The likeliest class of every pixel, uint8 (H, W), uint16 for more than 256 classes.

        Of one map it is exactly the greatest of its logits enlarged bilinearly; of several, the greatest of the mean of
        their probabilities. Of equals the first.
        """
        if len(self.maps) == 1:
            return best_labels(self.maps[0], self.size_hw)
        out = np.empty(self.size_hw, label_type(self.classes))
        for rows, probs in self.bands():
            out[rows] = probs.argmax(axis=0)
        return out

    def confidence(self) -> Floats:
        """The probability of the likeliest class of every pixel, float32 (H, W)."""
        out = np.empty(self.size_hw, np.float32)
        for rows, probs in self.bands():
            probs.max(axis=0, out=out[rows])
        return out

    def probs(self) -> Floats:
        """Probabilities of every pixel, float32 (H, W, L)."""
        out = np.empty((*self.size_hw, self.classes), np.float32)
        for rows, probs in self.bands():
            out[rows] = probs.transpose(1, 2, 0)
        return out

    def bands(self) -> Iterator[tuple[slice, Floats]]:
        """Probabilities float32 (L, rows, W) of one band of the image's rows after the other."""
        for rows in _bands(self.size_hw, self.classes):
            total = softmax_planes(spread(self.maps[0], self.size_hw, rows))
            for scores in self.maps[1:]:
                total += softmax_planes(spread(scores, self.size_hw, rows))
            if len(self.maps) > 1:
                total /= np.float32(len(self.maps))
            yield rows, total

    def entropy(self) -> Floats:
        """How undecided the network is, float32 (h, w) of the first map, from 0 to 1 (all classes alike)."""
        size_hw = self.maps[0].shape[1:]
        parts = [softmax_planes(_fit(scores, (size_hw[0], size_hw[1]))) for scores in self.maps]
        return normalized_entropy(np.mean(parts, axis=0) if len(parts) > 1 else parts[0])


def best_labels(scores: Floats, size_hw: Size) -> Labels:
    """The greatest of `scores` (L, h, w) enlarged bilinearly to `size_hw`: uint8 (H, W), or uint16.

    Only classes that can win somewhere are enlarged (`candidates`), which changes nothing and is most of the speed.
    """
    kept = candidates(scores)
    out = np.empty(size_hw, label_type(len(scores)))
    for rows in _bands(size_hw, 1):
        out[rows] = _band_labels(scores, kept, size_hw, rows)
    return out


def candidates(scores: Floats) -> list[int]:
    """Classes that may be the greatest somewhere between the places of a map (L, h, w), in rising order.

    Between four neighbours an interpolated score is a weighted mean of theirs. So a class that at all four stays below
    what another one has at all four is below it everywhere between them.
    """
    padded = np.pad(scores, ((0, 0), (0, 1), (0, 1)), mode="edge")
    pairs = padded[:, :-1], padded[:, 1:]
    least, most = np.minimum(*pairs), np.maximum(*pairs)  # (L, h, w + 1)
    least = np.minimum(least[:, :, :-1], least[:, :, 1:])
    most = np.maximum(most[:, :, :-1], most[:, :, 1:])
    # rounding may take an interpolated value a little out of its neighbours' range
    bar = least.max(axis=0) - np.float32(1e-5) * np.abs(scores).max()
    return [int(k) for k in np.flatnonzero((most >= bar).any(axis=(1, 2)))]


def spread(scores: Floats, size_hw: Size, rows: slice | None = None, kept: Sequence[int] | None = None) -> Floats:
    """Rows of `scores` (L, h, w) enlarged bilinearly to `size_hw`: float32 (L, rows, W), centres of pixels aligned."""
    rows = slice(0, size_hw[0]) if rows is None else rows
    classes = range(len(scores)) if kept is None else kept
    out = np.empty((len(classes), rows.stop - rows.start, size_hw[1]), np.float32)
    for plane, part in zip(out, _planes(scores, classes, size_hw, rows), strict=True):
        plane[:] = part
    return out


def softmax_planes(scores: Floats) -> Floats:
    """Probabilities (L, …) of scores (L, …), written over them where they are float32."""
    scores = scores.astype(np.float32, copy=False)
    top = scores.max(axis=0)
    np.subtract(scores, top, out=scores)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=0)
    return scores


def normalized_entropy(probs: Floats) -> Floats:
    """Entropy of probabilities (L, h, w) as a share of the most that L classes can have: float32 (h, w) in [0, 1]."""
    logs = np.log(np.maximum(probs, np.float32(1e-12)))
    found = -(probs * logs).sum(axis=0) / np.float32(np.log(len(probs)))
    return np.clip(found, 0, 1).astype(np.float32)


def label_type(classes: int) -> type[np.uint8] | type[np.uint16]:
    """The integer type that holds the ids of so many classes."""
    return np.uint8 if classes <= 256 else np.uint16


def _band_labels(scores: Floats, kept: Sequence[int], size_hw: Size, rows: slice) -> Labels:
    best: Any = None
    kind = label_type(len(scores))
    for class_id, plane in zip(kept, _planes(scores, kept, size_hw, rows), strict=True):
        if best is None:
            best, labels = plane.copy(), np.full(plane.shape, class_id, kind)
            value = np.empty_like(labels)
            continue
        above = cv2.compare(plane, best, cv2.CMP_GT)
        value[:] = class_id
        cv2.copyTo(value, above, labels)
        cv2.max(best, plane, dst=best)
    return labels


def _planes(scores: Floats, classes: Sequence[int], size_hw: Size, rows: slice) -> Iterator[Floats]:
    """Each class's rows of the enlarged map, float32 (rows, W); the memory is used again."""
    height = scores.shape[1]
    places = np.clip((np.arange(rows.start, rows.stop) + 0.5) * (height / size_hw[0]) - 0.5, 0, height - 1)
    upper = np.minimum(places.astype(np.intp), max(0, height - 2))
    lower = np.minimum(upper + 1, height - 1)
    share = (places - upper).astype(np.float32)[:, None]
    out = np.empty((len(places), size_hw[1]), np.float32)
    for class_id in classes:
        plane = scores[class_id]
        part = plane[upper]
        part += share * (plane[lower] - part)
        if part.shape[1] == size_hw[1]:
            yield part
            continue
        cv2.resize(part, (size_hw[1], len(places)), dst=out, interpolation=cv2.INTER_LINEAR)
        yield out


def _fit(scores: Floats, size_hw: Size) -> Floats:
    return scores.copy() if scores.shape[1:] == size_hw else spread(scores, size_hw)


def _bands(size_hw: Size, planes: int) -> Iterator[slice]:
    """Bands of rows whose planes fit into what a cache, or a little memory, holds."""
    pixels = BAND_PIXELS if planes == 1 else BAND_VALUES // planes
    step = max(1, min(size_hw[0], pixels // size_hw[1]))
    for begin in range(0, size_hw[0], step):
        yield slice(begin, min(begin + step, size_hw[0]))
