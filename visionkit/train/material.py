"""Reading training material: unlabelled images and clips, from files and folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from visionkit.train.motion import Sighting, moving_things
from visionkit.train.shapes import Image
from visionkit.train.stream import Material

__all__ = ["read_material"]

IMAGES = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"])
CLIPS = frozenset([".mp4", ".mkv", ".mov", ".webm", ".avi", ".video"])


def read_material(
    paths: Iterable[Path], *, longest: int = 512, stills: int = 24, gaps: tuple[int, ...] = (2, 6), most: int = 150
) -> Material:
    """Every readable image, `stills` frames of every clip as images, and up to `most` moving things of every clip.

    Folders are walked in name order; files of other kinds are passed over. Images are shrunk to `longest` pixels.
    """
    images: list[Image] = []
    sightings: list[Sighting] = []
    for path in _files(paths):
        if path.suffix.lower() in IMAGES:
            image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
            if image is not None and min(image.shape[:2]) >= 32:
                images.append(_shrunk(image.astype(np.uint8), longest))
            continue
        frames = list(_frames(path, longest))
        images.extend(frames[:: max(1, len(frames) // stills)][:stills])
        things = [thing for gap in gaps for thing in moving_things(frames, gap)]
        sightings.extend(things[:: max(1, -(-len(things) // most))])
    return Material(images, sightings)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix.lower() in IMAGES | CLIPS and file.is_file():
                yield file


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
