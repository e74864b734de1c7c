"""`auto`: what it leaves out, what it picks, what it reports."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tests.runtime.nets import BATCH
from visionkit.errors import ModelError, UsageError
from visionkit.runtime import available_runtimes, compile_model
from visionkit.runtime.adaptors import Adaptor
from visionkit.runtime.litert import open_litert
from visionkit.runtime.machine import default_threads


class Fake:
    """An opener of LiteRT whose runners may sleep, lie or fail."""

    def __init__(self, name, *, sleep_s=0.0, bias=0.0, error=None):
        self.name, self.sleep_s, self.bias, self.error = name, sleep_s, bias, error
        self.opened = []

    def __call__(self, content, signature=None, *, threads, precision="file"):
        if self.error == "open":
            raise OSError("no such instruction")
        runner = open_litert(content, signature, threads=threads, precision=precision)
        runner.name, run = self.name, runner._run

        def changed(feed):
            if self.error == "run":
                raise MemoryError("out of registers")
            time.sleep(self.sleep_s)
            return [array + self.bias for array in run(feed)]

        runner._run = changed
        self.opened.append(runner)
        return runner

    def adaptor(self):
        return Adaptor(self.name, ".tflite", self, ())


def test_a_runtime_that_disagrees_is_left_out_with_its_reason(net, feed, only_adaptors, tmp_path):
    liar = Fake("liar", bias=0.01)
    only_adaptors("keras", liar.adaptor())
    with compile_model(net, batch=BATCH, cache_dir=tmp_path) as runner:
        assert runner.name == "keras"
        assert "differs by 0.01" in runner.rejected["liar"]
        assert "liar" not in runner.timings
    with pytest.raises(ValueError, match="liar runner is closed"):
        liar.opened[0](**feed)


@pytest.mark.parametrize("when", ["open", "run"])
def test_a_runtime_that_fails_is_left_out_with_its_reason(net, only_adaptors, tmp_path, when):
    only_adaptors("keras", "litert", Fake("broken", error=when).adaptor())
    with compile_model(net, batch=BATCH, cache_dir=tmp_path) as runner:
        assert runner.name == "litert"
        wanted = {"open": "OSError: no such instruction", "run": "MemoryError: out of registers"}
        assert runner.rejected == {"broken": wanted[when]}


def test_a_slower_runtime_is_not_chosen(net, feed, only_adaptors, tmp_path):
    slow, quick = Fake("slow", sleep_s=0.02), Fake("quick")
    only_adaptors(slow.adaptor(), quick.adaptor())
    with compile_model(net, batch=BATCH, cache_dir=tmp_path) as runner:
        assert runner.name == "quick"
        assert list(runner.timings) == ["quick", "slow"]
        assert runner.timings["slow"] > 20 > runner.timings["quick"]
        assert runner(**feed)
    with pytest.raises(ValueError, match="slow runner is closed"):
        slow.opened[0](**feed)


def test_the_reported_times_cover_every_runtime_that_ran(net, tmp_path):
    usable = {name for name, absence in available_runtimes().items() if absence is None}
    with compile_model(net, batch=BATCH, cache_dir=tmp_path) as runner:
        assert set(runner.timings) == usable
        assert set(runner.rejected) == set(available_runtimes()) - usable
        assert runner.timings[runner.name] == min(runner.timings.values())


def test_a_runtime_asked_for_by_name_must_agree(net, only_adaptors, tmp_path):
    only_adaptors("keras", Fake("liar", bias=1.0).adaptor(), Fake("broken", error="run").adaptor())
    for name, slug in (("liar", "runtime-disagrees"), ("broken", "model-failed")):
        with pytest.raises(ModelError) as caught:
            compile_model(net, runtime=name, batch=BATCH, cache_dir=tmp_path)
        assert caught.value.slug == slug
        assert name in caught.value.message


def test_no_runtime_left_says_why(net, only_adaptors, tmp_path):
    broken = Fake("broken", error="open").adaptor()
    for others, words in (
        ([Fake("liar", bias=1.0).adaptor()], "liar: output 'flags' differs"),
        ([], "no runtime runs"),
    ):
        only_adaptors(broken, *others)
        with pytest.raises(ModelError, match=words) as caught:
            compile_model(net, batch=BATCH, cache_dir=tmp_path)
        assert caught.value.slug == "no-runtime"
        assert "broken: OSError: no such instruction" in caught.value.message


def test_on_a_gpu_the_keras_backend_runs_unmeasured(net, feed, monkeypatch, tmp_path):
    monkeypatch.setattr("visionkit.runtime.choose.on_gpu", lambda: True)
    with compile_model(net, batch=BATCH, cache_dir=tmp_path) as runner:
        assert (runner.name, runner.timings) == ("keras", None)
        assert runner(**feed)


def test_a_runtime_that_is_not_installed_is_named_with_its_remedy(net, only_adaptors, tmp_path):
    absent = Adaptor("absent", ".tflite", None, ("no_such_module",), remedy="pip install absent")
    only_adaptors("keras", absent)
    with compile_model(net, batch=BATCH, cache_dir=tmp_path) as runner:
        assert runner.rejected == {"absent": "not installed (no_such_module): pip install absent"}
    with pytest.raises(UsageError, match="pip install absent") as caught:
        compile_model(net, runtime="absent", batch=BATCH, cache_dir=tmp_path)
    assert caught.value.slug == "runtime-missing"


@pytest.mark.parametrize(
    ("options", "slug"),
    [
        ({"runtime": "tensorrt"}, "runtime-unknown"),
        ({"precision": "int8"}, "precision-unknown"),
        ({"runtime": "onnxruntime", "precision": "bfloat16"}, "runtime-precision"),
    ],
)
def test_impossible_options_are_refused_before_anything_is_built(options, slug):
    with pytest.raises(UsageError) as caught:
        compile_model(None, **options)
    assert caught.value.slug == slug


@pytest.mark.parametrize("options", [{"threads": 0}, {"batch": 0}, {"batch": 1.5}])
def test_counts_must_be_positive_integers(options):
    with pytest.raises(ValueError, match=r"must be a positive integer\. Received: "):
        compile_model(None, **options)


def test_reduced_precision_stays_within_its_step(net, feed, expected, tmp_path):
    with compile_model(net, runtime="litert", precision="float16", batch=BATCH, cache_dir=tmp_path) as runner:
        outputs = runner(**feed)
        assert runner.precision == "float16"
    # Weights are rounded to 11 bits; the deepest output sums 8 products of such, none of them above 8.
    for name, reference in expected.items():
        error = np.abs(outputs[name] - reference).max()
        assert 0 < error < 36 * 8 * 2.0**-11 * np.abs(reference).max()


def test_a_probe_of_the_callers_is_used(net, feed, tmp_path):
    zeros = {name: np.zeros_like(array) for name, array in feed.items()}
    with compile_model(net, runtime="litert", batch=BATCH, cache_dir=tmp_path, probe=zeros) as runner:
        assert runner(**zeros)
    with pytest.raises(ValueError, match="takes the inputs"):
        compile_model(net, runtime="litert", batch=BATCH, cache_dir=tmp_path / "2", probe={"zebra": feed["zebra"]})


def test_an_open_size_is_refused(tmp_path):
    from visionkit.runtime.quiet import import_keras

    keras = import_keras()
    image = keras.Input((None, 7, 3), name="image")
    model = keras.Model(image, keras.layers.Conv2D(2, 3)(image))
    with pytest.raises(ModelError, match=r"'image' is \(None, None, 7, 3\); every size but the batch must be fixed"):
        compile_model(model, cache_dir=tmp_path)


def test_a_sequential_and_a_list_of_like_named_outputs(tmp_path):
    from visionkit.runtime.quiet import import_keras

    keras = import_keras()
    chain = keras.Sequential([keras.Input((3, 5, 2), name="image"), keras.layers.Conv2D(4, 1, name="last")])
    x = np.random.default_rng(0).standard_normal((1, 3, 5, 2)).astype(np.float32)
    with compile_model(chain, runtime="litert", cache_dir=tmp_path) as runner:
        np.testing.assert_allclose(runner(image=x)["last"], np.array(chain(x)), rtol=0, atol=1e-5)
    image = keras.Input((3, 5, 2), name="image")
    shared = keras.layers.Conv2D(2, 1, name="head")
    twice = keras.Model(image, [shared(image), shared(shared(image))])
    with compile_model(twice, runtime="onnxruntime", cache_dir=tmp_path) as runner:
        outputs = runner(image=x)
    assert list(outputs) == ["head", "head_1"]
    for array, reference in zip(outputs.values(), twice(x), strict=True):
        np.testing.assert_allclose(array, np.array(reference), rtol=0, atol=1e-5)


def test_a_runtime_that_takes_more_threads_than_given_does_not_win(net, tmp_path):
    if default_threads() < 2:
        pytest.skip("needs two cores: on one, no runtime can take more than it is given")
    with compile_model(net, threads=1, batch=BATCH, cache_dir=tmp_path) as runner:
        assert runner.threads == 1
        assert runner.rejected.keys() >= {"keras", "savedmodel"}
        assert "threads" in runner.rejected["savedmodel"]


def test_it_runs_where_nothing_else_does(net, only_adaptors, tmp_path):
    only_adaptors("keras")
    with compile_model(net, threads=1, batch=BATCH, cache_dir=tmp_path) as runner:
        assert runner.name == "keras"
