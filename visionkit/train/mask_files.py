"""Class numbers read from a mask file: grey or indexed PNG, or any other image whose levels are the numbers."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError

__all__ = ["decode_mask", "read_mask"]

Mask = npt.NDArray[np.uint8]
MOST_BYTES = 1 << 28
SIGNATURE = b"\x89PNG\r\n\x1a\n"
PALETTE = 3  # PNG's colour type


def read_mask(path: Path, name: str, *, max_pixels: int = 100_000_000) -> Mask:
    """The class numbers in the file `path`, uint8 (H, W); `name` is for messages.

    Raises:
        InputError: `input-unreadable`, `input-undecodable`, `image-too-large`, or `mask-colours` where the file holds
            colours instead of numbers.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError("image-too-large", f"{name} has more than {MOST_BYTES} bytes.")
        data = path.read_bytes()
    except OSError as error:
        raise InputError("input-unreadable", f"{name} cannot be read: {error.strerror}.") from None
    return decode_mask(data, name, max_pixels=max_pixels)


def decode_mask(data: bytes, name: str, *, max_pixels: int = 100_000_000) -> Mask:
    """The class numbers in the bytes of an image file, uint8 (H, W). Of a PNG with a palette these are its indices.

    Raises:
        InputError: as `read_mask`.
    """
    from visionkit.io.images import decode_image

    depth = 8
    if data.startswith(SIGNATURE) and (indices := _without_palette(data)) is not None:
        data, depth = indices
    pixels = decode_image(data, name=name, max_pixels=max_pixels)[0]  # (H, W, 3), three times the same where grey
    if data.startswith(SIGNATURE) and data[24] == 16:
        pixels = _sixteen(data, name)
    if (pixels[..., 0] != pixels[..., 1]).any() or (pixels[..., 0] != pixels[..., 2]).any():
        raise InputError(
            "mask-colours",
            f"{name} holds colours; expected a class number in each pixel: a grey PNG, or one with a palette.",
        )
    numbers = pixels[..., 0]
    # a decoder spreads 1, 2 and 4 bits over 0 to 255
    return np.ascontiguousarray(numbers if depth == 8 else numbers // (255 // ((1 << depth) - 1)))


def _sixteen(data: bytes, name: str) -> Mask:
    numbers = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if numbers is None or numbers.max() > 255:
        raise InputError("input-undecodable", f"{name} has numbers above 255; class numbers go up to 254.")
    return np.asarray(numbers if numbers.ndim == 3 else np.stack([numbers] * 3, axis=-1), np.uint8)


def _without_palette(data: bytes) -> tuple[bytes, int] | None:
    """A PNG of indices as one of grey levels, and its bits a pixel; None where it is no PNG of indices.

    A decoder would give the palette's colours, which may be the same for two classes.
    """
    grey = len(data) > 33 and data[12:16] == b"IHDR" and data[25] == 0 and data[24] < 8
    if grey:
        return data, data[24]
    if len(data) < 33 or data[12:16] != b"IHDR" or data[25] != PALETTE:
        return None
    header = data[16:25] + b"\0" + data[26:29]
    out = [SIGNATURE, _chunk(b"IHDR", header)]
    place = 33
    while place + 12 <= len(data):
        length = struct.unpack(">I", data[place : place + 4])[0]
        if data[place + 4 : place + 8] not in (b"PLTE", b"tRNS", b"bKGD", b"hIST", b"sBIT", b"iCCP", b"sPLT"):
            out.append(data[place : place + 12 + length])
        place += 12 + length
    return b"".join(out), data[24]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
