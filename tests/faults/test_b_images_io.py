"""Rows B1 to B5 of the fault matrix, at the level of the reader."""

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
from visionkit.errors import InputError
from visionkit.io import open_source

ROOT = Path(__file__).parents[2]
SIZE_HW = (96, 160)
# Not `ru_maxrss`, which a child takes over from the process that started it.
PRINT_PEAK = "print([int(row.split()[1]) // 1024 for row in open('/proc/self/status') if row.startswith('VmHWM')][0])\n"


def png(number: int) -> bytes:
    return cv2.imencode(".png", numbered(number, SIZE_HW))[1].tobytes()


def jpeg(number: int) -> bytes:
    return cv2.imencode(".jpg", numbered(number, SIZE_HW))[1].tobytes()


def test_b1_bad_files_do_not_stop_a_folder(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"good{number}.png").write_bytes(png(number))
    bad = {
        "bad1.jpg": b"this is text",
        "bad2.jpg": jpeg(1)[:400],
        "bad3.png": png(1)[:-30],
        "bad4.png": np.random.default_rng(0).bytes(3000),
        "bad5.bmp": b"BM" + bytes(60),
        "empty.png": b"",
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")  # unreadable also for a user who may read all
    runs = []
    for _ in range(2):
        with open_source(tmp_path) as source:
            runs.append([(frame.source, frame.index) for frame in source])
        assert not source.report.complete
        assert source.report.decoded == 100
        assert [failure["name"] for failure in source.report.failures] == [*sorted(bad), "gone.png"]
        assert all(failure["name"] in failure["reason"] for failure in source.report.failures)
    assert runs[0] == runs[1]
    assert [name for name, _ in runs[0]] == [f"good{number}.png" for number in range(100)]


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.9, 0.999])
def test_b2_half_a_jpeg_is_never_a_clean_row(tmp_path: Path, fraction: float, capfd: pytest.CaptureFixture) -> None:
    data = jpeg(3)
    (tmp_path / "half.jpg").write_bytes(data[: int(len(data) * fraction)])
    (tmp_path / "whole.jpg").write_bytes(data)
    with pytest.raises(InputError) as caught:
        open_source(tmp_path / "half.jpg")
    assert caught.value.exit_code == 3
    with open_source(tmp_path) as source:
        assert [frame.source for frame in source] == ["whole.jpg"]
    assert [failure["name"] for failure in source.report.failures] == ["half.jpg"]
    assert not source.report.complete
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
@pytest.mark.parametrize("size", [15_000, 32_000, 40_000])
def test_b3_bombs_cost_no_memory(tmp_path: Path, size: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(size // 8 + 1)
    rows = b"".join(packer.compress(row) for _ in range(size)) + packer.flush()
    head = struct.pack(">IIBBBBB", size, size, 1, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(data)
    code = (
        "import sys\nfrom visionkit.errors import InputError\nfrom visionkit.io import open_source\n"
        "try:\n    open_source(sys.argv[1])\nexcept InputError as error:\n    print(error.slug, error.exit_code)\n"
        + PRINT_PEAK
    )
    command = [sys.executable, "-c", code, tmp_path / "bomb.png"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)
    slug, exit_code, peak = result.stdout.split()
    assert (slug, exit_code) == ("image-too-large", "3")
    assert int(peak) < 300


@pytest.mark.parametrize("depth", ["16-bit", "rgba", "grey", "jpeg named png"])
def test_b4_every_kind_of_image_is_upright_8_bit_bgr(tmp_path: Path, depth: str) -> None:
    image = numbered(77, SIZE_HW)
    path = tmp_path / "image.png"
    if depth == "16-bit":
        cv2.imwrite(str(path), image.astype(np.uint16) * 257)
    elif depth == "rgba":
        cv2.imwrite(str(path), np.dstack([image, np.full(SIZE_HW, 200, np.uint8)]))
    elif depth == "grey":
        cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
    else:
        path.write_bytes(jpeg(77))
    with open_source(path) as source:
        (frame,) = source
    assert source.report.complete
    assert frame.image.shape == (*SIZE_HW, 3)
    assert frame.image.dtype == np.uint8
    assert number_of(frame.image) == 77


@pytest.mark.parametrize("how", ["removed", "replaced", "made a directory"])
def test_b5_what_vanishes_after_the_listing_is_told(tmp_path: Path, how: str) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    victim = tmp_path / "2.png"
    with open_source(tmp_path) as source:
        frames = iter(source)
        assert next(frames).index == 0
        if how == "replaced":
            (tmp_path / "other").write_bytes(png(200))
            (tmp_path / "other").replace(victim)
        else:
            victim.unlink()
        if how == "made a directory":
            victim.mkdir()
        assert [frame.index for frame in frames] == [1, 3]
    assert not source.report.complete
    assert source.report.events == [{"event": "vanished", "name": "2.png"}]
    assert [failure["slug"] for failure in source.report.failures] == ["vanished"]
