"""The stage that makes boxes of a segmentation: one around each piece of a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.pipeline.stage import Item, Stage
from visionkit.structures import Detections, Segmentation

if TYPE_CHECKING:
    from visionkit.io import MediaInfo
    from visionkit.structures import Frame

__all__ = ["RegionsStage", "region_boxes"]

BACKGROUND = 0


class RegionsStage(Stage):
    """Boxes around the connected pieces of a segmentation's classes; the result is `Detections`, largest first.

    A segmenter so stands in for a detector. Touching objects of a class are one piece.

    Args:
        source: the stage that segments; it stands before this one.
        classes: class ids or names whose pieces are wanted; None is every class but the first, the background.
        min_area: pieces of a smaller share of the image are left out.
        max_regions: of one image; the largest are kept.
    """

    def __init__(
        self,
        source: Stage,
        *,
        classes: Sequence[int | str] | None = None,
        min_area: float = 0.005,
        max_regions: int = 100,
    ) -> None:
        super().__init__("regions")
        if not 0 <= min_area < 1:
            raise ValueError(f"`min_area` must be at least 0 and less than 1. Received: min_area={min_area}.")
        if max_regions < 1:
            raise ValueError(f"`max_regions` must be a positive integer. Received: max_regions={max_regions}.")
        self._source, self._classes = source, classes
        self.min_area, self.max_regions = min_area, max_regions
        self._ids: tuple[int, ...] | None = None

    def setup(self, info: MediaInfo, first: Frame) -> None:
        """Take the segmenter's class names (ModelError `class-unknown`)."""
        self.class_names = names = self._source.class_names
        if self._classes is not None:
            self._ids = tuple(_class_id(one, names or ()) for one in self._classes)

    def process(self, items: Sequence[Item]) -> None:
        """Boxes of each item's segmentation."""
        for item in items:
            found = item.results.get(self._source.name)
            if isinstance(found, Segmentation):
                item.results[self.name] = region_boxes(
                    found, self._ids, min_area=self.min_area, max_regions=self.max_regions
                )

    def settings(self) -> dict[str, Any]:
        """Which pieces are wanted."""
        classes = None if self._ids is None else list(self._ids)
        return {"classes": classes, "min_area": self.min_area, "max_regions": self.max_regions}


def region_boxes(
    found: Segmentation, class_ids: Sequence[int] | None = None, *, min_area: float = 0.005, max_regions: int = 100
) -> Detections:
    """A box around each connected piece (8 neighbours) of a segmentation, largest piece first.

    Confidence is the mean confidence of the piece's pixels where the segmentation tells it, else 1.

    Args:
        found: classes of an image's pixels.
        class_ids: whose pieces are wanted; None is all but 0.
        min_area: least share of the image.
        max_regions: how many are kept.
    """
    import cv2

    class_map = found.class_map
    present = np.unique(class_map).tolist()
    wanted = [one for one in present if (one != BACKGROUND if class_ids is None else one in class_ids)]
    rows: list[tuple[int, int, npt.NDArray[np.float32], float]] = []
    least = max(1.0, min_area * class_map.size)
    for class_id in wanted:
        count, pieces, facts, _ = cv2.connectedComponentsWithStats((class_map == class_id).astype(np.uint8))
        for piece in range(1, count):
            left, top, width, height, area = (int(n) for n in facts[piece])
            if area < least:
                continue
            box = np.array([left, top, left + width, top + height], np.float32)
            rows.append((area, class_id, box, _confidence(found, pieces, piece, box)))
    rows = sorted(rows, key=lambda row: -row[0])[:max_regions]
    if not rows:
        return Detections.empty()
    return Detections(
        np.stack([row[2] for row in rows]),
        np.array([row[3] for row in rows], np.float32),
        np.array([row[1] for row in rows]),
    )


def _confidence(found: Segmentation, pieces: npt.NDArray[np.int32], piece: int, box: npt.NDArray[np.float32]) -> float:
    if found.confidence is None:
        return 1.0
    left, top, right, bottom = box.astype(int)
    part = (slice(top, bottom), slice(left, right))
    return float(found.confidence[part][pieces[part] == piece].mean())


def _class_id(wanted: int | str, names: Sequence[str]) -> int:
    """The id of a class that is named by its id or name."""
    text = str(wanted).strip()
    matches = [place for place, name in enumerate(names) if name.strip().casefold() == text.casefold()]
    if matches:
        return matches[0]
    if text.isdecimal() and (not names or int(text) < len(names)):
        return int(text)
    raise ModelError("class-unknown", f"the model has no class {text!r}; it has {', '.join(names) or 'no names'}")
