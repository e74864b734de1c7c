"""VideoWriter: times, sizes, colours, codecs and what remains when something goes wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.io.clips import number_of, numbered
from tests.io.readback import read_back, snapshot
from visionkit.errors import OutputError, UsageError
from visionkit.io import VideoWriter, available_encoders, encoders, video_sinks
from visionkit.io.files import OutputFile

# Variable rate, thirds of a millisecond, a long pause, and a start that is not 0.
TIMES_MS = [500.0, 533.0 + 1 / 3, 566.0 + 2 / 3, 600.0, 641.7, 1900.25, 1901.5, 2000.0]


def write(path: Path, times_ms: list[float | None], **options: object) -> VideoWriter:
    size_hw = options.pop("size_hw", (240, 320))
    with VideoWriter(path, size_hw=size_hw, **options) as writer:
        for i, time in enumerate(times_ms):
            writer.write(numbered(i, size_hw), time, 40.0)
    return writer


@pytest.mark.parametrize(("suffix", "tick_ms"), [(".mp4", 1 / 90), (".mov", 1 / 90), (".mkv", 1.0), (".webm", 1.0)])
def test_every_frame_keeps_its_time_to_half_a_tick(tmp_path, suffix, tick_ms):
    path = tmp_path / f"out{suffix}"
    writer = write(path, TIMES_MS)
    got = read_back(path)
    assert writer.origin_ms == 500.0
    np.testing.assert_allclose(got.pts_ms, [t - 500.0 for t in TIMES_MS], rtol=0, atol=tick_ms / 2 + 1e-6)
    assert [number_of(image) for image in got.images] == list(range(len(TIMES_MS)))
    assert got.duration_ms == pytest.approx(1500.0 + 40.0, abs=tick_ms)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_the_last_frame_is_shown_for_its_duration(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    with VideoWriter(path, size_hw=(48, 64), fps=25) as writer:
        for i in range(3):
            writer.write(numbered(i, (48, 64)), 40.0 * i, 40.0 if i < 2 else 730.0)
    assert read_back(path).duration_ms == pytest.approx(810.0, abs=1.0)


def test_mp4_is_what_browsers_play(tmp_path):
    path = tmp_path / "out.mp4"
    writer = write(path, [0.0, 40.0, 80.0])
    got = read_back(path)
    data = path.read_bytes()
    assert (got.codec, got.pix_fmt, got.colorspace, got.color_range) == ("h264", "yuv420p", 6, 1)
    assert data.index(b"moov") < data.index(b"mdat")
    assert (writer.codec, writer.encoder, writer.backend, writer.notes) == ("h264", "libx264", "pyav", [])


@pytest.mark.parametrize("size_hw", [(241, 321), (2, 2), (1, 1), (3, 640), (64, 48)])
def test_odd_sides_get_one_replicated_row_or_column(tmp_path, size_hw):
    height, width = size_hw
    image = np.full((height, width, 3), 40, np.uint8)
    image[-1:, :] = image[:, -1:] = 220
    path = tmp_path / "out.mp4"
    with VideoWriter(path, size_hw=size_hw) as writer:
        for i in range(3):
            writer.write(image, 40.0 * i)
    got = read_back(path)
    assert got.size_hw == writer.encoded_size_hw == (height + height % 2, width + width % 2)
    assert len(got.images) == 3
    # Compared in the grey of the last row, whose luma H.264 keeps at full resolution.
    assert got.images[0][-1].mean() == pytest.approx(220, abs=12)


def test_pure_colours_come_back(tmp_path):
    # Limited-range BT.601: luma is rounded to 1/219, chroma to 1/224 of its range, so each is off by at most half a
    # step. Blue, the worst, is 1.164 Y + 2.017 Cb: 0.5 * (1.164 + 2.017) + 0.5 for its own rounding = 2.09, hence 3
    # with whole numbers on both sides.
    colours = [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 255, 255), (30, 90, 200)]
    image = np.repeat(np.repeat(np.array([colours], np.uint8), 64, axis=1), 240, axis=0)
    path = tmp_path / "out.mp4"
    with VideoWriter(path, size_hw=image.shape[:2]) as writer:
        for i in range(3):
            writer.write(image, 40.0 * i)
    got = read_back(path).images[-1]
    centres = got[120, 32::64].astype(int)
    np.testing.assert_allclose(centres, np.array(colours), rtol=0, atol=3)


@pytest.mark.parametrize("encoder", encoders.ENCODERS, ids=lambda e: f"{e.name}-{e.backend}")
def test_every_encoder_writes_frames_in_order(tmp_path, capfd, encoder):
    path = tmp_path / f"out{encoders.video_suffix(encoder.codec)}"
    times = [0.0, 40.0, 80.0, 120.0, 160.0]
    write(path, times, codec=encoder, fps=25)
    assert capfd.readouterr() == ("", "")
    got = read_back(path)
    assert [number_of(image) for image in got.images] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(got.pts_ms, times, rtol=0, atol=0.5)
    assert got.duration_ms == pytest.approx(200.0, abs=1.0)


def test_opencv_repeats_frames_to_keep_the_time(tmp_path):
    mp4v = next(e for e in encoders.ENCODERS if e.backend == "opencv" and e.codec == "mpeg4")
    path = tmp_path / "out.mp4"
    writer = write(path, [0.0, 40.0, 200.0], codec=mp4v, fps=25)
    assert [number_of(image) for image in read_back(path).images] == [0, 1, 1, 1, 1, 2]
    assert writer.frames == 3
    assert "constant 25 frames" in writer.notes[0]


def test_strided_and_cropped_views_are_written_like_copies(tmp_path):
    wide = numbered(5, (240, 640))
    views = {"crop": wide[:, :320], "mirror": wide[:, 319::-1], "rgb": wide[:, :320, ::-1]}
    for name, view in views.items():
        assert not view.flags.c_contiguous
        for kind, image in (("view", view), ("copy", np.ascontiguousarray(view))):
            with VideoWriter(tmp_path / f"{name}-{kind}.mp4", size_hw=(240, 320)) as writer:
                writer.write(image, 0.0, 40.0)
        assert (tmp_path / f"{name}-view.mp4").read_bytes() == (tmp_path / f"{name}-copy.mp4").read_bytes()


def test_writing_does_not_change_or_keep_the_frame(tmp_path):
    image = numbered(0)
    before = image.copy()
    with VideoWriter(tmp_path / "out.mp4", size_hw=(240, 320)) as writer:
        for i in range(4):
            writer.write(image, 40.0 * i)
            np.testing.assert_array_equal(image, before)
            image = numbered(i + 1, (240, 320))
            before = image.copy()
    assert [number_of(i) for i in read_back(tmp_path / "out.mp4").images] == [0, 1, 2, 3]


def test_frames_without_time_follow_at_the_nominal_rate(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", size_hw=(48, 64), fps=10) as writer:
        for i in range(3):
            writer.write(numbered(i, (48, 64)))
    np.testing.assert_allclose(read_back(tmp_path / "out.mp4").pts_ms, [0, 100, 200], atol=0.01)


def test_time_that_steps_back_is_moved_on(tmp_path):
    restart = write(tmp_path / "restart.mp4", [5000.0, 5040.0, 0.0, 40.0])
    np.testing.assert_allclose(read_back(tmp_path / "restart.mp4").pts_ms, [0, 40, 80, 120], atol=0.01)
    assert restart.notes == ["the source's clock started again; its time was carried on in the video"]
    swapped = write(tmp_path / "swapped.mp4", [0.0, 80.0, 40.0, 120.0, 120.0])
    times = read_back(tmp_path / "swapped.mp4").pts_ms
    np.testing.assert_allclose(times, [0, 80, 80 + 1 / 90, 120, 120 + 1 / 90], atol=0.001)
    assert swapped.notes == ["frames out of order in time were moved behind their predecessors"]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((320, 240, 3), np.uint8), r"uint8 \(240, 320, 3\) BGR. Received: uint8 \(320, 240, 3\)"),
        (np.zeros((240, 320), np.uint8), r"Received: uint8 \(240, 320\)"),
        (np.zeros((240, 320, 4), np.uint8), r"Received: uint8 \(240, 320, 4\)"),
        (np.zeros((240, 320, 3), np.float32), r"Received: float32 \(240, 320, 3\)"),
        ([[0]], "Received: list"),
    ],
)
def test_a_wrong_frame_is_refused_and_leaves_no_file(tmp_path, image, message):
    with pytest.raises(ValueError, match=message), VideoWriter(tmp_path / "o.mp4", size_hw=(240, 320)) as writer:
        writer.write(image, 0.0)
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size_hw": (0, 480)}, r"`size_hw` must be two integers from 1 to 16384. Received: size_hw=\(0, 480\)"),
        ({"size_hw": (10, 20.5)}, "`size_hw`"),
        ({"size_hw": (10, 20, 3)}, "`size_hw`"),
        ({"size_hw": (48, 64), "fps": 0}, "`fps` must be above 0"),
        ({"size_hw": (48, 64), "fps": float("nan")}, "`fps`"),
        ({"size_hw": (48, 64), "fps": -25}, "`fps`"),
        ({"size_hw": (48, 64), "fps": 1e6}, "`fps`"),
    ],
)
def test_wrong_arguments_are_refused_by_value(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        VideoWriter(tmp_path / "o.mp4", **options)
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("time", [float("nan"), float("inf")])
def test_a_time_that_is_no_number_is_refused(tmp_path, time):
    with pytest.raises(ValueError, match="`pts_ms`"):
        write(tmp_path / "o.mp4", [0.0, time])
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "codec", "slug"),
    [
        ("o.mp4", "ZZZZ", "unknown-codec"),
        ("o.txt", "auto", "unknown-container"),
        ("o", "auto", "unknown-container"),
        ("o.webm", "h264", "codec-container"),
        ("o.avi", "vp9", "codec-container"),
    ],
)
def test_codec_and_container_must_go_together(tmp_path, name, codec, slug):
    with pytest.raises(UsageError) as caught:
        VideoWriter(tmp_path / name, size_hw=(48, 64), codec=codec)
    assert caught.value.slug == slug
    assert snapshot(tmp_path) == {}


def test_an_exception_in_the_body_removes_the_file(tmp_path):
    def body():
        with VideoWriter(tmp_path / "o.mp4", size_hw=(240, 320)) as writer:
            for i in range(30):
                writer.write(numbered(i), 40.0 * i)
            assert len(snapshot(tmp_path)) == 1
            assert not (tmp_path / "o.mp4").exists()
            raise KeyError

    with pytest.raises(KeyError):
        body()
    assert snapshot(tmp_path) == {}


def test_abort_and_close_may_be_called_again(tmp_path):
    writer = VideoWriter(tmp_path / "o.mp4", size_hw=(48, 64))
    writer.write(numbered(0, (48, 64)), 0.0)
    writer.abort()
    writer.abort()
    assert writer.close() is None
    with pytest.raises(ValueError, match="closed"):
        writer.write(numbered(0, (48, 64)), 40.0)
    assert snapshot(tmp_path) == {}
    done = write(tmp_path / "p.mp4", [0.0], size_hw=(48, 64))
    assert done.close() == tmp_path / "p.mp4"
    done.abort()
    assert (tmp_path / "p.mp4").exists()


def test_no_frames_no_file(tmp_path):
    writer = VideoWriter(tmp_path / "o.mp4", size_hw=(48, 64))
    assert writer.close() is None
    assert snapshot(tmp_path) == {}


def test_a_file_that_lost_its_end_is_not_published(tmp_path, monkeypatch):
    whole = OutputFile.sync

    def cut(self):
        whole(self)
        os.truncate(self.temporary, self.temporary.stat().st_size * 2 // 3)

    monkeypatch.setattr(OutputFile, "sync", cut)
    for suffix in (".mp4", ".mkv"):
        with pytest.raises(OutputError) as caught:
            write(tmp_path / f"o{suffix}", [40.0 * i for i in range(30)])
        assert caught.value.slug == "verify-failed"
    assert snapshot(tmp_path) == {}


def test_a_missing_frame_is_found_by_the_count(tmp_path, monkeypatch):
    monkeypatch.setattr(
        video_sinks.PyAVSink, "_mux", lambda self, packets: [self.container.mux(p) for p in packets[1:]]
    )
    with pytest.raises(OutputError, match=r"of 12 frames are in it|cannot be read"):
        write(tmp_path / "o.mp4", [40.0 * i for i in range(12)])
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize(
    "name",
    [
        b"-dash.mp4",
        b"sp ace.mp4",
        "\N{CAT FACE}.mp4".encode(),
        b"new\nline.mp4",
        b"a%03d.mp4",
        b"http:x.mp4",
        b"\xff\xfe.mp4",
    ],
)
def test_names_are_only_names(tmp_path, monkeypatch, name):
    folder = tmp_path / os.fsdecode(b"folder \xff %d")
    folder.mkdir()
    monkeypatch.chdir(folder)
    for codec in ("h264", next(e for e in encoders.ENCODERS if e.name == "mp4v")):
        write(Path(os.fsdecode(name)), [0.0, 40.0], size_hw=(48, 64), codec=codec, overwrite=True)
        assert os.listdir(os.fsencode(folder)) == [name]
        assert video_sinks.count_frames(folder / os.fsdecode(name)) == 2


def test_the_file_has_the_permissions_of_any_new_file(tmp_path):
    write(tmp_path / "o.mp4", [0.0], size_hw=(48, 64))
    (tmp_path / "plain").touch()
    assert (tmp_path / "o.mp4").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_available_encoders_tells_what_works_and_why_not(monkeypatch):
    assert {(s.name, s.backend): s.ok for s in available_encoders()} == {
        (e.name, e.backend): True for e in encoders.ENCODERS
    }
    monkeypatch.setitem(sys.modules, "av", None)
    without = {s.name: s for s in available_encoders()}
    assert without["mp4v"].ok
    assert not without["libx264"].ok
    assert "PyAV is not installed" in without["libx264"].reason
