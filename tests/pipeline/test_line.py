"""The assembly line: order, batches, overlap, bounds, and exceptions from every thread."""

from __future__ import annotations

import threading
import traceback
from collections import deque

import numpy as np
import pytest

from visionkit.errors import ModelError
from visionkit.pipeline.line import Line
from visionkit.pipeline.stage import FunctionStage, Stage, TaskStage
from visionkit.structures import Frame

COUNT = 60  # longer than all the buffers of a line of three stages


def frames(count=COUNT, fail_at=None):
    for index in range(count):
        if index == fail_at:
            raise OSError("reader broke")
        image = np.full((4, 6, 3), index % 256, np.uint8)
        yield Frame(image, index=index, pts_ms=40.0 * index, duration_ms=40.0, source="made up")


def visionkit_threads():
    return [
        t for t in threading.enumerate() if t is not threading.main_thread() and t.name in {"decode", "a", "b", "c"}
    ]


class Batches(Stage):
    def __init__(self, name, batch):
        super().__init__(name, batch)
        self.sizes = []

    def process(self, items):
        self.sizes.append(len(items))
        for item in items:
            item.results[self.name] = item.frame.index * 10


class Sick(Stage):
    """Fails on one index, with the error it is given."""

    def __init__(self, name, error, at, batch=1):
        super().__init__(name, batch)
        self.error, self.at = error, at

    def process(self, items):
        if any(item.frame.index == self.at for item in items):
            raise self.error
        for item in items:
            item.results[self.name] = True


def test_every_frame_comes_out_once_and_in_order():
    line = Line(frames(), [FunctionStage("a", lambda item: None), FunctionStage("b", lambda item: None)], max_items=2)
    assert [item.frame.index for item in line] == list(range(COUNT))
    assert visionkit_threads() == []


def test_batches_are_full_and_the_rest_is_flushed():
    stage = Batches("a", 8)
    items = list(Line(frames(19), [stage]))
    assert stage.sizes == [8, 8, 3]
    assert [item.results["a"] for item in items] == [10 * i for i in range(19)]


def test_a_batch_larger_than_the_queue_does_not_block():
    stage = Batches("a", 16)
    assert len(list(Line(frames(20), [stage], max_items=2, max_bytes=1))) == 20
    assert stage.sizes == [16, 4]


def test_stages_work_at_the_same_time():
    meet = threading.Barrier(3, timeout=20)  # passes only when decode, a and b are inside their work together

    def reader():
        for frame in frames(12):
            if frame.index == 2:
                meet.wait()
            yield frame

    def work_at(index):
        return lambda item: meet.wait() if item.frame.index == index else None

    line = Line(reader(), [FunctionStage("a", work_at(1)), FunctionStage("b", work_at(0))])
    assert len(list(line)) == 12


@pytest.mark.parametrize("place", ["decode", "a", "b", "caller"])
def test_an_exception_reaches_the_caller_with_its_traceback_and_every_thread_ends(place):
    def broken(item):
        if item.frame.index == 30:
            raise OSError("stage broke")

    def fine(item):
        pass

    stages = [
        FunctionStage("a", broken if place == "a" else fine),
        FunctionStage("b", broken if place == "b" else fine),
    ]
    line = Line(frames(fail_at=30 if place == "decode" else None), stages, max_items=2)
    consume = broken if place == "caller" else fine
    with pytest.raises(OSError, match="broke") as caught:
        deque(map(consume, line), maxlen=0)
    names = [entry.name for entry in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-1] == ("frames" if place == "decode" else "broken")
    assert visionkit_threads() == []


def test_leaving_the_loop_early_ends_the_threads_and_closes_the_reader():
    closed = threading.Event()

    def reader():
        try:
            yield from frames(10_000)
        finally:
            closed.set()

    items = iter(Line(reader(), [FunctionStage("a", lambda item: None)]))
    next(items)
    items.close()
    assert closed.is_set()
    assert visionkit_threads() == []


def test_stop_drains_what_was_read():
    line = Line(frames(100_000), [FunctionStage("a", lambda item: None)])
    out = []
    for item in line:
        out.append(item.frame.index)
        if len(out) == 5:
            line.stop()
    assert 5 <= len(out) < 100_000
    assert out == list(range(len(out)))


def test_d14_a_model_error_marks_its_frame_only():
    line = Line(frames(), [Sick("a", ModelError("model-failed", "no answer"), at=57), Batches("b", 1)])
    items = list(line)
    assert [i.frame.index for i in items if i.error] == [57]
    assert items[57].error == "a: no answer"
    assert "a" not in items[57].results
    assert len(items) == COUNT
    assert line.failed == 1


def test_d14_a_model_error_in_a_batch_is_narrowed_to_its_frame():
    items = list(Line(frames(), [Sick("a", ModelError("model-failed", "no answer"), at=57, batch=8)]))
    assert [i.frame.index for i in items if i.error] == [57]
    assert sum("a" in i.results for i in items) == COUNT - 1


def test_d14_fail_fast_raises_the_model_error():
    error = ModelError("model-failed", "no answer")
    with pytest.raises(ModelError) as caught:
        list(Line(frames(), [Sick("a", error, at=57)], fail_fast=True))
    assert caught.value is error


def test_g4_a_slow_end_holds_no_more_than_the_bound():
    alive, most = 0, 0
    lock = threading.Lock()

    class Pixels(np.ndarray):
        def __del__(self):
            count(-1)

    def count(change):
        nonlocal alive, most
        with lock:
            alive += change
            most = max(most, alive)

    def reader():
        for index in range(COUNT):
            count(1)
            image = np.zeros((10, 10, 3), np.uint8).view(Pixels)
            yield Frame(image, index=index, pts_ms=0.0, duration_ms=None, source="x")

    line = Line(reader(), [FunctionStage("a", lambda item: None)], max_bytes=900, max_items=100)
    seen = 0
    for item in line:
        assert item.frame.index == seen
        seen += 1
        threading.Event().wait(0.002)
        del item
    assert seen == COUNT
    assert alive == 0
    # 3 frames of 300 bytes in each of two queues, at most two in the hands of each of two threads (one waits for room
    # while the one before is still named), one with the caller.
    assert most <= 3 * 2 + 2 * 2 + 1
    assert all(queue.peak_bytes <= 900 for queue in line.queues)


def test_stages_of_one_name_are_refused():
    with pytest.raises(ValueError, match=r"different names.*\['a', 'a'\]"):
        Line(frames(), [FunctionStage("a", lambda item: None), FunctionStage("a", lambda item: None)])


def test_a_task_that_returns_too_few_results_is_refused():
    with pytest.raises(ValueError, match="1 for 2 images"):
        list(Line(frames(2), [TaskStage(lambda images: images[:1], batch=2)]))


def test_seconds_are_counted_for_each_stage():
    line = Line(frames(5), [FunctionStage("a", lambda item: threading.Event().wait(0.01))])
    list(line)
    assert line.seconds["a"] >= 0.05
    assert set(line.seconds) == {"decode", "a"}
