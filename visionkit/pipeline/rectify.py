"""The stage that straightens regions, and the video or the images that their crops become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError, OutputError
from visionkit.pipeline.sinks import ImageSink, Sink, VideoSink
from visionkit.pipeline.stage import Item, Stage
from visionkit.structures import Detections, Frame, Rectified

if TYPE_CHECKING:
    from visionkit.io import MediaInfo
    from visionkit.tasks.rectify import Rectifier

__all__ = ["RECTIFIED", "BoxCropsSink", "RectifiedSink", "RectifyStage", "box_around", "region_fields"]

RECTIFIED = "rectified"  # the key in a frame's row, and the name of the files
DIRECTION = "crop-to-image"
DIGITS = 10  # that count, of a homography's numbers: a hundredth of a pixel across any image
ROUNDING = 1e-12  # what is left of a zero
PIXEL_DIGITS = 2


class RectifyStage(Stage):
    """Straightens a region of every frame, or one in every box.

    Results: under the stage's name a `Rectified`; with `boxes` a list of them, one for each detection of that stage,
    None where a box holds no region. The row's `rectified` says the same without the pixels: homography, its
    direction, size; with `boxes` as a list.

    Args:
        rectifier: a rectifier, which stays the caller's to close; or a function that makes one, called when the source
            and the outputs have proved good, and then closed by the stage.
        boxes: name of the stage whose detections are looked into; None looks at the whole frame.
        margin: of boxes: this share of their longer side is looked at beyond each edge.
        square: of boxes: look at a square around each, so that a crop as square shows it undistorted.
    """

    def __init__(
        self,
        rectifier: Rectifier | Callable[[], Rectifier],
        *,
        boxes: str | None = None,
        margin: float = 0.0,
        square: bool = False,
    ) -> None:
        from visionkit.tasks.rectify import Rectifier

        super().__init__("rectify")
        self._owned = not isinstance(rectifier, Rectifier)
        self._given, self.boxes = rectifier, boxes
        self.margin, self.square = margin, square
        self._rectifier: Rectifier | None = rectifier if isinstance(rectifier, Rectifier) else None

    @property
    def rectifier(self) -> Rectifier | None:
        """The one in use; None before `setup` where a function makes it."""
        return self._rectifier

    @property
    def size_hw(self) -> tuple[int, int]:
        """Of the crops; known once the rectifier is loaded."""
        size_hw = self._ready().size_hw
        if size_hw is None:
            raise RuntimeError("A rectifier says the size of its crops.")
        return size_hw

    def check(self, info: MediaInfo, first: Frame) -> None:
        """Refuse corners outside of the first frame (UsageError `corners-outside`)."""
        if self._rectifier is not None and self.boxes is None:
            self._rectifier.check(first.size_hw)

    def setup(self, info: MediaInfo, first: Frame) -> None:
        """Load the rectifier, unless it was given."""
        if self._rectifier is None:
            make: Any = self._given
            self._rectifier = make()
            self.check(info, first)

    def process(self, items: Sequence[Item]) -> None:
        """The crops, and the fields that say where they come from."""
        rectifier = self._ready()
        for item in items:
            if self.boxes is None:
                found = rectifier.whole(item.frame.image)
                item.results[self.name], item.fields[RECTIFIED] = found, region_fields(found)
                continue
            detections = item.results.get(self.boxes)
            if isinstance(detections, Detections):
                crops = [self._inside(rectifier, item.frame.image, box) for box in detections.xyxy]
                item.results[self.name] = crops
                item.fields[RECTIFIED] = [None if crop is None else region_fields(crop) for crop in crops]

    def describe(self) -> dict[str, Any] | None:
        """What the rectifier says about its model, where it has one."""
        return None if self._rectifier is None else self._rectifier.describe()

    def settings(self) -> dict[str, Any] | None:
        """Corners or transform, size, averaging."""
        if self._rectifier is None:
            return None
        around = {} if self.boxes is None else {"margin": self.margin, "square": self.square}
        return {**self._rectifier.settings(), "boxes": self.boxes, **around}

    def close(self) -> None:
        """Close the rectifier that `setup` loaded."""
        if self._owned and self._rectifier is not None:
            self._rectifier.close()

    def _inside(
        self, rectifier: Rectifier, image: npt.NDArray[np.uint8], xyxy: npt.NDArray[np.float32]
    ) -> Rectified | None:
        height, width = image.shape[:2]
        x1, y1, x2, y2 = xyxy.tolist()
        if not (min(x2, width) > max(x1, 0) and min(y2, height) > max(y1, 0)):
            return None  # nothing of it is in the image
        if self.margin or self.square:
            xyxy = box_around(xyxy, (height, width), margin=self.margin, square=self.square)
        try:
            return rectifier.inside(image, xyxy)
        except ModelError:
            return None

    def _ready(self) -> Rectifier:
        if self._rectifier is None:
            raise RuntimeError("`setup` comes before the first frame.")
        return self._rectifier


class RectifiedSink(Sink):
    """The crops of whole frames: of a video `rectified.mp4`, every crop at its frame's time; of images PNG files.

    A frame that failed is black in the video, and has no image.

    Args:
        stage: whose results are written.
        codec: of the video, as `VideoWriter`.
        end_s: the end of the kept range, for the sound.
    """

    def __init__(self, stage: RectifyStage, *, codec: str = "auto", end_s: float | None = None) -> None:
        super().__init__(RECTIFIED)
        self._stage, self._codec, self._end_s = stage, codec, end_s
        self._video: VideoSink | None = None
        self._images: _PngSink | None = None
        self._blank: npt.NDArray[np.uint8] = np.zeros((1, 1, 3), np.uint8)

    def setup(self, info: MediaInfo, first: Frame) -> None:
        """Open the encoder for crops of the stage's size."""
        if info.kind != "video":
            self._images = _PngSink(self.place)
            return
        self._blank = np.zeros((*self._stage.size_hw, 3), np.uint8)
        self._video = VideoSink(self.place, codec=self._codec, end_s=self._end_s, stem=RECTIFIED)
        self._video.setup(info, replace(first, image=self._blank))

    def process(self, items: Sequence[Item]) -> None:
        """Write each crop."""
        for item in items:
            found: Rectified | None = item.results.get(self._stage.name)
            if self._video is not None:
                self._video.process([crop_item(item, self._blank if found is None else found.image)])
            elif self._images is not None and found is not None:
                self._images.process([crop_item(item, found.image)])
                item.fields[RECTIFIED] = {**item.fields[RECTIFIED], "file": self._images.last}

    def finish(self) -> dict[str, Any] | None:
        """Complete the file, and say what it is."""
        inner = self._video or self._images
        return None if inner is None else inner.finish()

    def close(self) -> None:
        """Drop the video if it was not finished."""
        if self._video is not None:
            self._video.close()


class BoxCropsSink(Sink):
    """The crops of boxes into `crops/000012-03.png`: the frame's index, and the box's place in the row.

    Args:
        stage: whose results are written.
    """

    def __init__(self, stage: RectifyStage) -> None:
        super().__init__("crops")
        self._stage = stage
        self._written = 0

    def process(self, items: Sequence[Item]) -> None:
        """Write the crops, and name them in their rows."""
        for item in items:
            for number, crop in enumerate(item.results.get(self._stage.name) or ()):
                if crop is not None:
                    name = f"{self.name}/{item.frame.index:06d}-{number:02d}.png"
                    _write_png(self.place(name), crop.image)
                    item.fields[RECTIFIED][number]["file"] = name
                    self._written += 1

    def finish(self) -> dict[str, Any] | None:
        """Name the folder and say how many images it holds."""
        return {"file": self.name, "codec": "png", "frames": self._written} if self._written else None


class _PngSink(ImageSink):
    """Crops into `rectified/NAME.png`, which loses nothing."""

    last = ""

    def process(self, items: Sequence[Item]) -> None:
        """Write each crop."""
        for item in items:
            self.last = f"{RECTIFIED}/{self._name(item.frame)}.png"
            _write_png(self._place(self.last), item.frame.image)

    def finish(self) -> dict[str, Any] | None:
        """Name the folder and say how many images it holds."""
        return {"file": RECTIFIED, "codec": "png", "frames": len(self._taken)} if self._taken else None


def _write_png(path: Path, image: npt.NDArray[np.uint8]) -> None:
    import cv2

    from visionkit.io.files import writing_to

    good, data = cv2.imencode(".png", image)
    if not good:
        raise OutputError("encode-failed", f"'{path.name}' could not be encoded as PNG")
    with writing_to(path):
        path.write_bytes(data.tobytes())


def crop_item(item: Item, image: npt.NDArray[np.uint8]) -> Item:
    """An item of the same frame with other pixels."""
    return Item(replace(item.frame, image=image))


def region_fields(region: Rectified) -> dict[str, Any]:
    """What a row says of a region: its homography, from continuous pixels of the crop to those of the image, and size.

    A region that is no plane (of a thin-plate spline) has no homography, and the points of its outline instead.
    """
    size = {"size_hw": list(region.size_hw)}
    if region.homography is None:
        return {"homography": None, "outline": region.outline.round(PIXEL_DIGITS).tolist(), **size}
    matrix = [[_significant(value) for value in row] for row in region.homography.tolist()]
    return {"homography": matrix, "direction": DIRECTION, **size}


def _significant(value: float) -> float:
    return 0.0 if abs(value) < ROUNDING else float(f"{value:.{DIGITS}g}")


def box_around(
    xyxy: npt.NDArray[np.float32], size_hw: tuple[int, int], *, margin: float = 0.0, square: bool = False
) -> npt.NDArray[np.float32]:
    """A box float32 (4,) xyxy with a share of its longer side added at each edge.

    A square that would reach out of the image is moved into it as far as it fits.
    """
    x1, y1, x2, y2 = (float(n) for n in xyxy)
    longer = max(x2 - x1, y2 - y1)
    half = np.array([longer, longer] if square else [x2 - x1, y2 - y1]) / 2 + margin * longer
    middle = np.array([x1 + x2, y1 + y2]) / 2
    if square:
        span = np.array([size_hw[1], size_hw[0]], np.float64)
        room = np.maximum(span - half, half)  # the middle lies between `half` and this, where the square fits
        middle = np.where(2 * half <= span, np.clip(middle, half, room), middle)
    return np.concatenate([middle - half, middle + half]).astype(np.float32)
