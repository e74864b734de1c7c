"""Detections over an image: boxes with names, masks, paths of objects, lines and zones with their counts."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.draw.common import INK, SHADOW, Color, Image, TextStyle, draw_text, line_width, plain, text_style
from visionkit.draw.segment import CLASS_COLORS
from visionkit.structures import Detections

__all__ = ["DetectionDrawer", "draw_counts", "draw_detections"]

Names = Sequence[str] | Mapping[int, str] | None
Point = tuple[float, float]

LONGEST = 24  # letters of a name
OPACITY = 0.45  # of masks
ZONE_OPACITY = 0.16
NO_ID = -1
WHITE: Color = (250, 250, 250)
LINE_COLOR: Color = (255, 255, 255)  # BGR
ZONE_COLOR: Color = (255, 214, 120)
DARK_GROUND: Color = (26, 22, 18)
TRACE_FRAMES = 48
FORGOTTEN = 60  # frames after which the path of an object that is gone is dropped


def draw_detections(
    image: Image,
    detections: Detections,
    class_names: Names = None,
    *,
    traces: Mapping[int, Sequence[Point]] | None = None,
    in_place: bool = False,
) -> Image:
    """`image` uint8 (H, W, 3) BGR with boxes, names and confidences, and masks where there are any.

    Colours tell classes apart, or objects where these have numbers. What is surer lies on top. Lines and letters grow
    with the image, and letters get smaller on a box that is smaller than they are.

    Args:
        image: what to draw on; copied unless `in_place`.
        detections: of that image.
        class_names: by class id; an id without a name is shown as its number.
        traces: recent places (x, y) of objects by their number, oldest first.
        in_place: draw onto `image` itself, which must be contiguous and writable, and return it.
    """
    canvas = image if in_place else image.copy()
    width = line_width(canvas.shape[:2])
    ids = detections.tracker_id
    tracked = ids is not None and bool((ids != NO_ID).any())
    order = np.argsort(detections.confidence, kind="stable")
    colors = [_color(detections, place, tracked) for place in range(len(detections))]
    if detections.mask is not None:
        for place in order:
            _draw_mask(canvas, detections.mask[place], detections.xyxy[place], colors[place], width)
    for number, points in (traces or {}).items():
        _draw_trace(canvas, points, _turn(number), width)
    boxes = [_pixels(box, canvas.shape[:2]) for box in detections.xyxy]
    for place in order:
        _draw_box(canvas, boxes[place], colors[place], width)
    for place in order:
        name = _named(class_names, int(detections.class_id[place]))
        number = NO_ID if ids is None else int(ids[place])
        told = f"{f'#{number} ' if number != NO_ID else ''}{name} {_score(float(detections.confidence[place]))}"
        _draw_label(canvas, boxes[place], told, colors[place], width)
    return canvas


def draw_counts(
    image: Image,
    lines: Sequence[tuple[Point, Point]],
    zones: Sequence[Sequence[Point]],
    counts: Mapping[str, Any],
    *,
    in_place: bool = False,
) -> Image:
    """`image` uint8 (H, W, 3) BGR with lines, zones and what was counted there.

    Args:
        image: what to draw on; copied unless `in_place`.
        lines: start and end of each; an arrow shows which way is `in`.
        zones: corners of each.
        counts: of a frame (`Counts.now`).
        in_place: draw onto `image` itself, which must be contiguous and writable, and return it.
    """
    canvas = image if in_place else image.copy()
    _draw_shapes(canvas, lines, zones)
    _draw_numbers(canvas, lines, zones, counts)
    return canvas


class DetectionDrawer:
    """Draws the detections of consecutive frames with the paths their objects took; one drawer a video.

    Args:
        lines, zones: as `draw_counts`.
        length: how many places a path holds; 0 for none.
    """

    def __init__(
        self,
        *,
        lines: Sequence[tuple[Point, Point]] = (),
        zones: Sequence[Sequence[Point]] = (),
        length: int = TRACE_FRAMES,
    ) -> None:
        self.lines, self.zones, self.length = tuple(lines), tuple(zones), length
        self._paths: dict[int, deque[Point]] = {}
        self._seen: dict[int, int] = {}
        self._frame = 0
        self._size: tuple[int, ...] = ()

    def __call__(
        self, image: Image, detections: Detections, class_names: Names = None, counts: Mapping[str, Any] | None = None
    ) -> None:
        """Draw onto `image` uint8 (H, W, 3) BGR in place."""
        if image.shape[:2] != self._size:
            self._paths.clear()
            self._size = image.shape[:2]
        self._remember(detections)
        if counts is not None:
            _draw_shapes(image, self.lines, self.zones)
        shown = {}
        if detections.tracker_id is not None:
            shown = {int(number): self._paths[int(number)] for number in detections.tracker_id if number in self._paths}
        draw_detections(image, detections, class_names, traces=shown, in_place=True)
        if counts is not None:  # above everything, or masks would hide them
            _draw_numbers(image, self.lines, self.zones, counts)

    def _remember(self, detections: Detections) -> None:
        self._frame += 1
        if not self.length:
            return
        ids = detections.tracker_id
        for number, box in zip(() if ids is None else ids, () if ids is None else detections.xyxy, strict=True):
            if number != NO_ID:
                path = self._paths.setdefault(int(number), deque(maxlen=self.length))
                path.append((float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2))
                self._seen[int(number)] = self._frame
        for number in [n for n, frame in self._seen.items() if self._frame - frame > FORGOTTEN]:
            self._paths.pop(number, None)
            del self._seen[number]


def _turn(number: int) -> Color:
    red, green, blue = CLASS_COLORS[number % len(CLASS_COLORS)]
    return blue, green, red


def _color(detections: Detections, place: int, tracked: bool) -> Color:
    if not tracked or detections.tracker_id is None:
        return _turn(int(detections.class_id[place]))
    number = int(detections.tracker_id[place])
    return (190, 190, 190) if number == NO_ID else _turn(number)


def _named(names: Names, class_id: int) -> str:
    try:
        name = "" if names is None or class_id < 0 else plain(str(names[class_id])).strip()
    except (IndexError, KeyError):
        name = ""
    name = name or str(class_id)
    return name if len(name) <= LONGEST else name[: LONGEST - 2] + ".."


def _score(confidence: float) -> str:
    return f"{min(confidence, 0.99):.2f}"[1:] if confidence < 1 else "1"


def _pixels(box: npt.NDArray[np.float32], size_hw: tuple[int, ...]) -> tuple[int, int, int, int]:
    """First and last pixel of a box, inside the image."""
    height, width = size_hw[:2]
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    left, top = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
    return left, top, min(max(x2 - 1, left), width - 1), min(max(y2 - 1, top), height - 1)


def _draw_box(canvas: Image, box: tuple[int, int, int, int], color: Color, width: int) -> None:
    if width > 1:  # a rim keeps the colour visible on any ground; it would smother a line of one pixel
        cv2.rectangle(canvas, box[:2], box[2:], SHADOW, width + 2)
    cv2.rectangle(canvas, box[:2], box[2:], color, width)


def _draw_label(canvas: Image, box: tuple[int, int, int, int], text: str, color: Color, width: int) -> None:
    """A filled label above the box, or inside along its top where there is no room above."""
    height, span = canvas.shape[:2]
    style = _fitting(text, box[2] - box[0] + 1, width)
    chip_w, chip_h = style.size(text)
    left = int(np.clip(box[0] - width // 2, 0, max(0, span - chip_w)))
    top = box[1] - width // 2 - chip_h
    if top < 0:
        top = int(np.clip(box[1] + width, 0, max(0, height - chip_h)))
    cv2.rectangle(canvas, (left, top), (left + chip_w, top + chip_h), color, -1)
    draw_text(canvas, text, (left, top), INK if _light(color) else WHITE, style)


def _fitting(text: str, room: int, width: int) -> TextStyle:
    """Letters that are not much wider than the box, down to three quarters of the usual ones."""
    for factor in (1.0, 0.85, 0.72):
        style = text_style(width, factor)
        if style.size(text)[0] <= 1.2 * room:
            break
    return style


def _light(color: Color) -> bool:
    return 0.114 * color[0] + 0.587 * color[1] + 0.299 * color[2] > 110


def _draw_mask(
    canvas: Image, mask: npt.NDArray[np.bool_], box: npt.NDArray[np.float32], color: Color, width: int
) -> None:
    if mask.shape != canvas.shape[:2]:
        raise ValueError(f"Masks must be of the image's size {canvas.shape[:2]}. Received: {mask.shape}.")
    left, top, right, bottom = _pixels(box + np.array([-2, -2, 2, 2], np.float32), canvas.shape[:2])
    part, inside = canvas[top : bottom + 1, left : right + 1], mask[top : bottom + 1, left : right + 1]
    where = np.ascontiguousarray(inside).view(np.uint8)
    tint = np.empty_like(part)
    tint[:] = color
    cv2.addWeighted(tint, OPACITY, part, 1 - OPACITY, 0, dst=tint)
    cv2.copyTo(tint, where, part)
    outlines, _ = cv2.findContours(where, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top))
    cv2.drawContours(canvas, outlines, -1, color, max(1, width // 2), cv2.LINE_AA)


def _draw_trace(canvas: Image, path: Sequence[Point], color: Color, width: int) -> None:
    if len(path) < 2:
        return
    points = [(round(x), round(y)) for x, y in path]
    for place, (begin, end) in enumerate(itertools.pairwise(points), 1):
        share = place / (len(points) - 1)
        faded: Any = tuple(round(level * (0.35 + 0.65 * share)) for level in color)
        cv2.line(canvas, begin, end, faded, max(1, round(width * share)), cv2.LINE_AA)


def _draw_shapes(canvas: Image, lines: Sequence[tuple[Point, Point]], zones: Sequence[Sequence[Point]]) -> None:
    width = line_width(canvas.shape[:2])
    for zone in zones:
        _draw_zone(canvas, zone, width)
    for line in lines:
        _draw_line(canvas, line, width)


def _draw_numbers(
    canvas: Image, lines: Sequence[tuple[Point, Point]], zones: Sequence[Sequence[Point]], counts: Mapping[str, Any]
) -> None:
    width = line_width(canvas.shape[:2])
    for zone, count in zip(zones, counts.get("zones", ()), strict=True):
        (left, top), (right, bottom) = _extent(zone, canvas.shape[:2])
        _draw_count(canvas, f"{count['inside']} inside", np.array([(left + right) / 2, (top + bottom) / 2]), width)
    for line, count in zip(lines, counts.get("lines", ()), strict=True):
        middle, normal = _middle(line)
        _draw_count(canvas, f"in {count['in']}  out {count['out']}", middle - normal * 5 * width, width)


def _middle(line: tuple[Point, Point]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The middle of a line, and the unit vector that points to where `in` is."""
    (x1, y1), (x2, y2) = line
    normal = np.array([y2 - y1, x1 - x2]) / max(1e-6, float(np.hypot(x2 - x1, y2 - y1)))
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2]), normal


def _draw_line(canvas: Image, line: tuple[Point, Point], width: int) -> None:
    middle, normal = _middle(line)
    start, end = (_int(np.array(point)) for point in line)
    tip = _int(middle + normal * 9 * width)
    for color, thick in ((SHADOW, width + 2), (LINE_COLOR, width)):
        cv2.line(canvas, start, end, color, thick, cv2.LINE_AA)
        cv2.arrowedLine(canvas, _int(middle), tip, color, thick, cv2.LINE_AA, tipLength=0.4)


def _extent(zone: Sequence[Point], size_hw: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Upper left and lower right corner of the part of a zone's surroundings that is inside the image."""
    corners = np.rint(np.array(zone)).astype(np.int64)
    left, top = np.maximum(corners.min(axis=0), 0)
    right, bottom = np.minimum(corners.max(axis=0) + 1, [size_hw[1], size_hw[0]])
    return (int(left), int(top)), (int(right), int(bottom))


def _draw_zone(canvas: Image, zone: Sequence[Point], width: int) -> None:
    corners = np.rint(np.array(zone)).astype(np.int32)
    (left, top), (right, bottom) = _extent(zone, canvas.shape[:2])
    if right > left and bottom > top:
        part = canvas[top:bottom, left:right]
        tint = part.copy()
        cv2.fillPoly(tint, [corners - np.array([left, top], np.int32)], ZONE_COLOR)
        cv2.addWeighted(tint, ZONE_OPACITY, part, 1 - ZONE_OPACITY, 0, dst=part)
    cv2.polylines(canvas, [corners], True, ZONE_COLOR, width, cv2.LINE_AA)


def _draw_count(canvas: Image, told: str, center: npt.NDArray[np.float64], width: int) -> None:
    """A dark label around a place, moved into the image where it would leave it."""
    style = text_style(width, 1.1)
    chip_w, chip_h = style.size(told)
    left = int(np.clip(center[0] - chip_w / 2, 0, max(0, canvas.shape[1] - chip_w)))
    top = int(np.clip(center[1] - chip_h / 2, 0, max(0, canvas.shape[0] - chip_h)))
    cv2.rectangle(canvas, (left, top), (left + chip_w, top + chip_h), DARK_GROUND, -1)
    draw_text(canvas, told, (left, top), WHITE, style)


def _int(point: npt.NDArray[np.float64]) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))
