"""Probes that follow from an image's levels lie in an artifact as a table, and come out as they went in."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from visionkit.tasks.input_rule import InputRule
from visionkit.weights.artifact_npz import ProbesError, pack_probes, unpack_probes

LIMIT = 1 << 20


def image(height: int = 40, width: int = 56, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def names(raw: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return archive.namelist()


@pytest.mark.parametrize("preset", ["torch", "tf", "caffe"])
def test_a_networks_input_is_a_table(preset):
    shown = image()
    rule = InputRule.preset(preset, (40, 56))
    inputs = rule(np.ascontiguousarray(shown[..., ::-1]))[None]
    probes = {"image_0": shown, "raw/raw/image/0": inputs, "raw/raw/logits/0": np.ones((1, 5), np.float32)}
    raw = pack_probes(probes)
    if preset == "caffe":  # BGR: no function of the same channel
        assert names(raw) == ["image_0.npy", "raw/raw/image/0.npy", "raw/raw/logits/0.npy"]
    else:
        assert names(raw) == ["image_0.npy", "raw/raw/image/0@image_0.npy", "raw/raw/logits/0.npy"]
        assert len(raw) < shown.nbytes + 6000
    found = unpack_probes(raw, LIMIT)
    assert found.keys() == probes.keys()
    for name, array in probes.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


def test_what_differs_in_one_value_is_stored_whole():
    shown = image()
    inputs = shown[None].astype(np.float32)
    inputs[0, 3, 4, 1] += 0.25
    raw = pack_probes({"image_0": shown, "a": inputs, "b": shown[None].astype(np.float32)})
    assert names(raw) == ["a.npy", "b@image_0.npy", "image_0.npy"]
    assert np.array_equal(unpack_probes(raw, LIMIT)["a"], inputs)


def test_a_small_image_is_no_gain():
    shown = image(4, 5)
    assert names(pack_probes({"image_0": shown, "a": shown[None].astype(np.float32)})) == ["a.npy", "image_0.npy"]


def test_names_leave_the_mark_alone():
    with pytest.raises(ValueError, match="have no '@'"):
        pack_probes({"a@b": np.zeros(3)})


def packed(**arrays: np.ndarray) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, array in arrays.items():
            one = io.BytesIO()
            np.save(one, array)
            archive.writestr(f"{name}.npy", one.getvalue())
    return whole.getvalue()


TABLE = np.zeros((256, 3), np.float32)
HOSTILE = {
    "of no image": {"a@image_1": TABLE},
    "of itself": {"a@a@image_0": TABLE},
    "too short": {"a@image_0": TABLE[:255]},
    "of other channels": {"a@image_0": np.zeros((256, 4), np.float32)},
    "of bytes": {"a@image_0": np.zeros((256, 3), np.uint8)},
    "twice": {"a": TABLE, "a@image_0": TABLE},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_damaged_table_is_refused(name):
    with pytest.raises(ProbesError):
        unpack_probes(packed(image_0=image(), **HOSTILE[name]), LIMIT)


def test_tables_do_not_grow_beyond_the_limit():
    many = {f"a{k}@image_0": TABLE for k in range(100)}
    with pytest.raises(ProbesError, match="more than 1 MiB"):
        unpack_probes(packed(image_0=image(), **many), LIMIT)
