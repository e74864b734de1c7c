"""Instances of a network by size: made once, shared by threads, given up for those used later."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from visionkit.tasks.instances import COMPILED_SIZES, SizedNetwork


class Instance:
    """One that tells whether it is open, and whether two are in it at once."""

    precision, threads = "float32", 3

    def __init__(self, size, runtime):
        self.size, self.runtime, self.open, self.inside = size, runtime or "fast", True, 0

    def close(self):
        self.open = False


def network(count=1, **options):
    """A network and the instances that were made, with what they were asked to run in."""
    made = []

    def compile_size(size, runtime):
        made.append([Instance(size, runtime) for _ in range(count)])
        return made[-1]

    return SizedNetwork(compile_size, lambda one: one.runtime, **options), made


def test_a_size_is_compiled_once_and_in_the_runtime_of_the_first():
    task, made = network(count=2)
    assert (task.runtime, task.instances) == (None, None)
    for size in ((4, 5), (6, 7), (4, 5)):
        task.prepare(size)
    assert [[one.size for one in some] for some in made] == [[(4, 5)] * 2, [(6, 7)] * 2]
    assert (task.runtime, task.precision, task.instances, task.threads) == ("fast", "float32", 2, 3)
    assert made[1][0].runtime == "fast"


def test_the_size_not_used_for_longest_goes_but_not_while_it_is_used():
    task, made = network()
    sizes = [(k, 1) for k in range(1, COMPILED_SIZES + 1)]
    for size in sizes:
        task.prepare(size)
    task.prepare(sizes[0])
    with task.instance(sizes[1]):
        task.prepare((99, 1))
        assert [some[0].open for some in made] == [True, True, False, *[True] * (COMPILED_SIZES - 2)]
    task.close()
    assert not any(some[0].open for some in made)


def test_memory_is_lent_and_comes_back():
    task, _ = network(batch=2, channels=1, dtype=np.int8)
    with task.inputs((3, 4)) as first, task.inputs((3, 4)) as second:
        assert first is not second
        assert (first.shape, first.dtype) == ((2, 3, 4, 1), np.int8)
    with task.inputs((3, 4)) as again:
        assert again is second or again is first


@pytest.mark.timeout(20)
def test_no_two_threads_are_in_one_instance():
    task, made = network(count=2)
    worst, lock = [0, 0], threading.Lock()

    def use(_):
        with task.instance((2, 2)) as one:
            with lock:
                one.inside += 1
                worst[0] = max(worst[0], one.inside)
                worst[1] = max(worst[1], sum(each.inside for each in made[0]))
            threading.Event().wait(0.002)
            with lock:
                one.inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(60)))
    assert worst == [1, 2]
    assert len(made) == 1


def test_an_instance_comes_back_from_a_failure():
    task, _ = network()
    with pytest.raises(RuntimeError, match="made to fail"), task.instance((2, 2)):
        raise RuntimeError("made to fail")
    with task.instance((2, 2)) as one:
        assert one.open
