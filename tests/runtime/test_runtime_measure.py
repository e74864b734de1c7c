"""Probe inputs, agreement and timing, without any runtime."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import pytest

from visionkit.runtime.base import Runner, Signature, TensorSpec
from visionkit.runtime.machine import container_cores, default_threads
from visionkit.runtime.measure import disagreement, jittered, probe_inputs, rounding_noise, time_runners
from visionkit.runtime.quiet import quiet


def spec(name, shape, dtype):
    return TensorSpec(name, shape, np.dtype(dtype))


def test_probes_are_seeded_and_of_the_right_kind():
    signature = Signature(
        (
            spec("a", (2, 3, 5), "float32"),
            spec("b", (400,), "uint8"),
            spec("c", (9,), "int32"),
            spec("d", (9,), "bool"),
        ),
        (),
    )
    one, two, other = probe_inputs(signature), probe_inputs(signature), probe_inputs(signature, seed=1)
    assert {name: (array.shape, array.dtype.name) for name, array in one.items()} == {
        "a": ((2, 3, 5), "float32"),
        "b": ((400,), "uint8"),
        "c": ((9,), "int32"),
        "d": ((9,), "bool"),
    }
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not np.array_equal(one["a"], other["a"])
    assert one["b"].max() > 200 > 50 > one["b"].min()
    assert set(one["c"]) == {0, 1}


def test_agreement_is_relative_to_the_largest_value():
    reference = np.array([[1000.0, -2.0, 0.0]], np.float32)
    assert disagreement({"x": reference}, {"x": reference + 0.09}) is None
    assert "differs by 0.11" in str(disagreement({"x": reference}, {"x": reference + 0.11}))
    small = reference / 1e6  # probabilities of a thousandth must not pass as zeros
    assert disagreement({"x": small}, {"x": np.zeros_like(small)}) is not None
    assert disagreement({"x": reference}, {"x": reference + 9}, "float16") is None


@pytest.mark.parametrize(
    ("received", "words"),
    [
        ({"y": np.zeros((1, 2), np.float32)}, "its outputs are"),
        ({"x": np.zeros((2, 1), np.float32)}, "is float32 (2, 1), not float32 (1, 2)"),
        ({"x": np.zeros((1, 2), np.float64)}, "is float64"),
        ({"x": np.array([[np.nan, 1]], np.float32)}, "not finite where Keras is"),
        ({"x": np.array([[np.inf, 1]], np.float32)}, "not finite where Keras is"),
    ],
)
def test_other_disagreements(received, words):
    assert words in str(disagreement({"x": np.ones((1, 2), np.float32)}, received))


def test_integers_may_differ_at_one_place_in_a_thousand():
    reference = np.zeros((1, 2000), np.int64)
    result = reference.copy()
    result[0, :2] = 1
    assert disagreement({"x": reference}, {"x": result}) is None
    result[0, :3] = 1
    assert "0.15% of its places" in str(disagreement({"x": reference}, {"x": result}))


def test_infinities_at_the_same_places_agree():
    reference = np.array([np.inf, 1.0, np.nan], np.float32)
    assert disagreement({"x": reference}, {"x": reference.copy()}) is None
    assert disagreement({"x": np.zeros((0, 4), np.float32)}, {"x": np.zeros((0, 4), np.float32)}) is None


class Sleeper(Runner):
    """Takes a while."""

    def __init__(self, name, seconds, calls):
        super().__init__(name, Signature((), (spec("x", (), "float32"),)), threads=1)
        self.seconds, self.calls = seconds, calls

    def _run(self, feed):
        self.calls.append(self.name)
        time.sleep(self.seconds(len(self.calls)) if callable(self.seconds) else self.seconds)
        return [np.zeros((), np.float32)]


def test_runners_take_turns_and_the_hopeless_are_dropped():
    calls = []
    runners = {name: Sleeper(name, seconds, calls) for name, seconds in (("a", 0.03), ("b", 0.002), ("c", 0.0021))}
    timings = time_runners(runners, {}, budget_s=0.4)
    assert set(list(timings)[:2]) == {"b", "c"}
    assert list(timings)[2] == "a"
    assert timings["a"] >= 30 > timings["b"] >= 2
    assert calls.count("a") < 10
    turns = [name for name, before in zip(calls[1:], calls, strict=False) if name != before and name != "a"]
    assert len(turns) > 6


def test_one_slow_moment_does_not_decide():
    calls = []
    slow_start = Sleeper("quick", lambda count: 0.08 if count < 4 else 0.001, calls)
    timings = time_runners({"quick": slow_start, "steady": Sleeper("steady", 0.01, [])}, {}, budget_s=0.3)
    assert next(iter(timings)) == "quick"


def test_threads_are_those_the_process_may_use(monkeypatch, tmp_path):
    monkeypatch.setattr("visionkit.runtime.machine.container_cores", lambda: 1000)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 4, 5}, raising=False)
    assert default_threads() == 3
    monkeypatch.setattr("visionkit.runtime.machine.container_cores", lambda: 2)
    assert default_threads() == 2
    quota = tmp_path / "cpu.max"
    for text, cores in (("150000 100000\n", 2), ("400000 100000\n", 4)):
        quota.write_text(text)
        assert container_cores(quota) == cores
    quota.write_text("max 100000\n")
    assert container_cores(quota) > 4096


def test_quiet_keeps_native_noise_off_and_puts_everything_back(capfd, recwarn):
    import logging
    import warnings

    before = logging.getLogger("absl").level
    with quiet():
        os.write(2, b"native noise\n")
        print("python noise", file=sys.__stderr__, flush=True)
        warnings.warn("old", FutureWarning, stacklevel=1)
        logging.getLogger("absl").error("chatter")
        os.write(1, b"results\n")
    os.write(2, b"after\n")
    out, err = capfd.readouterr()
    assert (out, err) == ("results\n", "after\n")
    assert not recwarn.list
    assert logging.getLogger("absl").level == before


def test_quiet_lets_exceptions_through_and_nests(capfd):
    def fail():
        os.write(2, b"noise\n")
        raise KeyError("x")

    with pytest.raises(KeyError), quiet(), quiet():
        fail()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def steep(x: np.ndarray) -> dict[str, np.ndarray]:
    """A network that makes much of rounding: what is left of a sum less itself, by a hundred thousand."""
    total = x.sum(axis=1, keepdims=True, dtype=np.float32)
    return {"y": np.tanh((total - np.float32(total.mean())) * np.float32(1e-2)), "z": x * np.float32(3)}


def test_inputs_are_jittered_in_the_last_place():
    probe = {"x": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32), "n": np.array([1, 2])}
    first, *others = jittered(probe)
    assert (first["x"] != probe["x"]).all()
    np.testing.assert_array_equal(np.abs(first["x"] - probe["x"]), np.spacing(np.abs(probe["x"])))
    np.testing.assert_array_equal(first["n"], probe["n"])
    assert any((other["x"] != first["x"]).any() for other in others)


def test_rounding_is_forgiven_as_far_as_the_network_makes_much_of_it():
    x = np.random.default_rng(1).standard_normal((1, 2000)).astype(np.float32) * 1e6
    probe = {"x": np.concatenate([x, x[:, ::-1]])}  # the same sum in another order
    expected = steep(**probe)
    noise = rounding_noise(expected, [steep(**inputs) for inputs in jittered(probe)])
    assert noise["y"] > 1e-3 * np.abs(expected["y"]).max()
    assert noise["z"] <= 6 * np.spacing(np.abs(probe["x"]).max())
    received = {**expected, "y": expected["y"] + np.float32(0.9 * noise["y"])}
    assert disagreement(expected, received) is not None
    assert disagreement(expected, received, noise=noise) is None
    wrong = {**expected, "z": expected["z"] * np.float32(1.01)}  # where nothing grows, nothing is forgiven
    assert "'z' differs" in str(disagreement(expected, wrong, noise=noise))
    assert disagreement(expected, {**expected, "y": expected["y"] + 20 * noise["y"]}, noise=noise) is not None
