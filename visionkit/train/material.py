"""Reading training material: unlabelled images and clips, from files and folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import av
import cv2
import numpy as np

from visionkit.train.motion import Sighting, moving_things
from visionkit.train.shapes import Image
from visionkit.train.stream import Material

__all__ = ["read_material"]

T = TypeVar("T")
IMAGES = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"])
CLIPS = frozenset([".mp4", ".mkv", ".mov", ".webm", ".avi", ".video"])


def read_material(
    paths: Iterable[Path], *, longest: int = 512, stills: int = 48, gaps: tuple[int, ...] = (2, 6), most: int = 150
) -> Material:
    """Up to `stills` images of each folder and clip, and up to `most` moving things of each clip, spread evenly.

    Folders are walked in name order; files of other kinds are passed over. Images are shrunk to `longest` pixels.
    """
    images: list[Image] = []
    sightings: list[Sighting] = []
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        pictures = [file for file in files if file.suffix.lower() in IMAGES]
        read = (_picture(file, longest) for file in _spread(pictures, stills))
        images.extend(image for image in read if image is not None)
        for file in files:
            if file.suffix.lower() in CLIPS:
                frames = list(_frames(file, longest))
                images.extend(_spread(frames, stills))
                sightings.extend(_spread([thing for gap in gaps for thing in moving_things(frames, gap)], most))
    return Material(images, sightings)


def _spread(items: list[T], most: int) -> list[T]:
    """At most `most` of the items, evenly spaced."""
    return [items[round(i)] for i in np.linspace(0, len(items) - 1, most)] if len(items) > most else items


def _picture(path: Path, longest: int) -> Image | None:
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None or min(image.shape[:2]) < 32 else _shrunk(np.asarray(image), longest)


def _frames(path: Path, longest: int, limit: int = 400) -> Iterator[Image]:
    with av.open(str(path)) as container:
        for i, frame in enumerate(container.decode(video=0)):
            if i == limit:
                return
            yield _shrunk(frame.to_ndarray(format="bgr24"), longest)


def _shrunk(image: Image, longest: int) -> Image:
    scale = longest / max(image.shape[:2])
    if scale >= 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)
