"""What a file is, by its first bytes: only formats on this list are opened, and a playlist never is.

A demuxer picked by FFmpeg's own probing may be one that opens other files or the network (HLS, DASH, concat, SDP …), or
one that takes any text for a video (tty). So the name plays no part, and the reader is told which demuxer to use.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from visionkit.errors import InputError
from visionkit.io.paths import LocalFile

__all__ = ["HEAD_BYTES", "Sniffed", "read_head", "sniff"]

HEAD_BYTES = 64 * 1024
Kind = Literal["video", "image", "audio", "playlist", "unknown"]


@dataclass(frozen=True, slots=True)
class Sniffed:
    """Kind of content and its format: a demuxer's name for video, a format's name for images and playlists."""

    kind: Kind
    format: str


_MAGIC: list[tuple[int, bytes, Kind, str]] = [
    (0, b"\x1a\x45\xdf\xa3", "video", "matroska"),
    (0, b"FLV", "video", "flv"),
    (0, b"OggS", "video", "ogg"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video", "asf"),
    (0, b"YUV4MPEG2", "video", "yuv4mpegpipe"),
    (0, b"DKIF", "video", "ivf"),
    (0, b"\x06\x0e\x2b\x34", "video", "mxf"),
    (0, b"nut/multimedia container\0", "video", "nut"),
    (0, b".RMF", "video", "rm"),
    (0, b"\0\0\x01\xba", "video", "mpeg"),
    (0, b"\0\0\x01\xb3", "video", "mpegvideo"),
    (0, b"GIF87a", "image", "gif"),
    (0, b"GIF89a", "image", "gif"),
    (0, b"\xff\xd8\xff", "image", "jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image", "png"),
    (0, b"BM", "image", "bmp"),
    (0, b"II*\0", "image", "tiff"),
    (0, b"MM\0*", "image", "tiff"),
    (0, b"II+\0", "image", "tiff"),
    (0, b"MM\0+", "image", "tiff"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "image", "jp2"),
    (0, b"\xff\x4f\xff\x51", "image", "jp2"),
    (0, b"#?RADIANCE", "image", "hdr"),
    (0, b"#?RGBE", "image", "hdr"),
    (0, b"ID3", "audio", "mp3"),
    (0, b"fLaC", "audio", "flac"),
    (8, b"WAVE", "audio", "wav"),
]
_RIFF: dict[bytes, tuple[Kind, str]] = {b"AVI ": ("video", "avi"), b"WEBP": ("image", "webp")}
_MOV_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"sidx", b"uuid"}
_STILL_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"mif1": "heic", b"msf1": "heic"}
_PLAYLISTS: list[tuple[str, re.Pattern[bytes]]] = [
    ("HLS", re.compile(rb"#EXTM3U|#EXT-X-")),
    ("concat", re.compile(rb"ffconcat version")),
    ("SDP", re.compile(rb"v=0\r?\n(?:.*\r?\n)*?[oscm]=|(?:.*\r?\n)?c=IN IP")),
    ("DASH", re.compile(rb"(?s).*<MPD[\s>]")),
    ("Smooth Streaming", re.compile(rb"(?s).*<SmoothStreamingMedia")),
    ("IMF", re.compile(rb"(?s).*<(?:\w+:)?(?:CompositionPlaylist|AssetMap)[\s>]")),
    ("SMIL", re.compile(rb"(?is).*<smil[\s>]")),
    ("ASX", re.compile(rb"(?is)<asx[\s>]")),
    ("PLS", re.compile(rb"(?i)\[playlist\]")),
    ("RTSP redirect", re.compile(rb"(?i)(?:rtspt?|https?|file|rtmp)://|RTSPtext|\[reference\]")),
]


def read_head(file: LocalFile) -> bytes:
    """The first bytes of the file.

    Raises:
        InputError: `input-unreadable`.
    """
    try:
        with file.path.open("rb") as handle:
            return handle.read(HEAD_BYTES)
    except OSError as error:
        raise InputError("input-unreadable", f"{file.name} cannot be read: {error.strerror}.") from None


def sniff(head: bytes) -> Sniffed:
    """The kind and format of the content that starts with `head`."""
    playlist = _playlist(head)
    if playlist:
        return Sniffed("playlist", playlist)
    if head[:4] == b"RIFF" and head[8:12] in _RIFF:
        return Sniffed(*_RIFF[head[8:12]])
    for offset, magic, kind, name in _MAGIC:
        if head.startswith(magic, offset):
            return Sniffed(kind, name)
    if head[4:8] in _MOV_BOXES:
        brand = head[8:12] if head[4:8] == b"ftyp" else b""
        return Sniffed("image", _STILL_BRANDS[brand]) if brand in _STILL_BRANDS else Sniffed("video", "mov")
    if re.match(rb"P[1-7][\s#]", head):
        return Sniffed("image", "pnm")
    stream = _transport_stream(head) or _elementary_stream(head)
    return Sniffed("video", stream) if stream else Sniffed("unknown", "")


def _playlist(head: bytes) -> str | None:
    """Name of the playlist format when the text before the first zero byte looks like one."""
    text = head.split(b"\0", 1)[0].removeprefix(b"\xef\xbb\xbf").lstrip()
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = head[2:].replace(b"\0", b"").lstrip()
    for name, pattern in _PLAYLISTS:
        if pattern.match(text):
            return name
    return None


def _transport_stream(head: bytes) -> str | None:
    """`mpegts` when sync bytes stand 188, 192 or 204 bytes apart, four times, within the first packets."""
    for size in (188, 192, 204):
        need = min(4, (len(head) - 1) // size)
        for start in range(min(4 * size, len(head))):
            if need >= 2 and all(start + k * size < len(head) and head[start + k * size] == 0x47 for k in range(need)):
                return "mpegts"
    return None


def _elementary_stream(head: bytes) -> str | None:
    """`h264`, `hevc` or `obu` for a bare stream that starts with its headers."""
    if head[:2] == b"\x12\x00" and len(head) > 2 and head[2] & 0xF8 == 0x08:
        return "obu"
    match = re.match(rb"\0{2,3}\x01(.)", head, re.DOTALL)
    if not match:
        return None
    byte = match.group(1)[0]
    if byte & 0x80 == 0 and byte & 0x1F in (7, 9):
        return "h264"
    return "hevc" if (byte >> 1) & 0x3F in (32, 33, 35) else None
