"""Content against format; paths and names; the limits of what is opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.io.clips import numbered, write_clip
from visionkit.errors import InputError
from visionkit.io.paths import local_file, local_path
from visionkit.io.probe import Sniffed, sniff

PLAYLISTS = {
    "HLS": b"#EXTM3U\n#EXT-X-VERSION:3\nother.ts\n",
    "concat": b"ffconcat version 1.0\nfile other.ts\n",
    "SDP": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5004 RTP/AVP 96\r\n",
    "DASH": b'<?xml version="1.0"?>\n<!-- x -->\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
    "Smooth Streaming": b'<?xml version="1.0"?><SmoothStreamingMedia MajorVersion="2">',
    "IMF": b'<?xml version="1.0"?>\n<CompositionPlaylist xmlns="x">',
    "SMIL": b"<smil><body/></smil>",
    "ASX": b"<ASX version = '3.0'>",
    "PLS": b"[playlist]\nFile1=http://127.0.0.1/x\n",
    "RTSP redirect": b"rtsp://127.0.0.1/stream\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf", b"\r\n  "])
def test_playlists_are_known_by_content(name: str, prefix: bytes) -> None:
    assert sniff(prefix + PLAYLISTS[name]) == Sniffed("playlist", name)


def test_a_utf16_playlist_is_one_too() -> None:
    assert sniff("#EXTM3U\nother.ts\n".encode("utf-16")).kind == "playlist"


@pytest.mark.parametrize(
    ("suffix", "codec", "expected"),
    [
        ("mp4", "libx264", "mov"),
        ("mov", "libx264", "mov"),
        ("mkv", "libx264", "matroska"),
        ("webm", "libvpx", "matroska"),
        ("avi", "mpeg4", "avi"),
        ("flv", "libx264", "flv"),
        ("ts", "libx264", "mpegts"),
        ("m2ts", "libx264", "mpegts"),
        ("mpg", "mpeg2video", "mpeg"),
        ("m2v", "mpeg2video", "mpegvideo"),
        ("h264", "libx264", "h264"),
        ("hevc", "libx265", "hevc"),
        ("ogv", "libtheora", "ogg"),
        ("wmv", "wmv2", "asf"),
        ("ivf", "libvpx", "ivf"),
        ("nut", "mpeg4", "nut"),
        ("mxf", "mpeg2video", "mxf"),
        ("y4m", "wrapped_avframe", "yuv4mpegpipe"),
    ],
)
def test_every_listed_container_is_known_and_read(tmp_path: Path, suffix: str, codec: str, expected: str) -> None:
    from av.codec import Codec, codecs_available

    from visionkit.io import open_source

    if codec not in codecs_available or not Codec(codec, "w"):
        pytest.skip(f"this PyAV has no {codec} encoder to write the clip with")
    path = write_clip(tmp_path / f"clip.{suffix}", [numbered(n, (96, 128)) for n in range(10)], codec=codec)
    assert sniff(path.read_bytes()[:65536]).format == expected
    path = path.rename(tmp_path / "clip.bin")
    with open_source(path) as source:
        frames = list(source)
    assert len(frames) == 10
    assert source.report.complete, source.report
    assert source.info.container == expected


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 400, b"Error: not found\n" * 100, b"G" + b"x" * 187, bytes(range(256))]
)
def test_anything_else_is_unknown(content: bytes) -> None:
    assert sniff(content).kind == "unknown"


def test_a_path_is_absolute_and_keeps_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_path("http:x") == tmp_path / "http:x"
    raw = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    Path(os.fsdecode(raw)).write_bytes(b"x")
    file = local_file(raw)
    assert file.raw == raw
    assert file.name == "caf\\xe9.mp4"
    assert file.size == 1


@pytest.mark.parametrize("source", ["", "a\0b", b"a\0b", "\ud800", "missing.mp4", "x" * 300, "pyproject.toml/x.mp4"])
def test_what_cannot_be_a_file_is_missing(source: str | bytes) -> None:
    with pytest.raises(InputError) as caught:
        local_file(source)
    assert caught.value.slug == "input-missing"


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(b"x")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(InputError, match="Permission") as caught:
        local_file(path)
    assert caught.value.slug == "input-unreadable"
