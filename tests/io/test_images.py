"""Still images: upright 8-bit BGR whatever is stored, size known before decoding, damage never taken for a picture."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.io.clips import number_of, numbered
from visionkit.errors import InputError, UsageError
from visionkit.io import open_source, read_image
from visionkit.io.image_header import HeaderError, read_header
from visionkit.io.images import decode_image
from visionkit.io.native_stderr import caught_messages
from visionkit.io.probe import sniff

ROOT = Path(__file__).parents[2]
SIZE_HW = (48, 80)
STORED_FROM_UPRIGHT = {  # what a camera stores when EXIF orientation n brings it upright
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image, -1),
}


def picture() -> np.ndarray:
    return numbered(5, SIZE_HW)


def exif(orientation: int) -> bytes:
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def encoded(suffix: str, image: np.ndarray, orientation: int = 1) -> bytes:
    """The file with `image` as stored and an orientation that a reader has to apply."""
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else [cv2.IMWRITE_JPEG_QUALITY, 100]
    data = b"" if suffix == ".tiff" else cv2.imencode(suffix, image, options)[1].tobytes()
    if suffix == ".jpg":
        body = b"Exif\0\0" + exif(orientation)
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    if suffix == ".png":
        return data[:33] + chunk(b"eXIf", exif(orientation)) + data[33:]
    if suffix == ".webp":
        height, width = image.shape[:2]
        flags = struct.pack("<4sIB3x", b"VP8X", 10, 8) + (width - 1).to_bytes(3, "little")
        tail = struct.pack("<4sI", b"EXIF", len(exif(orientation))) + exif(orientation)
        body = b"WEBP" + flags + (height - 1).to_bytes(3, "little") + data[12:] + tail
        return b"RIFF" + struct.pack("<I", len(body)) + body
    return tiff(image[:, :, ::-1], orientation)


def tiff(rgb: np.ndarray, orientation: int) -> bytes:
    height, width = rgb.shape[:2]
    data = rgb.tobytes()
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8)]
    tags += [(274, 3, 1, orientation), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(data)), (284, 3, 1, 1)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_every_format(suffix: str, orientation: int) -> None:
    upright = picture()
    stored = np.ascontiguousarray(STORED_FROM_UPRIGHT[orientation](upright))
    image, header = decode_image(encoded(suffix, stored, orientation), name="x")
    assert header.orientation == orientation
    assert (header.height, header.width) == stored.shape[:2]
    assert image.shape == upright.shape
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - upright).mean() < (2 if suffix == ".jpg" else 0.001)


def test_the_eight_orientations_of_one_photo_look_alike(shared: Path) -> None:
    folder = shared / "data/images/exif_orientation"
    upright = read_image(folder / "Landscape_1.jpg").astype(int)
    assert upright.shape == (1200, 1800, 3)
    for orientation in range(2, 9):
        assert np.abs(read_image(folder / f"Landscape_{orientation}.jpg") - upright).mean() < 5


@pytest.mark.parametrize(
    "stored",
    [
        picture(),
        picture()[:, :, 0],
        np.dstack([picture(), np.full(SIZE_HW, 9, np.uint8)]),
        picture().astype(np.uint16) * 257,
        picture()[:, :, 1].astype(np.uint16) * 257,
    ],
    ids=["bgr", "grey", "bgra", "bgr16", "grey16"],
)
def test_every_kind_of_pixel_becomes_8_bit_bgr(stored: np.ndarray, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), stored)
    image = read_image(tmp_path / "x.png")
    expected = stored if stored.dtype == np.uint8 else (stored // 257).astype(np.uint8)
    expected = expected[:, :, None].repeat(3, axis=2) if expected.ndim == 2 else expected[:, :, :3]
    assert image.dtype == np.uint8
    assert np.array_equal(image, expected)


def test_odd_but_sound_images_are_read(shared: Path) -> None:
    with open_source(shared / "data/images/odd") as source:
        sizes = {frame.source: frame.size_hw for frame in source}
    names = {failure["name"] for failure in source.report.failures}
    assert names == {"broken.png", "truncated_image.png", "truncated_jpeg.jpg"}
    assert sizes["pil_sample_cmyk.jpg"] == (100, 100)
    assert sizes["orientation_rectangle.jpg"] == (2, 1)
    with open_source(shared / "data/images/odd/bmp/g") as source:
        assert len(list(source)) == 23
    assert source.report.complete


def test_a_real_cmyk_photo_keeps_its_colours(shared: Path) -> None:
    image = read_image(shared / "data/images/odd/pil_sample_cmyk.jpg")
    blue, green, red = image[0, 0]
    assert red > 200
    assert max(blue, green) < 60
    assert image[-1, -1].max() < 30


@pytest.mark.parametrize(
    "suffix", [".jpg", ".png", ".bmp", ".ppm", ".pgm", ".webp", ".tif", ".jp2", ".gif", ".avif", ".hdr"]
)
def test_the_size_is_in_the_header(suffix: str) -> None:
    image = numbered(5, (64, 96))
    stored = image.astype(np.float32) / 255 if suffix == ".hdr" else image[:, :, 0] if suffix == ".pgm" else image
    data = cv2.imencode(suffix, stored)[1].tobytes()
    header = read_header(data, sniff(data).format)
    assert (header.height, header.width, header.orientation, header.missing_bytes) == (64, 96, 1, 0)
    decoded, _ = decode_image(data, name="x")
    assert decoded.shape == (64, 96, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".jp2", ".gif", ".avif", ".hdr"])
@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 0.5, 0.9, 0.99])
def test_a_truncated_image_is_refused(suffix: str, fraction: float, capfd: pytest.CaptureFixture) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    data = cv2.imencode(suffix, image.astype(np.float32) / 255 if suffix == ".hdr" else image)[1].tobytes()
    with pytest.raises(InputError) as caught:
        decode_image(data[: int(len(data) * fraction)], name=f"half{suffix}")
    assert caught.value.slug == "input-undecodable"
    assert f"half{suffix}" in caught.value.message
    assert "/tmp" not in caught.value.message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("seed", range(8))
def test_a_jpeg_that_the_decoder_warns_of_is_refused(seed: int, capfd: pytest.CaptureFixture) -> None:
    data = bytearray(cv2.imencode(".jpg", numbered(3, (240, 320)))[1].tobytes())
    start = len(data) // 4 + seed * 100
    data[start : start + 200] = bytes(200)
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None
    assert capfd.readouterr().err
    with pytest.raises(InputError, match="damaged"):
        decode_image(bytes(data), name="x.jpg")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("size", [15_000, 32_000, 40_000])
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, size: int) -> None:
    head = struct.pack(">IIBBBBB", size, size, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((size // 8 + 1) * 10), 9)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(InputError, match=f"{size}x{size}") as caught:
        open_source(tmp_path / "bomb.png")
    assert caught.value.slug == "image-too-large"


def test_the_limit_is_on_the_product_and_can_be_moved(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), picture())
    with pytest.raises(InputError, match="80x48"):
        read_image(tmp_path / "x.png", max_pixels=48 * 80 - 1)
    assert read_image(tmp_path / "x.png", max_pixels=48 * 80).shape == (48, 80, 3)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "png"),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 30, "png"),
        (b"P6 x", "pnm"),
        (b"\xff\xd8\xff\xd9", "jpeg"),
        (b"x", "psd"),
    ],
)
def test_a_header_that_makes_no_sense(data: bytes, kind: str) -> None:
    with pytest.raises(HeaderError):
        read_header(data, kind)


def test_one_image_is_one_frame(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), picture())
    with open_source(tmp_path / "one.png") as source:
        assert source.info.kind == "image"
        assert source.info.size_hw == SIZE_HW
        (frame,) = source
    assert (frame.index, frame.pts_ms, frame.duration_ms, frame.source) == (0, None, None, "one.png")
    assert source.report.complete
    assert source.report.decoded == 1


def write_numbers(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).write_bytes(cv2.imencode(".png", numbered(number, (96, 160)))[1].tobytes())


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    names = ["1.png", "2.png", "10.png", "a2.png", "A10.png", "b.png"]
    write_numbers(tmp_path, names)
    (tmp_path / "labels.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "deeper").mkdir()
    with open_source(tmp_path) as source:
        assert source.info.kind == "images"
        assert source.info.frame_count == 6
        frames = list(source)
    assert [frame.source for frame in frames] == names
    assert [number_of(frame.image) for frame in frames] == list(range(6)) == [frame.index for frame in frames]
    assert source.report.complete


def test_an_image_without_an_ending_counts_by_its_content(tmp_path: Path) -> None:
    write_numbers(tmp_path, ["photo", "x.png"])
    with open_source(tmp_path) as source:
        assert [frame.source for frame in source] == ["photo", "x.png"]


def test_a_glob_takes_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_numbers(tmp_path, ["a/1.png", "a/2.png", "b/1.png"])
    (tmp_path / "b/1.txt").write_text("x")
    with open_source(tmp_path / "*" / "1.*") as source:
        assert [frame.source for frame in source] == ["a/1.png", "b/1.png"]
    assert [failure["name"] for failure in source.report.failures] == ["b/1.txt"]


def test_a_stride_over_a_folder(tmp_path: Path) -> None:
    write_numbers(tmp_path, [f"{number}.png" for number in range(7)])
    with open_source(tmp_path, stride=3) as source:
        assert [frame.index for frame in source] == [0, 3, 6]


def test_images_have_no_time_to_start_at(tmp_path: Path) -> None:
    write_numbers(tmp_path, ["1.png"])
    for path in (tmp_path, tmp_path / "1.png"):
        with pytest.raises(UsageError, match="video"):
            open_source(path, start_s=1)


@pytest.mark.parametrize("pattern", ["", "*.png"])
def test_nothing_to_read(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(InputError, match="no image") as caught:
        open_source(tmp_path / pattern)
    assert caught.value.slug == "no-images"


def test_what_others_print_meanwhile_is_passed_on() -> None:
    code = (
        "import os\nfrom visionkit.io.native_stderr import caught_messages\n"
        "with caught_messages() as lines:\n"
        "    os.write(2, b'50 %\\nCorrupt JPEG data: premature end of data segment\\n')\n"
        "print(lines)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout == "['Corrupt JPEG data: premature end of data segment']\n"
    assert result.stderr == "50 %\n"


def test_a_closed_stderr_is_no_obstacle() -> None:
    code = (
        "import os, sys\nos.close(2)\nfrom visionkit.io.native_stderr import caught_messages\n"
        "with caught_messages() as lines:\n    pass\nprint(lines)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout == "[]\n"


def test_messages_are_given_back_when_decoding_raises(capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(ZeroDivisionError), caught_messages():
        raise ZeroDivisionError
    sys.stderr.write("still here")
    assert capfd.readouterr().err == "still here"
