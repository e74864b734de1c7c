"""PNG files whose pixels are class ids with a palette (colour type 3): OpenCV writes none."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["indexed_png", "voc_palette"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LEVEL = 3  # label maps are flat: on them, twice as small as level 1 in the same time
Color = tuple[int, int, int]


def indexed_png(ids: npt.NDArray[np.uint8], palette: Sequence[Color] = ()) -> bytes:
    """The bytes of a PNG of 8 bits a pixel whose indices are `ids` uint8 (H, W).

    Args:
        ids: class ids; they are read back as they are by whatever leaves a palette alone (Pillow's mode `P`).
        palette: colours RGB by id; those missing up to 255 have the colours of PASCAL VOC.
    """
    if ids.ndim != 2 or ids.dtype != np.uint8 or 0 in ids.shape:
        raise ValueError(f"`ids` must be uint8 (H, W). Received: {ids.dtype} {ids.shape}.")
    height, width = ids.shape
    rows = np.zeros((height, 1 + width), np.uint8)  # each row begins with its filter: 0, none
    rows[:, 1:] = ids
    colors = np.asarray([*palette[:256], *voc_palette()[len(palette) :]], np.uint8)
    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = {b"IHDR": head, b"PLTE": colors.tobytes(), b"IDAT": zlib.compress(rows.data, LEVEL), b"IEND": b""}
    return SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks.items())


def voc_palette(count: int = 256) -> tuple[Color, ...]:
    """PASCAL VOC's colours RGB: the bits of an id, three by three, become the high bits of red, green and blue."""
    colors = []
    for number in range(count):
        red = green = blue = 0
        for place in range(8):
            bits = number >> (3 * place)
            red |= (bits & 1) << (7 - place)
            green |= (bits >> 1 & 1) << (7 - place)
            blue |= (bits >> 2 & 1) << (7 - place)
        colors.append((red, green, blue))
    return tuple(colors)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
