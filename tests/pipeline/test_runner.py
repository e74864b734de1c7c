"""Whole runs over small clips with a tracker that needs no model: files, order of checks, failures, interruptions."""

from __future__ import annotations

import io
import json
import os
import signal
import threading

import av
import cv2
import numpy as np
import pytest

from visionkit.errors import InputError, ModelError, OutputError, UsageError
from visionkit.io import VideoWriter, read_results
from visionkit.pipeline import FunctionStage, Reading, TaskStage, TrackStage, Writing, run, stream
from visionkit.pipeline.manifest import environment
from visionkit.pipeline.progress import ProgressBar, expected_frames
from visionkit.structures import Track

SIZE_HW = (48, 80)
COUNT = 60  # more than all the queues hold
BOX = (10, 10, 30, 40)


class Still:
    """A tracker that says the box has not moved, except where it is told to fail."""

    def __init__(self, fail_at=(), answer=None):
        self.fail_at, self.answer, self.calls, self.closed = set(fail_at), answer, 0, False

    def init(self, image, xyxy):
        self.box = xyxy

    def update(self, image):
        self.calls += 1
        if self.calls in self.fail_at:
            if self.answer is not None:
                return Track(self.answer, 0.5, "tracking")
            raise ModelError("model-failed", "made to fail")
        return Track(self.box, 0.75, "tracking")

    def describe(self):
        return {"name": "still", "sha256": None, "runtime": "none", "precision": "float32"}

    def close(self):
        self.closed = True


def track(**kwargs):
    return TrackStage(lambda: Still(**kwargs), BOX)


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """60 frames, not evenly spaced in time, first at 0."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with VideoWriter(path, size_hw=SIZE_HW, fps=25) as writer:
        for index in range(COUNT):
            image = np.full((*SIZE_HW, 3), 4 * index, np.uint8)
            writer.write(image, 40.0 * index + 7 * (index % 3), 40.0)
    return path


def times_ms(path):
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base * 1000) for frame in container.decode(video=0)]


def rows_of(folder):
    return list(read_results(folder / "results.jsonl"))


def threads():
    return [t.name for t in threading.enumerate() if t.name in {"decode", "track", "draw", "encode", "digest"}]


def nothing_left(folder):
    return not any(folder.iterdir()) and threads() == []


def test_a_run_writes_rows_a_video_and_a_manifest_that_agree(clip, tmp_path):
    drawn = []
    result = run(
        clip,
        [track()],
        task="track",
        writing=Writing(out=tmp_path / "out"),
        draw=lambda item: drawn.append(item.frame.index),
        command=["visionkit", "track"],
    )
    assert (result.status, result.exit_code, result.out) == ("complete", 0, tmp_path / "out")
    assert sorted(p.name for p in result.out.iterdir()) == ["annotated.mp4", "results.jsonl", "run.json"]
    rows = rows_of(result.out)
    assert [row["index"] for row in rows] == drawn == list(range(COUNT))
    assert rows[0]["track"] == {"xyxy": [10.0, 10.0, 30.0, 40.0], "confidence": 1.0, "state": "tracking"}
    assert rows[1]["track"]["confidence"] == 0.75
    expected = times_ms(clip)
    assert np.allclose([row["pts_ms"] for row in rows], expected, atol=0.01)
    assert np.allclose(times_ms(result.out / "annotated.mp4"), expected, atol=0.02)
    manifest = json.loads((result.out / "run.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["model"]["name"] == "still"
    assert manifest["command"] == ["visionkit", "track"]
    assert len(manifest["source"]["sha256"]) == 64
    counts = manifest["counts"]
    assert counts["decoded"] + counts["damaged"] + counts["skipped"] + counts["dropped"] == counts["seen"] == COUNT
    assert counts["rows"] == COUNT
    assert {"decode", "track", "draw", "encode", "wall", "cpu"} <= set(manifest["seconds"])
    assert threads() == []


def test_images_become_rows_without_a_time_and_one_jpeg_each(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for name in ("a.png", "a.jpg", "b.png"):
        cv2.imwrite(str(folder / name), np.full((*SIZE_HW, 3), 90, np.uint8))
    result = run(folder, [track()], writing=Writing(out=tmp_path / "out"))
    rows = rows_of(result.out)
    assert [row["source"] for row in rows] == ["a.jpg", "a.png", "b.png"]
    assert [row["pts_ms"] for row in rows] == [None] * 3
    assert sorted(p.name for p in (result.out / "annotated").iterdir()) == ["a-1.jpg", "a.jpg", "b.jpg"]


def test_rows_to_a_stream_write_nothing_else(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = io.BytesIO()
    result = run(clip, [track()], writing=Writing(rows=rows))
    assert result.out is None
    assert len(rows.getvalue().splitlines()) == COUNT
    assert nothing_left(tmp_path)


def test_range_and_stride_keep_index_and_time_of_the_source(clip, tmp_path):
    reading = Reading(start_s=0.4, end_s=1.2, stride=2)
    result = run(clip, [track()], reading=reading, writing=Writing(out=tmp_path / "out"))
    rows, expected = rows_of(result.out), times_ms(clip)
    first = next(i for i, t in enumerate(expected) if t >= 400)
    kept = [i for i in range(first, COUNT, 2) if expected[i] < 1200]
    assert [row["index"] for row in rows] == kept
    assert np.allclose([row["pts_ms"] for row in rows], [expected[i] for i in kept], atol=0.01)


@pytest.mark.parametrize(
    ("change", "error", "slug"),
    [
        ({"box": (200, 10, 300, 40)}, UsageError, "box-outside"),
        ({"source": "missing.mp4"}, InputError, "input-missing"),
        ({"out": "taken"}, OutputError, "exists"),
        ({"codec": "nonsense"}, UsageError, "unknown-codec"),
    ],
)
def test_mistakes_are_told_before_a_model_is_loaded(clip, tmp_path, change, error, slug):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("x")
    before = sorted(tmp_path.rglob("*"))

    def load():
        raise AssertionError("the model was loaded first")

    writing = Writing(out=tmp_path / change.get("out", "out"), codec=change.get("codec", "auto"))
    with pytest.raises(error) as caught:
        run(change.get("source", clip), [TrackStage(load, change.get("box", BOX))], writing=writing)
    assert caught.value.slug == slug
    assert sorted(tmp_path.rglob("*")) == before


def test_a_box_partly_outside_is_cut_and_the_frame_size_is_named_when_it_is_wholly(clip, tmp_path):
    result = run(clip, [TrackStage(Still, (-5, 20, 30, 90))], writing=Writing(out=tmp_path / "out"))
    assert rows_of(result.out)[0]["track"]["xyxy"] == [0.0, 20.0, 30.0, 48.0]
    with pytest.raises(UsageError, match="80 wide and 48 high"):
        run(clip, [TrackStage(Still, (-50, 20, -10, 90))], writing=Writing(out=tmp_path / "two"))


@pytest.mark.parametrize("answer", [None, [np.nan, 0, 1, 1]])
def test_d14_a_failing_frame_has_an_error_and_the_run_exits_4(clip, tmp_path, answer):
    clean = run(clip, [track()], writing=Writing(out=tmp_path / "clean"))
    result = run(clip, [track(fail_at=[57], answer=answer)], writing=Writing(out=tmp_path / "out"))
    assert (result.status, result.exit_code) == ("damaged", 4)
    rows, good = rows_of(result.out), rows_of(clean.out)
    assert "error" in rows[57]
    assert "track" not in rows[57]
    assert rows[:57] + rows[58:] == good[:57] + good[58:]
    assert "1 frame failed in track" in result.warnings[-1]


def test_a_model_that_fails_on_every_frame_fails_the_run(clip, tmp_path):
    class Broken(Still):
        def init(self, image, xyxy):
            raise ModelError("model-failed", "made to fail")

    with pytest.raises(ModelError):
        run(clip, [TrackStage(Broken, BOX)], writing=Writing(out=tmp_path / "out"))
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("place", ["reader", "stage", "draw", "writer", "watch"])
@pytest.mark.timeout(30)
def test_a_failure_anywhere_reaches_the_caller_and_leaves_nothing(clip, tmp_path, monkeypatch, place):
    def broken(*args):
        raise OSError(f"{place} broke")

    def broken_late(item):
        if item.frame.index == 40:
            broken()

    if place == "reader":
        real = Reading.open

        class Cut:
            def __init__(self, source):
                self.source, self.info, self.report = source, source.info, source.report

            def __enter__(self):
                self.source.__enter__()
                return self

            def __exit__(self, *exc):
                self.source.close()

            def __iter__(self):
                for frame in self.source:
                    if frame.index == 40:
                        broken()
                    yield frame

        monkeypatch.setattr(Reading, "open", lambda self, source: Cut(real(self, source)))
    if place == "writer":
        monkeypatch.setattr(VideoWriter, "write", broken)
    stages = [track()] + ([FunctionStage("late", broken_late)] if place == "stage" else [])
    with pytest.raises(OSError, match=f"{place} broke"):
        run(
            clip,
            stages,
            writing=Writing(out=tmp_path / "out"),
            draw=broken_late if place == "draw" else None,
            watch=broken_late if place == "watch" else None,
        )
    assert nothing_left(tmp_path)


def endless(clip, tmp_path, watch):
    """A run whose reading never ends by itself: every frame waits for the row before it."""
    gate = threading.Semaphore(12)

    def hold(item):
        gate.acquire(timeout=20)

    def seen(item):
        gate.release()
        return watch(item)

    return run(clip, [track(), FunctionStage("hold", hold)], writing=Writing(out=tmp_path / "out"), watch=seen)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_drains_and_publishes_what_was_finished(clip, tmp_path, number, code):
    def watch(item):
        if item.frame.index == 3:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    result = endless(clip, tmp_path, watch)
    assert (result.status, result.exit_code) == ("interrupted", code)
    rows = rows_of(result.out)
    assert 4 <= len(rows) < COUNT
    assert len(times_ms(result.out / "annotated.mp4")) == len(rows)
    assert json.loads((result.out / "run.json").read_text())["status"] == "interrupted"
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_at_once_and_leaves_nothing(clip, tmp_path):
    def watch(item):
        if item.frame.index == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        endless(clip, tmp_path, watch)
    assert nothing_left(tmp_path)


def test_watch_may_end_the_run(clip, tmp_path):
    result = endless(clip, tmp_path, lambda item: item.frame.index < 3)
    assert (result.status, result.exit_code) == ("interrupted", 130)


def test_frames_of_another_size_fit_into_the_video_and_keep_their_own_in_the_rows(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for name, size in (("1.png", (48, 80)), ("2.png", (80, 48))):
        cv2.imwrite(str(folder / name), np.full((*size, 3), 90, np.uint8))
    from visionkit.pipeline.sinks import fitted

    image = np.full((80, 48, 3), 90, np.uint8)
    out = fitted(image, SIZE_HW)
    assert out.shape == (48, 80, 3)
    assert (out[:, 26:54] == 90).all()  # 48 * 48 / 80 = 28.8 wide, centred
    assert (out[:, :24] == 0).all()
    result = run(folder, [track()], writing=Writing(out=tmp_path / "out"))
    assert [row["size_hw"] for row in rows_of(result.out)] == [[48, 80], [80, 48]]


def test_a_stage_closes_the_tracker_it_loaded_and_no_other(clip):
    mine, made = Still(), []

    def load():
        made.append(Still())
        return made[0]

    for tracker in (mine, load):
        stream(clip, TrackStage(tracker, BOX)).close()  # not begun: nothing to close
        states = [track.state for _, track in stream(clip, TrackStage(tracker, BOX))]
        assert states == ["tracking"] * COUNT
    assert (mine.closed, made[0].closed) == (False, True)


@pytest.mark.parametrize("xyxy", [[1, 2, 3], [1, 2, 3, np.nan]])
def test_a_box_that_is_none_is_told_by_value(xyxy):
    with pytest.raises(ValueError, match="four finite numbers"):
        TrackStage(Still, xyxy)


def test_stream_gives_frames_with_results_and_closes_when_left(clip):
    task = TaskStage(lambda images: [int(image.mean()) for image in images], batch=4)
    pairs = [(frame.index, result) for frame, result in stream(clip, task)]
    assert [index for index, _ in pairs] == list(range(COUNT))
    assert all(abs(result - 4 * index) <= 4 for index, result in pairs)
    early = stream(clip, lambda images: [0] * len(images))
    next(early)
    early.close()
    assert threads() == []


def test_the_environment_keeps_what_changes_results_and_no_secrets():
    told = environment({"TF_VAR_password": "x", "TF_ENABLE_ONEDNN_OPTS": "0", "HOME": "/", "OPENCV_LOG_LEVEL": "3"})
    assert told["variables"] == {"OPENCV_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}


@pytest.mark.parametrize(("total", "shown"), [(10, 1.0), (None, None)])
def test_a11_the_bar_never_passes_its_end(total, shown, capsys):
    bar = ProgressBar("clip", total, enabled=True)
    with bar:
        for _ in range(25):
            bar.advance()
        task = bar._progress.tasks[0]
        assert task.completed == (25 if total is None else 10)
        assert task.total == total
    assert bar.count == 25


def test_the_bar_is_silent_in_a_pipe(capsys):
    with ProgressBar("clip", 3) as bar:
        bar.advance()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("count", "fps", "kept", "expected"),
    [
        (100, 25.0, {}, 100),
        (100, 25.0, {"stride": 3}, 34),
        (100, 25.0, {"start_s": 1.0, "end_s": 3.0}, 50),
        (100, 25.0, {"end_s": 99.0}, 100),
        (None, 25.0, {}, None),
        (100, None, {"start_s": 1.0}, None),
        (-5, 25.0, {}, None),
    ],
)
def test_expected_frames(count, fps, kept, expected):
    class Info:
        frame_count = count

    Info.fps = fps
    assert expected_frames(Info, **kept) == expected
