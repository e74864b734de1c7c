"""What a segmentation network says of an image, at its own resolution, spread over the image's pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "Scores",
    "Span",
    "best_labels",
    "candidates",
    "label_type",
    "neighbours",
    "normalized_entropy",
    "softmax_planes",
    "spread",
]

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.integer[Any]]
Size = tuple[int, int]

BAND_PIXELS, BAND_VALUES = 1 << 17, 1 << 21  # of the image at a time: a plane stays in the cache, and memory small


class Span(NamedTuple):
    """Which rows of a map an array holds: the first of them, and how many rows the whole map has."""

    first: int
    height: int


@dataclass(frozen=True, eq=False)
class Scores:
    """The logits of one image, one map for each look at it (one, but for test-time augmentation).

    They may be those of a strip of the image; then all below is about the strip's rows.

    Args:
        maps: float32 (L, h, w) each, of any h and w; the whole image lies behind each, centres of pixels aligned.
        size_hw: of the whole image.
        rows: of the image, of a strip.
        spans: which rows of the whole maps `maps` holds, of a strip: those that lie behind `rows`.
    """

    maps: tuple[Floats, ...]
    size_hw: Size
    rows: slice | None = None
    spans: tuple[Span, ...] = ()

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.maps[0])

    @property
    def shape(self) -> Size:
        """Height and width in pixels of the image, of what is scored."""
        return (self._rows.stop - self._rows.start, self.size_hw[1])

    def labels(self) -> Labels:
        """The likeliest class of every pixel, uint8 (H, W), uint16 for more than 256 classes.

        Of one map it is exactly the greatest of its logits enlarged bilinearly; of several, the greatest of the mean of
        their probabilities. Of equals the first.
        """
        if len(self.maps) == 1:
            return best_labels(self.maps[0], self.size_hw, self._rows, self._spans[0])
        out = np.empty(self.shape, label_type(self.classes))
        for rows, probs in self.bands():
            out[rows] = probs.argmax(axis=0)
        return out

    def confidence(self) -> Floats:
        """The probability of the likeliest class of every pixel, float32 (H, W)."""
        out = np.empty(self.shape, np.float32)
        for rows, probs in self.bands():
            probs.max(axis=0, out=out[rows])
        return out

    def probs(self) -> Floats:
        """Probabilities of every pixel, float32 (H, W, L)."""
        out = np.empty((*self.shape, self.classes), np.float32)
        for rows, probs in self.bands():
            out[rows] = probs.transpose(1, 2, 0)
        return out

    def bands(self) -> Iterator[tuple[slice, Floats]]:
        """Probabilities float32 (L, rows, W) of one band of rows after the other; rows count from the strip's first."""
        begin = self._rows.start
        for rows in _bands(self._rows, self.size_hw[1], self.classes):
            yield slice(rows.start - begin, rows.stop - begin), self._mean(self.size_hw, rows)

    def entropy(self) -> Floats:
        """How undecided the network is, float32 (h, w) of the first map, from 0 to 1 (all classes alike).

        Of a strip, `entropy_rows` of it.
        """
        rows = self.entropy_rows
        if rows.start == rows.stop:  # a strip between two rows of a small map
            return np.empty((0, self._entropy_hw[1]), np.float32)
        return normalized_entropy(self._mean(self._entropy_hw, rows))

    @property
    def entropy_rows(self) -> slice:
        """Rows of the first map whose centres lie in the strip; those of an image's strips make up the whole map."""
        (height, _), image = self._entropy_hw, self.size_hw[0]
        # row e, centre (e + 1/2) / height, belongs to the first strip whose last row's centre is not above it
        ends = [((2 * row - 1) * height + image) // (2 * image) for row in (self._rows.start, self._rows.stop)]
        begin, end = (min(max(0, row), height) for row in ends)
        return slice(begin, height if self._rows.stop == image else end)

    @property
    def _entropy_hw(self) -> Size:
        return self._spans[0].height, self.maps[0].shape[2]

    @property
    def _rows(self) -> slice:
        return slice(0, self.size_hw[0]) if self.rows is None else self.rows

    @property
    def _spans(self) -> tuple[Span, ...]:
        return self.spans or tuple(Span(0, scores.shape[1]) for scores in self.maps)

    def _mean(self, size_hw: Size, rows: slice) -> Floats:
        """The mean of the looks' probabilities, float32 (L, rows, w), of a map of any size behind the image."""
        total: Any = None
        for scores, span in zip(self.maps, self._spans, strict=True):
            part = softmax_planes(_at(scores, size_hw, rows, span))
            total = part if total is None else np.add(total, part, out=total)
        if len(self.maps) > 1:
            total /= np.float32(len(self.maps))
        return np.asarray(total)


def best_labels(scores: Floats, size_hw: Size, rows: slice | None = None, span: Span | None = None) -> Labels:
    """The greatest of `scores` (L, h, w) enlarged bilinearly to `size_hw`: uint8 (H, W), or uint16.

    Only classes that can win somewhere are enlarged (`candidates`), which changes nothing and is most of the speed.
    `rows` and `span` as of `spread`.
    """
    rows = slice(0, size_hw[0]) if rows is None else rows
    kept = candidates(scores)
    out = np.empty((rows.stop - rows.start, size_hw[1]), label_type(len(scores)))
    for band in _bands(rows, size_hw[1], 1):
        out[band.start - rows.start : band.stop - rows.start] = _band_labels(scores, kept, size_hw, band, span)
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


def spread(
    scores: Floats,
    size_hw: Size,
    rows: slice | None = None,
    kept: Sequence[int] | None = None,
    *,
    span: Span | None = None,
) -> Floats:
    """Rows of `scores` (L, h, w) enlarged bilinearly to `size_hw`: float32 (L, rows, W), centres of pixels aligned.

    Args:
        rows: of the enlarged map; None is all.
        kept: classes, in the place of all.
        span: what `scores` holds of the whole map, where that is not all: at least what lies behind `rows`.
    """
    rows = slice(0, size_hw[0]) if rows is None else rows
    classes = range(len(scores)) if kept is None else kept
    out = np.empty((len(classes), rows.stop - rows.start, size_hw[1]), np.float32)
    for plane, part in zip(out, _planes(scores, classes, size_hw, rows, span), strict=True):
        plane[:] = part
    return out


def neighbours(
    height: int, rows: slice, size: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float32]]:
    """Between which two rows of a map of `height` rows each of `rows` lies, enlarged to `size`: upper, lower, share."""
    places = np.clip((np.arange(rows.start, rows.stop) + 0.5) * (height / size) - 0.5, 0, height - 1)
    upper = np.minimum(places.astype(np.intp), max(0, height - 2))
    return upper, np.minimum(upper + 1, height - 1), (places - upper).astype(np.float32)


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


def _band_labels(scores: Floats, kept: Sequence[int], size_hw: Size, rows: slice, span: Span | None) -> Labels:
    best: Any = None
    kind = label_type(len(scores))
    for class_id, plane in zip(kept, _planes(scores, kept, size_hw, rows, span), strict=True):
        if best is None:
            best, labels = plane.copy(), np.full(plane.shape, class_id, kind)
            value = np.empty_like(labels)
            continue
        above = cv2.compare(plane, best, cv2.CMP_GT)
        value[:] = class_id
        cv2.copyTo(value, above, labels)
        cv2.max(best, plane, dst=best)
    return labels


def _planes(scores: Floats, classes: Sequence[int], size_hw: Size, rows: slice, span: Span | None) -> Iterator[Floats]:
    """Each class's rows of the enlarged map, float32 (rows, W); the memory is used again."""
    first, height = span or Span(0, scores.shape[1])
    upper, lower, share = neighbours(height, rows, size_hw[0])
    upper, lower, share = upper - first, lower - first, share[:, None]
    out = np.empty((len(upper), size_hw[1]), np.float32)
    for class_id in classes:
        plane = scores[class_id]
        part = plane[upper]
        part += share * (plane[lower] - part)
        if part.shape[1] == size_hw[1]:
            yield part
            continue
        cv2.resize(part, (size_hw[1], len(upper)), dst=out, interpolation=cv2.INTER_LINEAR)
        yield out


def _at(scores: Floats, size_hw: Size, rows: slice, span: Span) -> Floats:
    """Rows of a map at another size, as a new array; at its own size nothing is computed."""
    if (span.height, scores.shape[2]) != size_hw:
        return spread(scores, size_hw, rows, span=span)
    return scores[:, rows.start - span.first : rows.stop - span.first].copy()


def _bands(rows: slice, width: int, planes: int) -> Iterator[slice]:
    """Bands of rows whose planes fit into what a cache, or a little memory, holds."""
    pixels = BAND_PIXELS if planes == 1 else BAND_VALUES // planes
    step = max(1, min(rows.stop - rows.start, pixels // width))
    for begin in range(rows.start, rows.stop, step):
        yield slice(begin, min(begin + step, rows.stop))
