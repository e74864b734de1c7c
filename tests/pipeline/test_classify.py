"""Runs that classify: rows, smoothing over time, failing frames, workers in line, side files."""

from __future__ import annotations

import gc
import json
import threading
import time

import cv2
import numpy as np
import pytest

from visionkit.errors import ModelError
from visionkit.io import VideoWriter, read_results
from visionkit.pipeline import ClassifyStage, Line, Sink, Smoother, Stage, Writing, run, stream
from visionkit.runtime.base import Runner, Signature, TensorSpec
from visionkit.structures import Frame
from visionkit.tasks import Classifier, ClassifyOptions, InputRule

SIZE_HW = (36, 52)
COUNT = 100
LABELS = ("dark", "middle", "bright")


class Made(Runner):
    """Logits by the level of an image; not finite, or failing, on the calls whose images have these levels."""

    def __init__(self, batch=1, nan_at=(), fail_at=(), slow_s=0.0):
        spec = TensorSpec("image", (batch, 8, 12, 3), np.dtype(np.float32))
        super().__init__("made", Signature((spec,), (TensorSpec("logits", (batch, 3), spec.dtype),)), threads=1)
        self.nan_at, self.fail_at, self.slow_s, self.calls, self.shapes = set(nan_at), set(fail_at), slow_s, 0, set()

    def _run(self, feed):
        self.calls += 1
        self.shapes.add(feed[0].shape)
        time.sleep(self.slow_s)
        level = feed[0].mean(axis=(1, 2, 3))
        if self.fail_at & {round(float(v)) for v in level}:
            raise ModelError("model-failed", "made to fail")
        logits = -np.abs(level[:, None] - np.array([[0, 100, 200]])) / 20
        logits[[round(float(v)) in self.nan_at for v in level]] = np.nan
        return [logits.astype(np.float32)]


def classifier(**made):
    rule = InputRule.preset("raw", (8, 12), resize="shortest_side")
    return Classifier(Made(**made), rule, labels=LABELS, options=ClassifyOptions(topk=2))


def level_of(index):
    return 2 * index


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """100 images of one level each, losslessly."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(COUNT):
        cv2.imwrite(str(folder / f"{index:03}.png"), np.full((*SIZE_HW, 3), level_of(index), np.uint8))
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """50 frames, dark and then, from 1 s on, bright."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with VideoWriter(path, size_hw=SIZE_HW, fps=25) as writer:
        for index in range(50):
            writer.write(np.full((*SIZE_HW, 3), 5 if index < 25 else 195, np.uint8), 40.0 * index, 40.0)
    return path


def rows_of(source, out, task, *, smooth_s=0.0, **options):
    result = run(source, [ClassifyStage(task, smooth_s=smooth_s)], writing=Writing(out=out, video=False), **options)
    return result, list(read_results(out / "results.jsonl"))


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_rows_equal_the_classifier_image_by_image(folder, tmp_path, batch):
    task = classifier(batch=batch)
    result, rows = rows_of(folder, tmp_path / "out", task, smooth_s=0.5)  # images are never smoothed
    assert result.status == "complete"
    assert [row["index"] for row in rows] == list(range(COUNT))
    for row in rows:
        found = classifier()(np.full((*SIZE_HW, 3), level_of(row["index"]), np.uint8))
        assert [c["class_id"] for c in row["classes"]] == found.class_id.tolist()
        assert [c["confidence"] for c in row["classes"]] == [round(float(p), 4) for p in found.confidence]
        assert [c["class_name"] for c in row["classes"]] == [LABELS[i] for i in found.class_id]
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["settings"]["classify"]["batch"] == batch
    assert task.runner.shapes == {(batch, 8, 12, 3)}


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("kind", ["nan_at", "fail_at"])
def test_d14_a_frame_that_fails_fails_alone(folder, tmp_path, batch, kind):
    clean = rows_of(folder, tmp_path / "clean", classifier(batch=batch))[1]
    result, rows = rows_of(folder, tmp_path / "out", classifier(batch=batch, **{kind: {level_of(57)}}))
    assert (result.status, result.exit_code) == ("damaged", 4)
    assert "classify: " in rows[57]["error"]
    assert "classes" not in rows[57]
    assert rows[:57] + rows[58:] == clean[:57] + clean[58:]
    assert result.counts["failed"] == 1
    with pytest.raises(ModelError):
        rows_of(folder, tmp_path / "fast", classifier(batch=batch, **{kind: {level_of(57)}}), fail_fast=True)
    assert not (tmp_path / "fast").exists()


def test_a_failing_frame_of_a_video_leaves_the_average_alone(clip, tmp_path):
    from visionkit.io import open_source

    with open_source(clip) as opened:
        info = opened.info
        levels = {round(float(frame.image[:8].mean())) for frame in opened}
    assert len(levels) < 5
    frames = [Frame(np.full((*SIZE_HW, 3), v, np.uint8), i, 40.0 * i, 40.0, "x") for i, v in enumerate([9, 9, 77, 9])]
    stage = ClassifyStage(classifier(nan_at={77}), smooth_s=0.5)
    stage.setup(info, frames[0])
    items = list(Line(iter(frames), [stage]))
    assert items[2].error is not None
    first = items[0].results["classify"].confidence
    assert np.allclose(items[3].results["classify"].confidence, first, atol=1e-6)


def softmax(values):
    powers = np.exp(np.asarray(values) - np.max(values))
    return powers / powers.sum()


def smoothed_by_hand(values, times_s, tau):
    """The slow way: every past frame weighs by its share of time, faded by its age."""
    out = []
    for now in range(len(values)):
        weights = []
        for then in range(now + 1):
            passed = times_s[then] - times_s[then - 1] if then else 0.04
            weights.append((1 - np.exp(-passed / tau)) * np.exp(-(times_s[now] - times_s[then]) / tau))
        out.append(np.average(values[: now + 1], axis=0, weights=weights))
    return np.array(out)


def frame_at(pts_ms, duration_ms=40.0):
    return Frame(np.zeros((1, 1, 3), np.uint8), 0, pts_ms, duration_ms, "x")


def test_smoothing_is_the_weighted_mean_of_the_past():
    generator = np.random.default_rng(0)
    times = np.cumsum(generator.uniform(0.01, 0.2, 30))
    values = generator.random((30, 4)).astype(np.float32)
    smoother = Smoother(0.5)
    ours = [smoother(frame_at(1000 * t), {"logits": v})["logits"] for t, v in zip(times, values, strict=True)]
    np.testing.assert_allclose(ours, smoothed_by_hand(values, times, 0.5), atol=1e-5)
    assert np.array_equal(ours[0], values[0])


def test_smoothing_does_not_depend_on_the_frame_rate():
    """A step seen at 50 and at 10 frames a second stands at the same height at the same time."""
    found = {}
    for fps in (50, 10):
        smoother = Smoother(0.5)
        for index in range(2 * fps):
            value = np.array([float(index >= fps)], np.float32)
            out = smoother(frame_at(1000 * index / fps, 1000 / fps), {"x": value})["x"][0]
        found[fps] = out
    assert found[50] == pytest.approx(found[10], abs=0.01)
    per_frame = {fps: 1 - 0.9**fps for fps in (50, 10)}  # the control: a fixed share a frame
    assert abs(per_frame[50] - per_frame[10]) > 0.3


def test_smoothing_forgets_where_time_runs_backwards_and_can_be_off():
    smoother, off = Smoother(0.5), Smoother(0)
    one, two = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)
    assert smoother(frame_at(1000.0), {"x": one})["x"].tolist() == [1, 0]
    assert smoother(frame_at(200.0), {"x": two})["x"].tolist() == [0, 1]
    still = Frame(np.zeros((1, 1, 3), np.uint8), 0, None, None, "x")
    assert smoother(still, {"x": one})["x"].tolist() == [1, 0]
    off(frame_at(0.0), {"x": one})
    assert off(frame_at(40.0), {"x": two})["x"].tolist() == [0, 1]
    for bad in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="tau_s"):
            Smoother(bad)


def test_a_video_is_smoothed_and_the_row_has_the_smoothed_numbers(clip, tmp_path):
    sharp = rows_of(clip, tmp_path / "sharp", classifier())[1]
    soft = rows_of(clip, tmp_path / "soft", classifier(), smooth_s=0.5)[1]
    at = [i for i in range(1, 50) if sharp[i]["classes"][0]["class_id"] != sharp[i - 1]["classes"][0]["class_id"]]
    assert at == [25]
    late = [i for i in range(1, 50) if soft[i]["classes"][0]["class_id"] != soft[i - 1]["classes"][0]["class_id"]]
    assert late
    assert 25 < late[0] < 45
    before = softmax(-np.abs(5 - np.array([0, 100, 200])) / 20)
    assert soft[0]["classes"][0]["confidence"] == pytest.approx(before.max(), abs=0.03)


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 4])
def test_workers_keep_the_order(workers, batch):
    generator = np.random.default_rng(1)
    waits = generator.uniform(0, 0.004, 60)

    class Busy(Stage):
        settled: list[int]

        def process(self, items):
            time.sleep(waits[items[0].frame.index])
            for item in items:
                item.results["busy"] = item.frame.index

        def settle(self, items):
            self.settled += [item.frame.index for item in items]

    stage = Busy("busy", batch, workers)
    stage.settled = []
    frames = (Frame(np.zeros((2, 2, 3), np.uint8), i, None, None, "x") for i in range(60))
    line = Line(frames, [stage], max_items=4)
    assert [item.results["busy"] for item in line] == list(range(60)) == stage.settled
    assert not [t for t in threading.enumerate() if t.name == "busy"]


def test_workers_work_side_by_side():
    meeting = threading.Barrier(3, timeout=20)

    class Meet(Stage):
        def process(self, items):
            meeting.wait()  # passes only when three workers are inside at once

    frames = (Frame(np.zeros((2, 2, 3), np.uint8), i, None, None, "x") for i in range(9))
    assert len(list(Line(frames, [Meet("meet", workers=3)]))) == 9


@pytest.mark.parametrize("where", ["process", "settle"])
def test_an_exception_in_one_worker_ends_the_others(where):
    class Sick(Stage):
        def process(self, items):
            if where == "process" and items[0].frame.index == 7:
                raise OSError("broke")
            time.sleep(0.002)

        def settle(self, items):
            if where == "settle" and items[0].frame.index == 7:
                raise OSError("broke")

    frames = (Frame(np.zeros((2, 2, 3), np.uint8), i, None, None, "x") for i in range(60))
    with pytest.raises(OSError, match="broke"):
        list(Line(frames, [Sick("sick", workers=4)]))
    assert not [t for t in threading.enumerate() if t.name == "sick"]


def test_leaving_a_line_of_workers_early_ends_them():
    frames = (Frame(np.zeros((2, 2, 3), np.uint8), i, None, None, "x") for i in range(10**6))
    items = iter(Line(frames, [Stage("lazy", workers=3)]))
    Stage.process, kept = lambda self, items: None, Stage.process
    try:
        next(items)
        items.close()
    finally:
        Stage.process = kept
    assert not [t for t in threading.enumerate() if t.name == "lazy"]


class Notes(Sink):
    """One text file for each frame."""

    def __init__(self):
        super().__init__("notes")

    def process(self, items):
        for item in items:
            name = f"notes/{item.frame.index:06}.txt"
            self.place(name).write_text(str(item.results["classify"].class_id[0]))
            item.fields["note"] = name

    def finish(self):
        return {"file": "notes"}


def test_sinks_write_side_files_and_tell_of_them_in_the_row(folder, tmp_path):
    result = run(folder, [ClassifyStage(classifier())], writing=Writing(out=tmp_path / "out"), sinks=[Notes()])
    rows = list(read_results(result.out / "results.jsonl"))
    assert rows[99]["note"] == "notes/000099.txt"
    assert (result.out / rows[99]["note"]).read_text() == "2"
    manifest = json.loads((result.out / "run.json").read_text())
    assert manifest["files"] == {"notes": {"file": "notes"}}
    assert manifest["annotated"]["frames"] == COUNT
    with (tmp_path / "rows.jsonl").open("wb") as stream_:
        run(folder, [ClassifyStage(classifier())], writing=Writing(rows=stream_), sinks=[Notes()])
    assert "note" not in next(read_results(tmp_path / "rows.jsonl"))


def test_the_stage_closes_what_it_loaded_and_nothing_else(folder, tmp_path):
    mine, made = classifier(), []

    def load():
        made.append(classifier())
        return made[0]

    list(stream(folder, ClassifyStage(mine)))
    list(stream(folder, ClassifyStage(load)))
    assert mine(np.zeros((5, 5, 3), np.uint8)) is not None
    with pytest.raises(ValueError, match="closed"):
        made[0](np.zeros((5, 5, 3), np.uint8))


def test_g2_images_of_a_thousand_sizes_do_not_leak():
    """1,000 images of different sizes, after 200 to settle: less than 1 MiB stays."""
    resource = pytest.importorskip("resource", reason="peak memory is read from the operating system")
    task, generator = classifier(), np.random.default_rng(2)

    def classify(count):
        for _ in range(count):
            height, width = generator.integers(8, 200, 2)
            task(np.full((height, width, 3), 99, np.uint8))

    classify(200)
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    classify(1000)
    gc.collect()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024
    assert task.runner.shapes == {(1, 8, 12, 3)}
