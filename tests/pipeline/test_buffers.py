"""The bounded queue between two threads."""

from __future__ import annotations

import threading

import pytest

from visionkit.pipeline.buffers import ByteQueue, Cancelled

DEADLINE_S = 10


def _in_thread(function, *args):
    outcome = []

    def run():
        try:
            outcome.append(function(*args))
        except Cancelled as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_entries_leave_in_the_order_they_came_and_none_marks_the_end():
    queue = ByteQueue(100, 10)
    for i in range(3):
        queue.put(i, 1)
    queue.end()
    assert [queue.get() for _ in range(4)] == [0, 1, 2, None]
    assert queue.held_bytes == 0


def test_put_waits_for_bytes_not_only_for_places():
    queue = ByteQueue(100, 10)
    queue.put("a", 60)
    thread, outcome = _in_thread(queue.put, "b", 60)
    thread.join(0.2)
    assert thread.is_alive(), "60 + 60 bytes were let into a queue of 100"
    assert queue.get() == "a"
    thread.join(DEADLINE_S)
    assert outcome == [None]
    assert queue.peak_bytes == 60


def test_an_entry_above_the_bound_passes_alone():
    queue = ByteQueue(100, 10)
    queue.put("huge", 1000)
    thread, _ = _in_thread(queue.put, "next", 1)
    thread.join(0.2)
    assert thread.is_alive()
    assert queue.get() == "huge"
    thread.join(DEADLINE_S)
    assert queue.get() == "next"


def test_put_waits_for_a_place():
    queue = ByteQueue(100, 1)
    queue.put("a", 1)
    thread, _ = _in_thread(queue.put, "b", 1)
    thread.join(0.2)
    assert thread.is_alive()
    assert queue.get() == "a"
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


@pytest.mark.parametrize("side", ["put", "get"])
def test_cancel_wakes_a_waiting_thread(side):
    queue = ByteQueue(10, 1)
    if side == "put":
        queue.put("a", 1)
    thread, outcome = _in_thread(*((queue.put, "b", 1) if side == "put" else (queue.get,)))
    thread.join(0.1)
    queue.cancel()
    thread.join(DEADLINE_S)
    assert isinstance(outcome[0], Cancelled)
    assert len(queue) == 0


@pytest.mark.parametrize(("max_bytes", "max_items"), [(0, 1), (1, 0)])
def test_bounds_must_be_positive(max_bytes, max_items):
    with pytest.raises(ValueError, match=f"max_bytes={max_bytes}, max_items={max_items}"):
        ByteQueue(max_bytes, max_items)
