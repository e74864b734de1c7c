"""Where drawn frames go: one video with the source's times, or one JPEG an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import OutputError
from visionkit.pipeline.stage import Item, Stage
from visionkit.structures import Frame

if TYPE_CHECKING:
    from visionkit.io import MediaInfo, VideoWriter

__all__ = ["ImageSink", "Sink", "VideoSink"]

JPEG_QUALITY = 92


class Sink(Stage):
    """A stage that writes files; `finish` completes the output, `close` without it drops what was written.

    Given to `run(..., sinks=[...])` it sees each frame after the tasks and before anything is drawn on it. It names
    its files with `place`, which the run sets before `setup`, and tells of them by `item.fields` in the frame's row.

    Attributes:
        place: makes the path of a named output (`heatmaps/000012.png`) in the run's staging folder.
    """

    place: Callable[[str], Path]

    def __init__(self, name: str = "encode") -> None:
        super().__init__(name)

    def finish(self) -> dict[str, Any] | None:
        """Complete the output and say for `run.json` what it is; None where nothing was written."""
        raise NotImplementedError


class VideoSink(Sink):
    """Frames into one video: every frame at its own time, with the source's sound over the kept range.

    A frame of another size than the first (a source may change its size) is scaled to fit and centred on black.

    Args:
        place: makes the path of a named output in the run's staging folder.
        codec: as `VideoWriter`.
        end_s: the end of the kept range, for the sound.
        stem: of the file's name.
    """

    def __init__(
        self,
        place: Callable[[str], Path],
        *,
        codec: str = "auto",
        end_s: float | None = None,
        stem: str = "annotated",
    ) -> None:
        super().__init__()
        self._place, self._codec, self._end_s, self._stem = place, codec, end_s, stem
        self._writer: VideoWriter | None = None

    def setup(self, info: MediaInfo, first: Frame) -> None:
        """Open the encoder."""
        from visionkit.io.encoders import video_suffix
        from visionkit.io.video_write import VideoWriter

        self._writer = VideoWriter(
            self._place(f"{self._stem}{video_suffix(self._codec)}"),
            size_hw=first.size_hw,
            codec=self._codec,
            fps=info.fps if info.fps and 0 < info.fps <= 1000 else None,
            audio_from=info.path if info.has_audio else None,
            audio_start_ms=first.pts_ms,
            audio_end_ms=None if self._end_s is None else 1000.0 * self._end_s,
        )

    def process(self, items: Sequence[Item]) -> None:
        """Encode each frame at its time."""
        writer = self._open_writer()
        for item in items:
            frame = item.frame
            writer.write(fitted(frame.image, writer.size_hw), frame.pts_ms, frame.duration_ms)

    def finish(self) -> dict[str, Any] | None:
        """Verify the file and give it its name."""
        writer = self._open_writer()
        path = writer.close()
        if path is None:
            return None
        return {
            "file": path.name,
            "codec": writer.codec,
            "encoder": writer.encoder,
            "frames": writer.frames,
            "size_hw": list(writer.encoded_size_hw),
            "origin_ms": writer.origin_ms,
            "audio": writer.audio,
            "notes": list(writer.notes),
        }

    def close(self) -> None:
        """Drop the file if it was not finished."""
        if self._writer is not None:
            self._writer.abort()

    def _open_writer(self) -> VideoWriter:
        if self._writer is None:
            raise RuntimeError("`setup` comes before the first frame.")
        return self._writer


class ImageSink(Sink):
    """Each frame into `annotated/NAME.jpg`; a name that was taken gets its frame's index behind it."""

    def __init__(self, place: Callable[[str], Path]) -> None:
        super().__init__()
        self._place = place
        self._taken: set[str] = set()

    def process(self, items: Sequence[Item]) -> None:
        """Write each frame."""
        import cv2

        from visionkit.io.files import writing_to

        for item in items:
            path = self._place(f"annotated/{self._name(item.frame)}.jpg")
            good, data = cv2.imencode(".jpg", item.frame.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            if not good:
                raise OutputError("encode-failed", f"'{path.name}' could not be encoded as JPEG")
            with writing_to(path):
                path.write_bytes(data.tobytes())

    def finish(self) -> dict[str, Any] | None:
        """Name the folder and say how many images it holds."""
        return {"file": "annotated", "codec": "jpeg", "frames": len(self._taken)} if self._taken else None

    def _name(self, frame: Frame) -> str:
        stem = PurePosixPath(frame.source).stem
        stem = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in stem).strip(". ")
        stem = stem.encode()[:200].decode(errors="ignore") or "image"
        name = stem if stem.casefold() not in self._taken else f"{stem}-{frame.index}"
        self._taken.add(name.casefold())
        return name


def fitted(image: npt.NDArray[np.uint8], size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """`image` uint8 (H, W, 3) as it is where it has `size_hw`, else scaled to fit and centred on black."""
    height, width = image.shape[:2]
    if (height, width) == size_hw:
        return image
    import cv2

    scale = min(size_hw[0] / height, size_hw[1] / width)
    new_h, new_w = max(1, min(round(height * scale), size_hw[0])), max(1, min(round(width * scale), size_hw[1]))
    canvas = np.zeros((*size_hw, 3), np.uint8)
    top, left = (size_hw[0] - new_h) // 2, (size_hw[1] - new_w) // 2
    canvas[top : top + new_h, left : left + new_w] = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_AREA)
    return canvas
