"""Still images: one, a folder or a glob; upright 8-bit BGR, never larger than allowed, and never half of a picture."""

from __future__ import annotations

import glob
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError
from visionkit.io.image_header import HeaderError, ImageHeader, read_header
from visionkit.io.native_stderr import caught_messages
from visionkit.io.paths import LocalFile, PathLike, local_file, unreadable
from visionkit.io.probe import HEAD_BYTES, sniff
from visionkit.io.report import MediaInfo, ReadReport
from visionkit.io.text import printable_name, safe_text
from visionkit.structures import Frame

__all__ = ["Entry", "FolderSource", "ImageSource", "decode_image", "listing", "read_image"]

Image = npt.NDArray[np.uint8]
_COMMON = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".hdr"}
_SUFFIXES = _COMMON | {".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pam", ".jp2", ".j2k", ".avif", ".heic"}
# Where in OpenCV a message comes from, and the name of its temporary file.
_FROM_OPENCV = re.compile(r"^\[.*?\] (global \S+ \S+ )?|imdecode_\('[^']*'\): |: OpenCV\(.*$")
# Messages about metadata or colour profiles that leave the pixels as they are.
_HARMLESS = re.compile(
    r"iCCP|tRNS|sRGB|cHRM|gAMA|sBIT|tEXt|zTXt|iTXt|tIME|pHYs|eXIf|bKGD|Exif|EXIF|known incorrect|Unknown field|"
    r"ICC|tag ignored|INFO:|DEBUG:|unexpected end of LZ stream chunk"
)


def read_image(path: PathLike, *, max_pixels: int = 100_000_000) -> Image:
    """The image at `path`, uint8 (H, W, 3) BGR, upright.

    Raises:
        InputError: as `open_source`.
    """
    file = local_file(path)
    data = _load(file.path, file.size, file.name, max_pixels)
    return decode_image(data, name=file.name, max_pixels=max_pixels)[0]


def decode_image(data: bytes, *, name: str, max_pixels: int = 100_000_000) -> tuple[Image, ImageHeader]:
    """The image in the bytes of a file, uint8 (H, W, 3) BGR upright, and its header.

    More than 8 bits a channel are scaled down, grey and palettes become BGR, transparency is dropped, EXIF orientation
    is applied. The name plays no part: the content decides the format.

    Args:
        name: for messages.
        max_pixels: limit on height times width, checked on the header.

    Raises:
        InputError: `input-undecodable` (also where the decoder only warned: such pixels are not to be trusted),
            `image-too-large`, `playlist-refused`.
    """
    kind = sniff(data[:HEAD_BYTES])
    if kind.kind != "image":
        raise InputError("input-undecodable", f"{name} ({len(data)} bytes) {_not_an_image(data, kind.kind)}.")
    try:
        header = read_header(data, kind.format)
    except HeaderError as error:
        raise InputError("input-undecodable", f"{name} ({len(data)} bytes, {kind.format}): {error}.") from None
    if header.height * header.width > max_pixels:
        raise InputError(
            "image-too-large",
            f"{name} is {header.width}x{header.height} = {header.height * header.width} pixels; the limit is "
            f"{max_pixels} (raise it with --max-pixels).",
        )
    if header.missing_bytes:
        raise InputError("input-undecodable", f"{name} ({len(data)} bytes, {kind.format}) is damaged: it ends early.")
    if header.orientation_field is not None:  # OpenCV turns TIFF, also when told not to; it must not be done twice
        one = b"\1\0" if data[:2] == b"II" else b"\0\1"
        data = data[: header.orientation_field.start] + one + data[header.orientation_field.stop :]
    return _upright(_decode(data, name, kind.format), header.orientation), header


def _not_an_image(data: bytes, kind: str) -> str:
    if not data:
        return "is empty"
    return "is a video, give it on its own" if kind == "video" else "is not an image that VisionKit reads"


def _decode(data: bytes, name: str, kind: str) -> Image:
    import cv2

    image, reason = None, "the decoder gives no reason"
    with caught_messages() as messages:
        try:
            flags = cv2.IMREAD_COLOR_BGR | cv2.IMREAD_IGNORE_ORIENTATION
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error as error:
            reason = _FROM_OPENCV.sub("", str(error.err or error).splitlines()[0])
    warnings = [line for line in messages if line and not _HARMLESS.search(line)]
    if image is not None and not warnings:
        return np.asarray(image, np.uint8)
    said = _FROM_OPENCV.sub("", warnings[0]) if warnings else reason
    state = "is damaged" if image is not None else "cannot be decoded"
    raise InputError("input-undecodable", f"{name} ({len(data)} bytes, {kind}) {state}: {safe_text(said)}.")


def _upright(image: Image, orientation: int) -> Image:
    """The image turned and mirrored as EXIF orientation 1 to 8 asks."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    vertical, horizontal = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(image[:: -1 if vertical else 1, :: -1 if horizontal else 1])


class ImageSource:
    """One image as a source of one frame; decoded when opened. See `report.Source`."""

    def __init__(self, file: LocalFile, kind: str, *, max_pixels: int) -> None:
        image, header = decode_image(
            _load(file.path, file.size, file.name, max_pixels), name=file.name, max_pixels=max_pixels
        )
        self._image: Image | None = image
        self.report = ReadReport(declared=1)
        height, width = image.shape[:2]
        rotation = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}.get(header.orientation, 0)
        self.info = MediaInfo(
            kind="image",
            name=file.name,
            path=file.path,
            size_hw=(height, width),
            frame_count=1,
            codec=kind,
            container=kind,
            rotation=rotation,
            backend="opencv",
            size_bytes=file.size,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the image."""
        self._image = None

    def __iter__(self) -> Iterator[Frame]:
        image, self._image = self._image, None
        if image is None:
            raise RuntimeError("An image source can be iterated once; open it again.")
        self.report.decoded, self.report.finished = 1, True
        yield Frame(image, 0, None, None, self.info.name)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a folder: path, printable name, and what identified it when the folder was listed."""

    path: Path
    name: str
    identity: tuple[int, int, int, int] | None


def listing(path: Path) -> list[Entry]:
    """The images of a folder (not of its subfolders) or of a glob, in natural order (`2.png` before `10.png`).

    In a folder, a file counts when its name ends like an image's or its content is one; of a glob, every file counts.

    Raises:
        InputError: `no-images`, `input-unreadable`.
    """
    shown = printable_name(path)
    try:
        found = _in_folder(path) if path.is_dir() else _by_pattern(path)
    except OSError as error:
        raise unreadable(error, shown) from None
    if not found:
        raise InputError("no-images", f"{shown} holds no image; expected files such as .jpg or .png.")
    return sorted(found, key=lambda entry: _natural(entry.name))


def _in_folder(folder: Path) -> list[Entry]:
    paths = [path for path in folder.iterdir() if not path.name.startswith(".") and not path.is_dir()]
    return [_entry(path, printable_name(path.name)) for path in paths if _looks_like_image(path)]


def _by_pattern(pattern: Path) -> list[Entry]:
    found = glob.glob(os.fspath(pattern), recursive=True)  # noqa: PTH207 (Path.glob cannot take an absolute pattern)
    paths = [path for path in map(Path, found) if not path.is_dir()]
    root = os.path.commonpath([path.parent for path in paths]) if paths else ""
    return [_entry(path, printable_name(path.relative_to(root))) for path in paths]


def _looks_like_image(path: Path) -> bool:
    if path.suffix.lower() in _SUFFIXES:
        return True
    try:
        if not path.is_file():
            return False
        with path.open("rb") as handle:
            return sniff(handle.read(4096)).kind == "image"
    except OSError:
        return False


def _entry(path: Path, name: str) -> Entry:
    try:
        return Entry(path, name, _identity(path.stat()))
    except OSError:
        return Entry(path, name, None)


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    parts = re.split(r"(\d+)", name.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], name


class FolderSource:
    """Images of a folder or a glob as frames without times; a bad one is noted and passed over. See `report.Source`."""

    def __init__(self, entries: list[Entry], path: Path, *, stride: int, max_pixels: int) -> None:
        self._entries, self._stride, self._max_pixels = entries, stride, max_pixels
        self._iterating = False
        self.report = ReadReport(declared=len(entries))
        self.info = MediaInfo(
            kind="images",
            name=printable_name(path.name),
            path=path if path.is_dir() else None,
            size_hw=None,
            frame_count=len(entries),
            backend="opencv",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held between images."""

    def __iter__(self) -> Iterator[Frame]:
        if self._iterating:
            raise RuntimeError("A folder source can be iterated once; open it again.")
        self._iterating = True
        for index in range(0, len(self._entries), self._stride):
            entry = self._entries[index]
            try:
                image = self._read(entry)
            except InputError as error:
                self.report.failures.append({"name": entry.name, "reason": error.message, "slug": error.slug})
                continue
            self.report.decoded += 1
            yield Frame(image, index, None, None, entry.name)
        self.report.finished = True

    def _read(self, entry: Entry) -> Image:
        try:
            status = entry.path.stat()
        except FileNotFoundError as error:
            raise (unreadable(error, entry.name) if entry.identity is None else self._vanished(entry)) from None
        except OSError as error:
            raise unreadable(error, entry.name) from None
        if entry.identity is not None and _identity(status) != entry.identity:
            raise self._vanished(entry)
        if not stat.S_ISREG(status.st_mode):
            raise InputError("not-a-regular-file", f"{entry.name} is not a regular file.")
        data = _load(entry.path, status.st_size, entry.name, self._max_pixels)
        return decode_image(data, name=entry.name, max_pixels=self._max_pixels)[0]

    def _vanished(self, entry: Entry) -> InputError:
        self.report.events.append({"event": "vanished", "name": entry.name})
        return InputError("vanished", f"{entry.name} was removed or replaced after the folder was listed.")


def _load(path: Path, size: int, name: str, max_pixels: int) -> bytes:
    """The bytes of a file, unless there are more than an image within the limit can have."""
    most = 16 * max_pixels + (64 << 20)
    if size > most:
        raise InputError("image-too-large", f"{name} has {size} bytes; an image within the limit has at most {most}.")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError("vanished", f"{name} was removed while it was read.") from None
    except OSError as error:
        raise InputError("input-unreadable", f"{name} cannot be read: {error.strerror}.") from None
