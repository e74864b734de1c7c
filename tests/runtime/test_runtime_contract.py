"""What every installed runtime must do alike."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from tests.runtime.nets import BATCH
from visionkit.runtime import compile_model
from visionkit.runtime.adaptors import ADAPTORS
from visionkit.runtime.machine import default_threads

INSTALLED = [name for name, adaptor in ADAPTORS.items() if not adaptor.missing]


@pytest.fixture(scope="module", params=INSTALLED)
def runner(request, net, cache_dir):
    with compile_model(net, runtime=request.param, batch=BATCH, cache_dir=cache_dir) as runner:
        yield runner


def test_the_base_installation_brings_four_runtimes():
    assert {"keras", "savedmodel", "litert", "onnxruntime"} <= set(INSTALLED)


def test_names_shapes_and_dtypes_are_the_networks(runner):
    assert {name: (spec.shape, spec.dtype.name) for name, spec in runner.inputs.items()} == {
        "zebra": ((2, 5, 7, 3), "float32"),
        "apple": ((2, 4), "float32"),
    }
    assert list(runner.inputs) == ["zebra", "apple"]
    assert {name: spec.shape for name, spec in runner.outputs.items()} == {
        "flags": (2, 2),
        "map": (2, 3, 5, 4),
        "scores": (2, 3),
    }


def test_answers_are_keras_answers(runner, feed, expected):
    outputs = runner(**feed)
    assert sorted(outputs) == sorted(expected)
    for name, reference in expected.items():
        assert outputs[name].dtype == np.float32
        np.testing.assert_allclose(outputs[name], reference, rtol=0, atol=1e-5, err_msg=name)


def test_the_order_of_arguments_does_not_matter(runner, feed):
    one = runner(zebra=feed["zebra"], apple=feed["apple"])
    other = runner(apple=feed["apple"], zebra=feed["zebra"])
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_outputs_are_the_callers_own(runner, feed):
    first = runner(**feed)
    kept = {name: array.copy() for name, array in first.items()}
    second = runner(zebra=feed["zebra"] + 1, apple=feed["apple"] - 1)
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name])
        assert not np.shares_memory(array, second[name])
        assert not np.array_equal(array, second[name])
        array[...] = 0  # writable, and of no consequence for the runner
    third = runner(**feed)
    for name, array in third.items():
        np.testing.assert_array_equal(array, kept[name])


def test_inputs_are_not_touched_and_may_be_views(runner, feed, expected):
    wide = np.repeat(feed["zebra"], 2, axis=2)
    before = wide.copy()
    outputs = runner(zebra=wide[:, :, ::2], apple=feed["apple"])
    np.testing.assert_array_equal(wide, before)
    np.testing.assert_allclose(outputs["map"], expected["map"], rtol=0, atol=1e-5)


def test_read_only_inputs_are_welcome(runner, feed, expected):
    frozen = feed["zebra"].copy()
    frozen.flags.writeable = False
    outputs = runner(zebra=frozen, apple=feed["apple"])
    np.testing.assert_allclose(outputs["scores"], expected["scores"], rtol=0, atol=1e-5)


def test_wrong_shape_is_told(runner, feed):
    with pytest.raises(
        ValueError, match=r"'zebra' must be float32 \(2, 5, 7, 3\)\. Received: float32 \(2, 7, 5, 3\)\."
    ):
        runner(zebra=feed["zebra"].swapaxes(1, 2), apple=feed["apple"])


def test_wrong_dtype_is_told(runner, feed):
    with pytest.raises(ValueError, match=r"'apple' must be float32 \(2, 4\)\. Received: float64 \(2, 4\)\."):
        runner(zebra=feed["zebra"], apple=feed["apple"].astype(np.float64))


def test_something_else_than_an_array_is_told(runner, feed):
    with pytest.raises(ValueError, match=r"'apple' must be a NumPy array\. Received: list\."):
        runner(zebra=feed["zebra"], apple=feed["apple"].tolist())


@pytest.mark.parametrize("names", [("zebra",), ("zebra", "apple", "pear"), ("zebra", "pear")])
def test_wrong_names_are_told(runner, feed, names):
    arrays = {name: feed.get(name, feed["apple"]) for name in names}
    with pytest.raises(ValueError, match=r"takes the inputs \(zebra: float32 \(2, 5, 7, 3\), apple: .*Received: \["):
        runner(**arrays)


def test_threads_and_name_are_recorded(runner):
    assert runner.name in INSTALLED
    assert runner.threads == default_threads()


def test_calls_from_several_threads_do_not_mix(runner, feed):
    inputs = [{name: array + step for name, array in feed.items()} for step in range(4)]
    alone = [runner(**arrays) for arrays in inputs]
    wrong = []

    def work(arrays, answer):
        for _ in range(20):
            outputs = runner(**arrays)
            if any(not np.array_equal(outputs[name], answer[name]) for name in answer):
                wrong.append(arrays)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, alone, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


@pytest.mark.parametrize("name", INSTALLED)
def test_a_closed_runner_says_so_and_its_outputs_live_on(name, net, feed, expected, cache_dir):
    with compile_model(net, runtime=name, batch=BATCH, cache_dir=cache_dir) as runner:
        outputs = runner(**feed)
    runner.close()
    with pytest.raises(ValueError, match=f"this {name} runner is closed"):
        runner(**feed)
    del runner
    gc.collect()
    np.testing.assert_allclose(outputs["map"], expected["map"], rtol=0, atol=1e-5)
