"""What composites are made of: objects cut out of photos, and pictures to paste them upon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError
from visionkit.io import printable_name, read_image
from visionkit.train.class_folders import natural_key
from visionkit.train.cutouts import Cutout, cut_out
from visionkit.train.material import CLIPS, IMAGES

__all__ = ["Kind", "read_backgrounds", "read_cutouts"]

Image = npt.NDArray[np.uint8]
LONGEST = 640
FRAMES = 40  # of a clip, whose median is a background


@dataclass(frozen=True)
class Kind:
    """One class: its name and the cut-outs to learn from and to choose on, which are of different photos."""

    name: str
    train: list[Cutout]
    val: list[Cutout]
    skipped: int = 0


def read_cutouts(name: str, folder: Path, *, val: float = 0.15) -> Kind:
    """The objects in the photos of a folder and of those inside it; the last of each folder choose the epoch.

    What was photographed together mostly has neighbouring names, so the parts show different people and days.

    Raises:
        InputError: `no-objects`; not one object stands out.
    """
    train: list[Cutout] = []
    held: list[Cutout] = []
    skipped = 0
    folders = sorted({path.parent for path in folder.rglob("*") if path.suffix.lower() in IMAGES})
    for inner in folders:
        files = sorted(
            (path for path in inner.iterdir() if path.suffix.lower() in IMAGES), key=lambda path: natural_key(path.name)
        )
        for place, path in enumerate(files):
            cutout = cut_out(_shrunk(read_image(path), 256))
            if cutout is None:
                skipped += 1
            elif place >= round(len(files) * (1 - val)):
                held.append(cutout)
            else:
                train.append(cutout)
    if not train or not held:
        raise InputError(
            "no-objects", f"{printable_name(folder)} has too few photos of an object on a plain background."
        )
    return Kind(name, train, held, skipped)


def read_backgrounds(paths: Sequence[Path]) -> list[list[Image]]:
    """Pictures to paste upon by path: an image, those of a folder, and of each clip the median of its frames.

    In a clip of a fixed camera the median shows what stands still; what moves is gone.

    Raises:
        InputError: `no-images`; a path has none.
    """
    found: list[list[Image]] = []
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        pictures = [_shrunk(read_image(file), LONGEST) for file in files if file.suffix.lower() in IMAGES]
        pictures += [_median(file) for file in files if file.suffix.lower() in CLIPS]
        if not pictures:
            raise InputError("no-images", f"{printable_name(path)} is no image or clip, nor a folder of such.")
        found.append(pictures)
    return found


def _median(path: Path) -> Image:
    with av.open(str(path)) as container:
        frames = [
            _shrunk(np.asarray(frame.to_ndarray(format="bgr24"), np.uint8), LONGEST)
            for frame in container.decode(video=0)
        ]
    chosen = frames[:: max(1, len(frames) // FRAMES)]
    return np.median(np.stack(chosen), axis=0).astype(np.uint8)


def _shrunk(image: Image, longest: int) -> Image:
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
