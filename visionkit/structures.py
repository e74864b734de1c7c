"""The values that travel between rooms: frames in, results out. Frozen, validated once, NumPy only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import supervision

__all__ = [
    "TRACK_STATES",
    "Classification",
    "DenseClassification",
    "Detections",
    "Frame",
    "MultiClassification",
    "Rectified",
    "Segmentation",
    "Track",
    "TrackState",
]

TrackState = Literal["tracking", "uncertain", "lost", "reacquired"]
TRACK_STATES: tuple[TrackState, ...] = ("tracking", "uncertain", "lost", "reacquired")


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One upright image of a source and its place in time.

    Args:
        image: uint8 (H, W, 3) BGR.
        index: position in the source, counted from 0 over every frame the source holds, decoded or not.
        pts_ms: presentation time in milliseconds as the container says it; None for a still image.
        duration_ms: how long the frame is shown; None for a still image or where the source does not say.
        source: name of the file, folder entry or address the frame came from.
        damaged: the decoder complained about this frame; its pixels may be wrong.
    """

    image: npt.NDArray[np.uint8]
    index: int
    pts_ms: float | None
    duration_ms: float | None
    source: str
    damaged: bool = False

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return int(self.image.shape[0]), int(self.image.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes of one image; every array is aligned on axis 0 (field names as in supervision).

    Args:
        xyxy: float32 (N, 4), absolute pixels, continuous (width = x2 - x1).
        confidence: float32 (N,) in [0, 1].
        class_id: int64 (N,).
        mask: bool (N, H, W), or None.
        tracker_id: int64 (N,), or None.
    """

    xyxy: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.int64]
    mask: npt.NDArray[np.bool_] | None = None
    tracker_id: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        xyxy = np.asarray(self.xyxy, dtype=np.float32)
        if xyxy.ndim != 2 or xyxy.shape[1] != 4:
            raise ValueError(f"`xyxy` must have shape (N, 4). Received: shape={np.shape(self.xyxy)}.")
        object.__setattr__(self, "xyxy", xyxy)
        kinds = {"confidence": np.float32, "class_id": np.int64, "mask": np.bool_, "tracker_id": np.int64}
        for name, dtype in kinds.items():
            value = getattr(self, name)
            if value is None:
                continue
            array: npt.NDArray[Any] = np.asarray(value, dtype=dtype)
            if array.ndim != (3 if name == "mask" else 1) or len(array) != len(xyxy):
                raise ValueError(
                    f"`{name}` must have one entry for each of the {len(xyxy)} boxes. Received: shape={array.shape}."
                )
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.xyxy)

    def __getitem__(self, index: int | slice | Sequence[int] | npt.NDArray[Any]) -> Detections:
        """The boxes picked by an integer, a slice, an index array or a boolean array."""
        picked = [index] if isinstance(index, int | np.integer) else index
        mask, ids = self.mask, self.tracker_id
        return replace(
            self,
            xyxy=self.xyxy[picked],
            confidence=self.confidence[picked],
            class_id=self.class_id[picked],
            mask=None if mask is None else mask[picked],
            tracker_id=None if ids is None else ids[picked],
        )

    def __iter__(self) -> Iterator[Detections]:
        return (self[i] for i in range(len(self)))

    @classmethod
    def empty(cls) -> Detections:
        """No boxes."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    @classmethod
    def concatenate(cls, parts: Sequence[Detections]) -> Detections:
        """All boxes of `parts` in order; masks and ids are kept only where every part has them."""
        if not parts:
            return cls.empty()

        def join(name: str) -> Any:
            arrays = [getattr(part, name) for part in parts]
            return None if any(a is None for a in arrays) else np.concatenate(arrays)

        return cls(join("xyxy"), join("confidence"), join("class_id"), join("mask"), join("tracker_id"))

    def to_supervision(self) -> supervision.Detections:
        """The same boxes as `supervision.Detections`, for its annotators and zones."""
        import supervision

        return supervision.Detections(
            xyxy=self.xyxy,
            confidence=self.confidence,
            class_id=self.class_id,
            mask=self.mask,
            tracker_id=self.tracker_id,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """Classes of one image, most likely first: class_id int64 (K,), confidence float32 (K,) not increasing."""

    class_id: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        ids = np.asarray(self.class_id, dtype=np.int64)
        confidence = np.asarray(self.confidence, dtype=np.float32)
        if ids.ndim != 1 or ids.shape != confidence.shape:
            raise ValueError(
                "`class_id` and `confidence` must be one-dimensional and of one length. "
                f"Received: shapes {ids.shape} and {confidence.shape}."
            )
        if np.any(np.diff(confidence) > 0):
            raise ValueError(f"`confidence` must not increase. Received: confidence={confidence.tolist()}.")
        object.__setattr__(self, "class_id", ids)
        object.__setattr__(self, "confidence", confidence)

    def __len__(self) -> int:
        return len(self.class_id)


@dataclass(frozen=True, slots=True, eq=False)
class MultiClassification:
    """What several heads over one trunk say of one image: a `Classification` for each, by the head's name."""

    heads: Mapping[str, Classification]

    def __post_init__(self) -> None:
        for name, head in self.heads.items():
            if not isinstance(name, str) or not isinstance(head, Classification):
                raise ValueError(
                    f"`heads` must map names to Classification. Received: {name!r}: {type(head).__name__}."
                )
        object.__setattr__(self, "heads", MappingProxyType(dict(self.heads)))

    def __len__(self) -> int:
        return len(self.heads)

    def __getitem__(self, head: str) -> Classification:
        return self.heads[head]


@dataclass(frozen=True, slots=True, eq=False)
class DenseClassification:
    """A classifier's answer at every place of a grid over one image.

    Args:
        probs: float32 (h, w, L), at each place the probabilities of all classes.
        x, y: float32 (w,) and (h,), centres of the windows behind the places, absolute pixels of the image.
        window_hw: height and width of such a window in pixels of the image; it may reach beyond the image.
        overall: the classes of the whole image, most likely first.
    """

    probs: npt.NDArray[np.float32]
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    window_hw: tuple[float, float]
    overall: Classification

    def __post_init__(self) -> None:
        for name in ("probs", "x", "y"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float32))
        if self.probs.ndim != 3 or self.probs.shape[:2] != (len(self.y), len(self.x)):
            raise ValueError(
                "`probs` must have shape (h, w, L), with `y` (h,) and `x` (w,). "
                f"Received: shapes {self.probs.shape}, {self.y.shape} and {self.x.shape}."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """One class per pixel: class_map integer (H, W); confidence float32 (H, W), or None."""

    class_map: npt.NDArray[np.integer[Any]]
    confidence: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.class_map.ndim != 2 or not np.issubdtype(self.class_map.dtype, np.integer):
            raise ValueError(
                "`class_map` must be an integer array (H, W). "
                f"Received: shape={self.class_map.shape}, dtype={self.class_map.dtype}."
            )
        if self.confidence is not None and self.confidence.shape != self.class_map.shape:
            raise ValueError(
                f"`confidence` must have the shape of `class_map` {self.class_map.shape}. "
                f"Received: shape={self.confidence.shape}."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Rectified:
    """A region of an image as a straight crop.

    Args:
        image: the crop, uint8 (h, w, 3) BGR.
        outline: float64 (P, 2) xy, the region's edge in the image it was cut from, absolute pixels; it begins where the
            crop's top left corner lies and goes on to its top right. Four corners, unless the edges are bent.
        homography: float64 (3, 3), from pixels of the crop to pixels of the image, both continuous (the centre of pixel
            i is i + 0.5); None where no matrix says it, as of a thin-plate spline.
    """

    image: npt.NDArray[np.uint8]
    outline: npt.NDArray[np.float64]
    homography: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        outline = np.asarray(self.outline, np.float64)
        if self.image.ndim != 3 or outline.ndim != 2 or outline.shape[1] != 2:
            raise ValueError(
                "`image` must be (h, w, 3) and `outline` (P, 2). "
                f"Received: shapes {self.image.shape} and {outline.shape}."
            )
        object.__setattr__(self, "outline", outline)
        if self.homography is not None:
            homography = np.asarray(self.homography, np.float64)
            if homography.shape != (3, 3):
                raise ValueError(f"`homography` must be (3, 3). Received: shape={homography.shape}.")
            object.__setattr__(self, "homography", homography)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the crop in pixels."""
        return int(self.image.shape[0]), int(self.image.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """Where one followed object is in one frame.

    Args:
        xyxy: float32 (4,), absolute pixels. While `lost`: the last place the object was seen.
        confidence: in [0, 1].
        state: `tracking`, `uncertain` (seen, but weakly), `lost` (not seen; searching), `reacquired` (the first
            frame after `lost`).
    """

    xyxy: npt.NDArray[np.float32]
    confidence: float
    state: TrackState

    def __post_init__(self) -> None:
        xyxy = np.asarray(self.xyxy, dtype=np.float32)
        if xyxy.shape != (4,):
            raise ValueError(f"`xyxy` must have shape (4,). Received: shape={xyxy.shape}.")
        if self.state not in TRACK_STATES:
            raise ValueError(f"`state` must be one of {', '.join(TRACK_STATES)}. Received: state={self.state!r}.")
        object.__setattr__(self, "xyxy", xyxy)
        object.__setattr__(self, "confidence", float(self.confidence))
