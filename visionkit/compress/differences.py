"""Pictures of where two models differ, from what each of them said of an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.compress.report_data import Disagreement

if TYPE_CHECKING:
    from visionkit.structures import Classification, Detections

__all__ = ["boxes_apart", "classes_apart", "maps_apart", "shrunk", "tracks_apart"]

Image = npt.NDArray[np.uint8]
SMALL, MAP_SIDE, SHOWN = 320, 256, 640
APART = (0, 230, 255)  # BGR of pixels on which two segmenters differ
TRUE, FIRST, SECOND = (255, 255, 255), (235, 140, 30), (50, 60, 230)  # BGR of boxes, told apart by lightness as well
RIM = (30, 30, 30)


def shrunk(image: Image, longest: int) -> Image:
    """The image, its longer side at most `longest`."""
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    size_wh = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    return np.asarray(cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def classes_apart(
    name: str, image: Image, first: Classification, second: Classification, labels: tuple[str, ...]
) -> Disagreement:
    """The image, with the surest class of each."""
    sure = float(first.confidence[0])
    same = second.confidence[second.class_id == first.class_id[0]]
    gap = abs(sure - float(same[0])) if len(same) else sure
    told = [f"{labels[one.class_id[0]]} {one.confidence[0]:.0%}" for one in (first, second)]
    return Disagreement(name, told[0], told[1], "", gap, shrunk(image, SMALL))


def boxes_apart(name: str, image: Image, first: Detections, second: Detections) -> Disagreement | None:
    """The image with the second's boxes, the first's taken for the truth; None where those that are shown are alike."""
    from visionkit.train.detect_report import SURE, picture_of, worst_images
    from visionkit.train.detection_folders import DetectionSample

    sure = first[first.confidence >= SURE]
    none = np.zeros(len(sure), bool)
    truth = DetectionSample(
        name, Path(name), (image.shape[0], image.shape[1]), sure.xyxy, sure.class_id.astype(np.int64), none, none
    )
    for _, right, seen in worst_images([truth], [second], most=1):
        picture = picture_of(truth, image, second, right, seen)
        return Disagreement(
            name,
            f"{len(truth)} objects ({picture.missed} of them missed now, blue)",
            f"{len(right)} objects ({picture.false} of them new, red)",
            "",
            (picture.missed + picture.false) / max(1, len(truth) + len(right)),
            shrunk(picture.image, SHOWN),
        )
    return None


def maps_apart(
    name: str, image: Image, first: npt.NDArray[Any], second: npt.NDArray[Any], count: int
) -> Disagreement | None:
    """Image, the first's classes (h, w) and the second's beside each other; None where they are the same."""
    from visionkit.train.segment_report import class_colours

    if not (gap := float(np.mean(first != second))):
        return None
    step = max(1, -(-max(first.shape) // MAP_SIDE))
    one, other = (np.minimum(classes[::step, ::step], count) for classes in (first, second))
    colours = np.concatenate([class_colours(count), np.full((1, 3), 128, np.uint8)])  # what is no class is grey
    small = cv2.resize(image, one.shape[1::-1], interpolation=cv2.INTER_AREA)
    last = np.where((one != other)[..., None], APART, colours[other] // 2)
    shown = np.concatenate([np.asarray(small, np.uint8), colours[one], last.astype(np.uint8)], axis=1)
    words = f"another class for {gap:.2%} of the pixels (right, yellow)"
    return Disagreement(name, "its classes (middle)", words, "", gap, shown)


def tracks_apart(
    name: str, image: Image, boxes: tuple[npt.ArrayLike, npt.ArrayLike], told: tuple[str, str], truth: Any = None
) -> Disagreement:
    """The frame with both boxes (4,) xyxy, float's blue, the other's red, and the true one white where it is known."""
    from visionkit.geometry.boxes import iou_aligned

    first, second = (np.asarray(box, np.float32) for box in boxes)
    scale = min(1.0, SHOWN / max(image.shape[:2]))
    shown = shrunk(image, SHOWN).copy()
    drawn = [] if truth is None else [(truth, TRUE)]
    for box, colour in [*drawn, (first, FIRST), (second, SECOND)]:
        x1, y1, x2, y2 = (round(float(value) * scale) for value in box)
        cv2.rectangle(shown, (x1, y1), (x2, y2), RIM, 4)
        cv2.rectangle(shown, (x1, y1), (x2, y2), colour, 2)
    words = f"{told[0]} (blue)", f"{told[1]} (red)"
    where = "" if truth is None else "in the white box"
    return Disagreement(name, *words, where, 1 - float(iou_aligned(first[None], second[None])[0]), shown)
