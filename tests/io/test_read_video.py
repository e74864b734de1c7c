"""Frames of ordinary videos: count, pixels, true times, ranges, both backends."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from tests.io.clips import number_of, numbered, write_clip
from visionkit.errors import InputError, UsageError
from visionkit.io import open_source

SIZE_HW = (120, 160)
UNEVEN_MS = [0, 40, 80, 200, 240, 1000, 1040, 1080, 1090, 1100, 1101, 1200]


def images(count: int = 12, size_hw: tuple[int, int] = SIZE_HW) -> list[np.ndarray]:
    return [numbered(number, size_hw) for number in range(count)]


def numbers(frames: list) -> list[int]:
    return [number_of(frame.image) for frame in frames]


@pytest.fixture(params=["pyav", "opencv"])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", images(30), gop=8)


def test_an_ordinary_clip_gives_every_frame_in_order(clip: Path, backend: str) -> None:
    with open_source(clip, backend=backend) as source:
        assert source.info.kind == "video"
        assert source.info.size_hw == SIZE_HW
        assert source.info.frame_count == 30
        assert source.info.fps == 25
        assert source.info.duration_ms == 1200
        assert source.info.backend == backend
        frames = list(source)
    assert numbers(frames) == list(range(30)) == [frame.index for frame in frames]
    assert [frame.pts_ms for frame in frames] == [40 * number for number in range(30)]
    assert {frame.duration_ms for frame in frames} == {40}
    assert {frame.source for frame in frames} == {"clip.mp4"}
    first = frames[0].image
    assert first.dtype == np.uint8
    assert first.shape == (*SIZE_HW, 3)
    assert first.flags.c_contiguous
    assert not any(frame.damaged for frame in frames)
    assert source.report.complete
    assert source.report.finished
    assert (source.report.decoded, source.report.declared) == (30, 30)
    assert source.report.events == []


def test_images_are_bgr(tmp_path: Path, backend: str) -> None:
    blue = np.zeros((*SIZE_HW, 3), np.uint8)
    blue[:, :, 0] = 255
    with open_source(write_clip(tmp_path / "blue.mp4", [blue] * 3), backend=backend) as source:
        mean = next(iter(source)).image.reshape(-1, 3).mean(axis=0)
    assert mean[0] > 240
    assert mean[1] < 15
    assert mean[2] < 15


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_uneven_times_are_the_containers(tmp_path: Path, suffix: str, backend: str) -> None:
    path = write_clip(tmp_path / f"uneven.{suffix}", images(), times_ms=UNEVEN_MS)
    with open_source(path, backend=backend) as source:
        frames = list(source)
    assert [frame.pts_ms for frame in frames] == UNEVEN_MS
    assert [frame.duration_ms for frame in frames[:-1]] == np.diff(UNEVEN_MS).tolist()
    assert source.report.complete


def test_a_late_first_frame_keeps_its_time(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "late.mkv", images(5), times_ms=[500, 540, 580, 620, 660])
    with open_source(path) as source:
        assert [frame.pts_ms for frame in source] == [500, 540, 580, 620, 660]


def test_a_range_takes_frames_from_start_up_to_but_not_at_end(clip: Path, backend: str) -> None:
    with open_source(clip, start_s=0.4, end_s=0.8, backend=backend) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(10, 20)) == numbers(frames)
    assert [frame.pts_ms for frame in frames] == [40 * number for number in range(10, 20)]
    assert source.report.complete
    assert source.report.frames == 10


@pytest.mark.parametrize("start_s", [0.04, 0.3, 0.32, 0.96, 1.16])
@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("mp4", "libx265"), ("avi", "mpeg4")]
)
def test_starting_late_gives_what_reading_all_gives(tmp_path: Path, suffix: str, codec: str, start_s: float) -> None:
    path = write_clip(tmp_path / f"clip.{suffix}", images(30), codec=codec, gop=8)
    with open_source(path) as source:
        expected = [frame for frame in source if frame.pts_ms >= start_s * 1000]
    with open_source(path, start_s=start_s) as source:
        found = list(source)
    assert [(f.index, f.pts_ms, f.duration_ms) for f in found] == [(f.index, f.pts_ms, f.duration_ms) for f in expected]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(found, expected, strict=True))


def test_a_stride_counts_from_the_first_frame_taken(clip: Path, backend: str) -> None:
    with open_source(clip, start_s=0.2, stride=4, backend=backend) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == [5, 9, 13, 17, 21, 25, 29] == numbers(frames)
    assert source.report.decoded == 7


def test_a_range_after_the_end_is_empty_and_complete(clip: Path) -> None:
    with open_source(clip, start_s=100) as source:
        assert list(source) == []
    assert source.report.complete


def test_the_time_of_a_result_names_its_frame(shared: Path) -> None:
    path = shared / "data/video/realshort.mp4"
    with open_source(path) as source:
        times = [frame.pts_ms for frame in source]
    for index in (12, 24, 35):
        with open_source(path, start_s=times[index] / 1000) as source:
            assert next(iter(source)).index == index


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotated_clips_stand_upright_on_both_backends(tmp_path: Path, rotation: int) -> None:
    upright = images(6)
    stored = [np.ascontiguousarray(np.rot90(image, rotation // 90)) for image in upright]
    path = write_clip(tmp_path / "turned.mp4", stored, rotation=-rotation % 360)
    pixels = []
    for backend in ("pyav", "opencv"):
        with open_source(path, backend=backend) as source:
            assert source.info.size_hw == SIZE_HW
            assert source.info.rotation == rotation
            frames = list(source)
        assert numbers(frames) == list(range(6))
        pixels.append(frames)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(*pixels, strict=True))


@pytest.mark.parametrize("size_hw", [(241, 321), (2, 2), (1, 3), (120, 161)])
def test_odd_sizes(tmp_path: Path, size_hw: tuple[int, int], backend: str) -> None:
    rng = np.random.default_rng(0)
    stored = [rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8) for _ in range(4)]
    path = write_clip(tmp_path / "odd.mkv", stored, codec="ffv1", pix_fmt="bgr0")
    with open_source(path, backend=backend) as source:
        assert all(np.array_equal(frame.image, image) for frame, image in zip(source, stored, strict=True))


def test_ten_bit_video_is_the_same_on_both_backends(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "deep.mp4", images(6), pix_fmt="yuv420p10le")
    with open_source(path, backend="pyav") as ours, open_source(path, backend="opencv") as theirs:
        assert ours.info.pixel_format == "yuv420p10le"
        for a, b in zip(ours, theirs, strict=True):
            assert np.array_equal(a.image, b.image)


def test_a_gif_that_moves_is_a_video_and_one_that_does_not_an_image(tmp_path: Path) -> None:
    moving = write_clip(tmp_path / "moving.gif", images(5), codec="gif", pix_fmt="rgb8", fps=10)
    still = write_clip(tmp_path / "still.gif", images(1), codec="gif", pix_fmt="rgb8", fps=10)
    with open_source(moving) as source:
        assert source.info.kind == "video"
        assert [frame.pts_ms for frame in source] == [0, 100, 200, 300, 400]
    with open_source(still) as source:
        assert source.info.kind == "image"
        assert [frame.pts_ms for frame in source] == [None]


def test_a_bare_stream_has_made_up_times_and_says_so(tmp_path: Path, backend: str) -> None:
    path = write_clip(tmp_path / "bare.h264", images(10))
    with open_source(path, backend=backend) as source:
        assert source.info.timing == "synthetic"
        assert source.info.frame_count is None
        assert [frame.pts_ms for frame in source] == [40 * number for number in range(10)]


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "with_sound.mp4", images(3), audio=True)
    with open_source(clip) as source:
        assert source.info.has_audio
        assert len(list(source)) == 3


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", images(3)).rename(tmp_path / "holiday.jpg")
    with open_source(path) as source:
        assert source.info.kind == "video"
        assert source.info.container == "matroska"


def test_a_source_is_iterated_once(clip: Path) -> None:
    with open_source(clip) as source:
        next(iter(source))
        with pytest.raises(RuntimeError, match="once"):
            next(iter(source))


def test_leaving_early_closes_the_file_and_gives_back_the_log_level(clip: Path) -> None:
    before = av.logging.get_level()
    with open_source(clip) as source:
        for frame in source:
            if frame.index == 3:
                break
    source.close()
    assert av.logging.get_level() == before
    assert not source.report.finished


def test_sources_in_several_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{n}.mp4", [numbered(n * 20 + k, SIZE_HW) for k in range(20)]) for n in range(4)]
    found: dict[int, list[int]] = {}

    def read(which: int) -> None:
        with open_source(clips[which]) as source:
            found[which] = numbers(list(source))

    threads = [threading.Thread(target=read, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == {which: list(range(which * 20, which * 20 + 20)) for which in range(4)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"stride": 0}, "stride=0"), ({"start_s": 2, "end_s": 1}, "before the end"), ({"backend": "vlc"}, "vlc")],
)
def test_bad_arguments_are_usage_errors(clip: Path, arguments: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_source(clip, **arguments)


def test_frames_above_the_limit_are_refused(clip: Path, backend: str) -> None:
    with pytest.raises(InputError, match="160x120") as caught:
        open_source(clip, backend=backend, max_pixels=120 * 160 - 1)
    assert caught.value.slug == "frame-too-large"
    with open_source(clip, backend=backend, max_pixels=120 * 160) as source:
        assert next(iter(source)).index == 0


def test_opencv_without_a_decoder_says_so(shared: Path) -> None:
    with pytest.raises(InputError, match="pyav") as caught:
        open_source(shared / "data/video/av1_video.mkv", backend="opencv")
    assert caught.value.slug == "no-decoder"


def test_without_pyav_opencv_reads(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with open_source(clip) as source:
        assert source.info.backend == "opencv"
        assert len(list(source)) == 30
    with pytest.raises(UsageError, match="pip install av"):
        open_source(clip, backend="pyav")


def test_frames_cut_off_by_an_edit_list_do_not_count(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "trimmed.mp4"
    with av.open(str(clip)) as given, av.open(str(path), "w") as trimmed:
        stream = trimmed.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(given.streams.video[0]):
            if packet.dts is not None:
                packet.pts -= 12 * 512
                packet.dts -= 12 * 512
                packet.stream = stream
                trimmed.mux(packet)
    for start_s in (None, 0.4):
        with open_source(path, start_s=start_s) as source:
            frames = list(source)
        first = 0 if start_s is None else 10
        assert source.info.frame_count == 18
        assert [frame.index for frame in frames] == list(range(first, 18))
        assert numbers(frames) == list(range(first + 12, 30))
        assert source.report.complete
