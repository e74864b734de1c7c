"""What is remembered between starts, and that nothing wrong with it is ever an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.nets import BATCH, make_net
from visionkit.runtime import compile_cached, compile_model, model_digest
from visionkit.runtime.cache import cache_root


class Builder:
    """Counts how often the network is built."""

    def __init__(self, net):
        self.net, self.calls = net, 0

    def __call__(self):
        self.calls += 1
        return self.net


def compile_litert(builder, cache_dir, digest="one", **options):
    return compile_cached(digest, builder, **{"runtime": "litert", "batch": BATCH, "cache_dir": cache_dir, **options})


def test_a_known_digest_is_not_built_again(net, feed, expected, tmp_path):
    builder = Builder(net)
    first = compile_cached("one", builder, batch=BATCH, cache_dir=tmp_path)
    second = compile_cached("one", builder, batch=BATCH, cache_dir=tmp_path)
    assert builder.calls == 1
    assert (second.name, second.timings, second.rejected) == (first.name, first.timings, first.rejected)
    assert second.inputs == first.inputs
    assert second.outputs == first.outputs
    np.testing.assert_allclose(second(**feed)["map"], expected["map"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "change", [{"digest": "two"}, {"batch": 3}, {"threads": 1}, {"runtime": "onnxruntime"}, {"precision": "float16"}]
)
def test_whatever_the_choice_depends_on_is_part_of_its_name(net, tmp_path, change):
    builder = Builder(net)
    compile_litert(builder, tmp_path, threads=2)
    compile_litert(builder, tmp_path, **{"threads": 2, **change})
    assert builder.calls == 2


@pytest.mark.parametrize("where", ["machine.fingerprint", "machine.versions"])
def test_another_machine_or_version_measures_again(net, tmp_path, monkeypatch, where):
    builder = Builder(net)
    compile_litert(builder, tmp_path)
    monkeypatch.setattr(f"visionkit.runtime.compiling.{where.split('.')[1]}", lambda: {"visionkit": "0.0.0"})
    compile_litert(builder, tmp_path)
    assert builder.calls == 2


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGES = {
    "artifact flipped": lambda folder: [flip(path) for path in folder.glob("*.tflite")],
    "artifact cut": lambda folder: [os.truncate(path, 100) for path in folder.glob("*.tflite")],
    "artifact gone": lambda folder: [path.unlink() for path in folder.glob("*.tflite")],
    "entry cut": lambda folder: [os.truncate(path, 40) for path in folder.glob("*.json")],
    "entry empty": lambda folder: [os.truncate(path, 0) for path in folder.glob("*.json")],
    "entry is a list": lambda folder: [path.write_text("[1]") for path in folder.glob("*.json")],
    "entry not text": lambda folder: [path.write_bytes(b"\xff\xfe\0") for path in folder.glob("*.json")],
    "unknown runtime": lambda folder: [rewrite(path, runtime="abacus") for path in folder.glob("*.json")],
    "artifact of no runtime": lambda folder: [rewrite(path, runtime="onnxruntime") for path in folder.glob("*.json")],
    "signature gone": lambda folder: [rewrite(path, signature=None) for path in folder.glob("*.json")],
    "other facts": lambda folder: [rewrite(path, facts={}) for path in folder.glob("*.json")],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_made_again(net, feed, expected, tmp_path, damage):
    builder = Builder(net)
    compile_litert(builder, tmp_path)
    DAMAGES[damage](tmp_path / "runtime")
    with compile_litert(builder, tmp_path) as runner:
        np.testing.assert_allclose(runner(**feed)["map"], expected["map"], rtol=0, atol=1e-5)
    assert builder.calls == 2
    compile_litert(builder, tmp_path)
    assert builder.calls == 2, "the entry was not repaired"


def test_a_file_in_the_folders_place_does_no_harm(net, feed, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("not a folder")
    builder = Builder(net)
    for _ in range(2):
        assert compile_litert(builder, blocked)(**feed)
    assert builder.calls == 2
    assert blocked.read_text() == "not a folder"


def test_a_read_only_folder_does_no_harm(net, feed, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert compile_litert(Builder(net), tmp_path / "locked")(**feed)


def test_no_half_written_file_stays_behind(net, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        compile_litert(Builder(net), tmp_path)
    assert not list((tmp_path / "runtime").iterdir())


def test_the_folder_is_found_by_its_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("VISIONKIT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_root() == tmp_path / "home" / ".cache" / "visionkit"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "visionkit"
    monkeypatch.setenv("VISIONKIT_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    assert cache_root(tmp_path / "given") == tmp_path / "given"


def test_equal_networks_share_a_digest_and_others_do_not(net):
    twin, other = make_net(), make_net(seed=4)
    assert model_digest(twin) == model_digest(net)
    assert model_digest(other) != model_digest(net)
    assert model_digest(other, weights_digest="w") == model_digest(net, weights_digest="w")
    assert model_digest(net, weights_digest="v") != model_digest(net, weights_digest="w")


def test_compile_model_recognises_an_equal_network(net, tmp_path):
    compile_model(net, runtime="litert", batch=BATCH, cache_dir=tmp_path)
    entries = sorted((tmp_path / "runtime").iterdir())
    stamps = [path.stat().st_mtime_ns for path in entries]
    compile_model(make_net(), runtime="litert", batch=BATCH, cache_dir=tmp_path)
    assert sorted((tmp_path / "runtime").iterdir()) == entries
    assert [path.stat().st_mtime_ns for path in entries] == stamps


def test_the_second_start_imports_no_tensorflow(net, tmp_path, child_environment):
    compile_litert(Builder(net), tmp_path)
    code = f"""
import sys
from visionkit.runtime import compile_cached
def build():
    raise SystemExit("built again")
runner = compile_cached("one", build, runtime="litert", batch={BATCH}, cache_dir={str(tmp_path)!r})
loaded = {{"tensorflow", "keras", "onnxruntime", "openvino"}} & set(sys.modules)
print(runner.name, sorted(loaded))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=child_environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("litert []\n", "", 0)
