"""Size, orientation and missing bytes of an image, read from its header: nothing is decoded.

A 27 KB PNG may decode to gigabytes, so its size has to be known before a decoder sees it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HeaderError", "ImageHeader", "moves", "read_header"]

_EXIF_ORIENTATION = 0x0112
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


class HeaderError(ValueError):
    """The header is missing or makes no sense."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a header says.

    Args:
        height: of the pixels as stored.
        width: of the pixels as stored.
        orientation: EXIF orientation, 1 to 8.
        missing_bytes: how many bytes the file lacks; 0 when unknown.
        orientation_field: the two bytes that hold the orientation, where a decoder applies it unasked (TIFF).
    """

    height: int
    width: int
    orientation: int = 1
    missing_bytes: int = 0
    orientation_field: slice | None = None


def read_header(data: bytes, kind: str) -> ImageHeader:
    """The header of a whole image file of the format that `probe.sniff` named.

    Raises:
        HeaderError: it is cut short, contradicts itself or is of no supported format.
    """
    reader = _READERS.get(kind)
    if reader is None:
        raise HeaderError(f"images of the format {kind} are not supported")
    try:
        header = reader(data)
    except (struct.error, IndexError, ValueError) as error:
        if isinstance(error, HeaderError):
            raise
        raise HeaderError("its header is cut short or broken") from None
    if header.height < 1 or header.width < 1:
        raise HeaderError(f"its header gives the size {header.width}x{header.height}")
    return header


def moves(path: Path) -> bool:
    """Whether a GIF file holds more than one picture."""
    with path.open("rb") as handle:
        data = handle.read()
    return sum(1 for _, _ in zip(_gif_pictures(data), range(2), strict=False)) > 1


def _png(data: bytes) -> ImageHeader:
    if data[12:16] != b"IHDR":
        raise HeaderError("its first chunk is not IHDR")
    width, height = struct.unpack_from(">II", data, 16)
    orientation, at = 1, 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"eXIf":
            orientation = _exif(data[at + 8 : at + 8 + length])
        if kind == b"IEND":
            return ImageHeader(height, width, orientation)
        at += 12 + length
    return ImageHeader(height, width, orientation, max(1, at - len(data)))


def _jpeg(data: bytes) -> ImageHeader:
    at, orientation, size = 2, 1, (0, 0)
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            at += 1  # a decoder skips garbage between segments
            continue
        marker = data[at + 1]
        if marker in (0xFF, 0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == 0xD9:
            break
        length = struct.unpack_from(">H", data, at + 2)[0]
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0" and orientation == 1:
            orientation = _exif(data[at + 10 : at + 2 + length])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = struct.unpack_from(">HH", data, at + 5)
        if marker == 0xDA:
            ends = data.find(b"\xff\xd9", at) >= 0
            return ImageHeader(*size, orientation, 0 if ends else 2)
        at += 2 + length
    raise HeaderError("it ends before its first scan")


def _gif(data: bytes) -> ImageHeader:
    width, height = struct.unpack_from("<HH", data, 6)
    return ImageHeader(height, width)


def _gif_pictures(data: bytes) -> Iterator[int]:
    """Offsets of the pictures in a GIF."""
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10:11] and data[10] & 0x80 else 0)
    while at < len(data):
        if data[at] == 0x2C and at + 10 <= len(data):
            yield at
            at += 10 + (3 << ((data[at + 9] & 7) + 1) if data[at + 9] & 0x80 else 0) + 1
        elif data[at] == 0x21:
            at += 2
        else:
            return
        while at < len(data) and data[at]:
            at += data[at] + 1
        at += 1


def _bmp(data: bytes) -> ImageHeader:
    offset, header = struct.unpack_from("<II", data, 10)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    row = (abs(width) * bits + 31) // 32 * 4
    missing = offset + row * abs(height) - len(data) if compression in (0, 3) else 0
    return ImageHeader(abs(height), abs(width), 1, max(0, missing))


def _webp(data: bytes) -> ImageHeader:
    missing = max(0, 8 + struct.unpack_from("<I", data, 4)[0] - len(data))
    orientation, at, size = 1, 12, (0, 0)
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + length]
        if kind == b"VP8X":
            size = (1 + int.from_bytes(body[7:10], "little"), 1 + int.from_bytes(body[4:7], "little"))
        elif kind == b"VP8 " and size == (0, 0):
            width, height = struct.unpack_from("<HH", body, 6)
            size = (height & 0x3FFF, width & 0x3FFF)
        elif kind == b"VP8L" and size == (0, 0):
            bits = int.from_bytes(body[1:5], "little")
            size = (1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF))
        elif kind == b"EXIF":
            orientation = _exif(body.removeprefix(b"Exif\0\0"))
        at += 8 + length + (length & 1)
    return ImageHeader(*size, orientation, missing)


def _pnm(data: bytes) -> ImageHeader:
    if data[:2] == b"P7":
        fields = dict(re.findall(rb"\b(WIDTH|HEIGHT|DEPTH|MAXVAL)\s+(\d{1,9})", data[:4096]))
        end = data.find(b"ENDHDR\n") + 7
        height, width = int(fields[b"HEIGHT"]), int(fields[b"WIDTH"])
        values = height * width * int(fields[b"DEPTH"]) * (1 + (int(fields[b"MAXVAL"]) > 255))
        return ImageHeader(height, width, 1, max(0, end + values - len(data)))
    pattern = rb"P([1-6])" + rb"(?:\s|#[^\n]*\n)+(\d{1,9})" * 2
    match = re.match(pattern, data[:65536])
    if not match:
        raise HeaderError("its header is cut short or broken")
    kind, width, height = int(match[1]), int(match[2]), int(match[3])
    if kind == 4:
        return ImageHeader(height, width, 1, max(0, match.end() + 1 + (width + 7) // 8 * height - len(data)))
    if kind < 4:
        return ImageHeader(height, width)
    depth = re.match(rb"(?:\s|#[^\n]*\n)+(\d{1,9})", data[match.end() : match.end() + 4096])
    if not depth:
        raise HeaderError("its header is cut short or broken")
    values = height * width * (3 if kind == 6 else 1) * (2 if int(depth[1]) > 255 else 1)
    return ImageHeader(height, width, 1, max(0, match.end() + depth.end() + 1 + values - len(data)))


def _tiff(data: bytes) -> ImageHeader:
    tags, fields = _ifd(data)
    orientation = tags.get(_EXIF_ORIENTATION, [1])[0]
    at = fields.get(_EXIF_ORIENTATION)
    ends = [0]
    for offsets, counts in ((273, 279), (324, 325)):
        ends += [start + length for start, length in zip(tags.get(offsets, []), tags.get(counts, []), strict=False)]
    if 256 not in tags or 257 not in tags:
        raise HeaderError("its header gives no size")
    field = None if at is None else slice(at, at + 2)
    known = orientation if 1 <= orientation <= 8 else 1
    return ImageHeader(tags[257][0], tags[256][0], known, max(0, max(ends) - len(data)), field)


def _exif(data: bytes) -> int:
    """The orientation in EXIF data, 1 when there is none that makes sense."""
    try:
        value = _ifd(data)[0].get(_EXIF_ORIENTATION, [1])[0]
    except (HeaderError, struct.error, IndexError):
        return 1
    return value if 1 <= value <= 8 else 1


def _ifd(data: bytes) -> tuple[dict[int, list[int]], dict[int, int]]:
    """Whole-number tags of the first directory of TIFF or BigTIFF data, and where the values of each stand."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise HeaderError("it is not TIFF data")
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    word, entry, count_at = ("Q", 20, "Q") if big else ("I", 12, "H")
    at = struct.unpack_from(order + word, data, 8 if big else 4)[0]
    number = struct.unpack_from(order + count_at, data, at)[0]
    at += struct.calcsize(count_at)
    tags: dict[int, list[int]] = {}
    fields: dict[int, int] = {}
    for position in range(at, min(at + entry * number, len(data) - entry + 1), entry):
        tag, kind = struct.unpack_from(order + "HH", data, position)
        count = struct.unpack_from(order + word, data, position + 4)[0]
        code = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
        if code is None or count > 1_000_000:
            continue
        value = position + 4 + struct.calcsize(word)
        if count * _TIFF_SIZES[kind] > struct.calcsize(word):
            value = struct.unpack_from(order + word, data, value)[0]
        if count:
            tags[tag], fields[tag] = list(struct.unpack_from(f"{order}{count}{code}", data, value)), value
    return tags, fields


def _jp2(data: bytes) -> ImageHeader:
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0:
        raise HeaderError("it holds no JPEG 2000 codestream")
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    return ImageHeader(bottom - top, right - left)


def _avif(data: bytes) -> ImageHeader:
    sizes = [struct.unpack_from(">II", data, found.end() + 4) for found in re.finditer(b"ispe", data[: 1 << 20])]
    if not sizes:
        raise HeaderError("its header gives no size")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return ImageHeader(height, width)


def _hdr(data: bytes) -> ImageHeader:
    match = re.search(rb"\n[-+]([XY]) (\d{1,9}) [-+][XY] (\d{1,9})\n", data[:65536])
    if not match:
        raise HeaderError("its header gives no size")
    first, second = int(match[2]), int(match[3])
    return ImageHeader(first, second) if match[1] == b"Y" else ImageHeader(second, first)


_READERS = {
    "png": _png,
    "jpeg": _jpeg,
    "gif": _gif,
    "bmp": _bmp,
    "webp": _webp,
    "pnm": _pnm,
    "tiff": _tiff,
    "jp2": _jp2,
    "avif": _avif,
    "hdr": _hdr,
}
