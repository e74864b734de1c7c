"""Rows A1 to A15 of the fault matrix, at the level of the reader: count, report, slug, exit code."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from tests.io.clips import cut, flip_bits, lie_about_count, number_of, numbered, write_clip, zero
from visionkit.errors import InputError
from visionkit.io import open_source, original_name
from visionkit.io.report import ReadReport
from visionkit.structures import Frame

ROOT = Path(__file__).parents[2]
COUNT = 100
SIZE_HW = (240, 320)


def read(path: Path | str | bytes, **options: object) -> tuple[list[Frame], ReadReport]:
    with open_source(path, **options) as source:
        frames = list(source)
    return frames, source.report


def refusal(path: Path | str | bytes, **options: object) -> InputError:
    with pytest.raises(InputError) as caught:
        read(path, **options)
    assert caught.value.exit_code == 3
    assert "\n" not in caught.value.message
    return caught.value


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("a")
    images = [numbered(number, SIZE_HW) for number in range(COUNT)]
    return {
        "end": write_clip(folder / "end.mp4", images),
        "faststart": write_clip(folder / "faststart.mp4", images, faststart=True),
        "fragmented": write_clip(folder / "fragmented.mp4", images, fragmented=True),
        "mkv": write_clip(folder / "clip.mkv", images),
        "ts": write_clip(folder / "clip.ts", images),
        "avi": write_clip(folder / "clip.avi", images, codec="mpeg4"),
        "mjpeg": write_clip(folder / "mjpeg.avi", images, codec="mjpeg", pix_fmt="yuvj420p"),
        "webm": write_clip(folder / "clip.webm", images, codec="libvpx"),
    }


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("short") / "short.mp4", [numbered(n, (120, 160)) for n in range(5)])


@pytest.mark.parametrize("content", [b"", b"not a video\n" * 30, np.random.default_rng(1).bytes(5000)])
@pytest.mark.parametrize("backend", ["pyav", "opencv"])
def test_a1_nothing_text_and_noise_are_undecodable(tmp_path: Path, content: bytes, backend: str) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    error = refusal(path, backend=backend)
    assert error.slug == "input-undecodable"
    assert "bad.mp4" in error.message
    assert f"{len(content)} bytes" in error.message


@pytest.mark.parametrize("backend", ["pyav", "opencv"])
def test_a2_half_an_mp4_with_its_index_at_the_end(clips: dict[str, Path], tmp_path: Path, backend: str) -> None:
    error = refusal(cut(clips["end"], tmp_path / "half.mp4"), backend=backend)
    assert error.slug == "input-undecodable"
    assert "index" in error.message
    assert "moov" in error.message


def test_a3_half_an_mp4_with_its_index_in_front(clips: dict[str, Path], tmp_path: Path) -> None:
    frames, report = read(cut(clips["faststart"], tmp_path / "half.mp4"))
    assert len(frames) >= 43
    assert [number_of(frame.image) for frame in frames] == list(range(len(frames)))
    assert report.ended_early
    assert not report.complete
    assert report.declared == COUNT
    assert "input ends early" in report.summary()


@pytest.mark.parametrize("name", ["mkv", "fragmented", "webm", "avi"])
def test_a4_half_of_other_containers(clips: dict[str, Path], tmp_path: Path, name: str) -> None:
    frames, report = read(cut(clips[name], tmp_path / f"half{clips[name].suffix}"))
    assert len(frames) >= (40 if name == "avi" else 48)
    assert [number_of(frame.image) for frame in frames[:-1]] == list(range(len(frames) - 1))
    assert report.ended_early
    assert not report.complete


def test_a4_half_a_transport_stream_cannot_be_known_and_says_so(clips: dict[str, Path], tmp_path: Path) -> None:
    frames, report = read(cut(clips["ts"], tmp_path / "half.ts"))
    assert len(frames) >= 48
    assert {"event": "declared-length-unavailable"} in report.events


@pytest.mark.parametrize("name", ["faststart", "mjpeg"])
@pytest.mark.parametrize("seed", range(3))
def test_a5_flipped_bits_cost_one_group_at_most(clips: dict[str, Path], tmp_path: Path, name: str, seed: int) -> None:
    clean, _ = read(clips[name])
    frames, report = read(flip_bits(clips[name], tmp_path / f"bad{clips[name].suffix}", seed=seed))
    assert len(frames) >= COUNT - 1
    assert not report.complete
    assert report.frames + report.skipped == COUNT
    missing = sorted(set(range(COUNT)) - {frame.index for frame in frames})
    listed = [e["index"] + k for e in report.events if e["event"] == "gap" for k in range(e["frames"])]
    assert listed == missing
    differ = [f.index for f in frames if not np.array_equal(f.image, clean[f.index].image)]
    assert max([*differ, *missing]) - min([*differ, *missing]) < 12
    unmarked = set(differ) - {frame.index for frame in frames if frame.damaged}
    assert len(unmarked) <= 1  # a decoder may take flipped bits for good ones until the next picture


@pytest.mark.parametrize("name", ["mkv", "ts"])
@pytest.mark.parametrize("seed", range(4))
def test_a6_flipped_bits_never_pass_for_a_clean_clip(
    clips: dict[str, Path], tmp_path: Path, name: str, seed: int
) -> None:
    clean, _ = read(clips[name])
    frames, report = read(flip_bits(clips[name], tmp_path / f"bad{clips[name].suffix}", seed=seed))
    differ = {f.index for f in frames if not np.array_equal(f.image, clean[f.index].image)}
    assert not report.complete
    unmarked = differ - {frame.index for frame in frames if frame.damaged}
    assert len(unmarked) <= 1  # a decoder may take flipped bits for good ones until the next picture
    assert all(f.pts_ms == clean[f.index].pts_ms for f in frames if not f.damaged)


def test_a6_a_zeroed_stretch_is_passed_over(clips: dict[str, Path], tmp_path: Path) -> None:
    frames, report = read(zero(clips["faststart"], tmp_path / "zeroed.mp4", 0.45, 0.55))
    assert len(frames) >= 82
    assert report.frames + report.skipped == COUNT
    assert [f.pts_ms for f in frames] == [40.0 * f.index for f in frames]
    assert all(number_of(f.image) == f.index for f in frames if not f.damaged)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("backend", ["pyav", "opencv"])
def test_a7_variable_rate_keeps_every_time(tmp_path: Path, suffix: str, backend: str) -> None:
    steps = np.random.default_rng(7).integers(5, 400, 99)
    times = [0, *np.cumsum(steps).tolist()]
    images = [numbered(number, (96, 128)) for number in range(COUNT)]
    path = write_clip(tmp_path / f"vfr.{suffix}", images, times_ms=times)
    frames, report = read(path, backend=backend)
    assert [frame.pts_ms for frame in frames] == pytest.approx(times, abs=1)
    assert report.complete


@pytest.mark.parametrize("rotation", [90, 180])
def test_a8_rotated_clips_are_alike_on_both_backends(tmp_path: Path, rotation: int) -> None:
    path = write_clip(tmp_path / "turned.mp4", [numbered(n, (120, 160)) for n in range(5)], rotation=rotation)
    ours, report = read(path, backend="pyav")
    theirs, _ = read(path, backend="opencv")
    assert ours[0].size_hw == ((160, 120) if rotation == 90 else (120, 160))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(ours, theirs, strict=True))
    assert report.complete


@pytest.mark.parametrize("size_hw", [(241, 321), (2, 2)])
def test_a8_odd_sizes_are_kept(tmp_path: Path, size_hw: tuple[int, int]) -> None:
    images = [np.full((*size_hw, 3), 40 * number, np.uint8) for number in range(4)]
    path = write_clip(tmp_path / "odd.mkv", images, codec="ffv1", pix_fmt="bgr0")
    for backend in ("pyav", "opencv"):
        frames, _ = read(path, backend=backend)
        assert [frame.size_hw for frame in frames] == [size_hw] * 4


def test_a9_one_frame(tmp_path: Path) -> None:
    frames, report = read(write_clip(tmp_path / "one.mp4", [numbered(9)]))
    assert [number_of(frame.image) for frame in frames] == [9]
    assert report.complete


def test_a9_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "none.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 64, 48
        container.start_encoding()
    assert refusal(path).slug == "no-frames"


def test_a9_sound_only(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert refusal(path).slug == "no-video-stream"
    (tmp_path / "sound.wav").write_bytes(b"RIFF\x24\0\0\0WAVEfmt " + bytes(40))
    assert refusal(tmp_path / "sound.wav").slug == "no-video-stream"


def test_a9_unknown_codec(short: Path, tmp_path: Path) -> None:
    data = bytearray(short.read_bytes())
    at = data.index(b"avc1", data.index(b"stsd"))
    data[at : at + 4] = b"zzzz"
    (tmp_path / "unknown.mp4").write_bytes(data)
    error = refusal(tmp_path / "unknown.mp4")
    assert error.slug == "no-decoder"
    assert "zzzz" in error.message


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_a10_frames_above_the_limit_cost_no_memory(tmp_path: Path) -> None:
    import cv2

    picture = cv2.imencode(".jpg", np.zeros((16000, 16000), np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 5])[1].tobytes()
    path = tmp_path / "huge.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        packet = av.Packet(picture)
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, 0, 0, True
        container.mux(packet)
    code = (
        "import sys, av, cv2\n"
        "from visionkit.errors import InputError\nfrom visionkit.io import open_source\n"
        "def peak():\n    rows = open('/proc/self/status').read().splitlines()\n"
        "    return [int(row.split()[1]) // 1024 for row in rows if row.startswith('VmHWM')][0]\n"
        "before = peak()\n"
        "try:\n    open_source(sys.argv[1])\nexcept InputError as error:\n    print(error.slug)\n"
        "print(peak() - before)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    )
    slug, grown = result.stdout.split()
    assert slug == "frame-too-large"
    assert int(grown) < 100
    assert result.stderr == ""


@pytest.mark.parametrize("count", [100_000_000, 270, 0xFFFFFFFF])
def test_a11_the_declared_count_is_not_believed(clips: dict[str, Path], tmp_path: Path, count: int) -> None:
    path = lie_about_count(clips["end"], tmp_path / "lie.mp4", count)
    with open_source(path) as source:
        assert source.info.frame_count in (None, COUNT)
        frames = list(source)
    assert [number_of(frame.image) for frame in frames] == list(range(COUNT))
    assert source.report.complete


def test_a11_a_negative_count_is_unknown(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "bare.h264", [numbered(n, (120, 160)) for n in range(10)])
    for backend in ("pyav", "opencv"):
        with open_source(path, backend=backend) as source:
            assert source.info.frame_count is None
            assert len(list(source)) == 10


def test_a12_a_change_of_size_keeps_each_true_size(tmp_path: Path) -> None:
    small = write_clip(tmp_path / "small.ts", [numbered(n, (120, 160)) for n in range(20)])
    large = write_clip(tmp_path / "large.ts", [numbered(n, (240, 320)) for n in range(20)])
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    frames, report = read(path)
    assert [frame.size_hw for frame in frames] == [(120, 160)] * 20 + [(240, 320)] * 20
    assert [number_of(frame.image) for frame in frames] == [*range(20), *range(20)]
    (change,) = [event for event in report.events if event["event"] == "resolution-change"]
    assert (change["index"], change["from_hw"], change["to_hw"]) == (20, [120, 160], [240, 320])
    assert report.complete


def test_a12_times_that_restart_go_on(clips: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "twice.ts"
    path.write_bytes(clips["ts"].read_bytes() * 2)
    frames, report = read(path)
    assert [frame.index for frame in frames] == list(range(2 * COUNT))
    assert np.diff([frame.pts_ms for frame in frames]).tolist() == [40.0] * (2 * COUNT - 1)
    assert [event["index"] for event in report.events if event["event"] == "discontinuity"] == [COUNT]
    assert report.complete


PLAYLISTS = {
    "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:4,\n{target}\n#EXT-X-ENDLIST\n",
    "renamed.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:4,\n{target}\n#EXT-X-ENDLIST\n",
    "parent.m3u8": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{target}\n",
    "a.ffconcat": "ffconcat version 1.0\nfile '{target}'\n",
    "a.sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5004 RTP/AVP 96\r\n",
    "a.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{target}</BaseURL></MPD>',
}


@pytest.fixture
def listener() -> Iterator[tuple[str, list[bytes]]]:
    """A loopback server that only notes that it was called."""
    calls: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            calls.append(b"called")
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/x.ts", calls
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(timeout=5)


@pytest.mark.parametrize("name", PLAYLISTS)
@pytest.mark.parametrize("backend", ["pyav", "opencv"])
def test_a13_playlists_are_refused(
    name: str, backend: str, clips: dict[str, Path], tmp_path: Path, listener: tuple[str, list[bytes]]
) -> None:
    address, calls = listener
    for target in (str(clips["ts"]), address):
        (tmp_path / name).write_text(PLAYLISTS[name].format(target=target), newline="")
        assert refusal(tmp_path / name, backend=backend).slug == "playlist-refused"
    assert calls == []


NAMES: list[str | bytes] = [
    "-dash.mp4",
    "sp ace.mp4",
    "😀.mp4",
    "new\nline.mp4",
    "%03d.mp4",
    "%03d.png",
    "a;b.mp4",
    "http:x.mp4",
    "concat:a|b",
    "subfile,,start,0,end,0,,:a",
    "async:a",
    "cache:a",
    "file:a",
    "pipe:0",
    "rtsp:x",
    "[x].mp4",
    "*.mp4",
    b"\xff\xfe.mp4",
    "x" * 251 + ".mp4",
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:24])
@pytest.mark.parametrize("backend", ["pyav", "opencv"])
def test_a14_names_are_only_names(
    name: str | bytes, backend: str, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(os.fsdecode(name)).write_bytes(short.read_bytes())
    Path("000.png").write_bytes(b"a decoy for a numbered pattern")
    frames, report = read(name, backend=backend)
    assert [number_of(frame.image) for frame in frames] == list(range(5))
    assert report.complete
    assert os.fsencode(original_name(frames[0].source)) == os.fsencode(name)
    frames[0].source.encode("utf-8")
    assert frames[0].source.isprintable()


def test_a15_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    for path in (tmp_path / "pipe.mp4", tmp_path / "one", Path("/dev/zero")):
        assert refusal(path).slug == "not-a-regular-file"
    assert refusal(tmp_path / "nothing.mp4").slug == "input-missing"


QUIET_READ = """
import sys
from visionkit.errors import InputError
from visionkit.io import open_source
for path in sys.argv[1:]:
    for backend in ("pyav", "opencv"):
        try:
            with open_source(path, backend=backend) as source:
                for frame in source:
                    pass
        except InputError:
            pass
"""


def test_a6_the_libraries_print_nothing(clips: dict[str, Path], tmp_path: Path) -> None:
    damaged = zero(clips["faststart"], tmp_path / "zeroed.mp4", 0.45, 0.55)
    half = cut(clips["end"], tmp_path / "half.mp4")
    # a process of its own: OpenCV's FFmpeg reads its log level once, at the first file that anybody opens
    done = subprocess.run(
        [sys.executable, "-c", QUIET_READ, str(damaged), str(half)], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
