"""Checkpoints of PyTorch read without it: every element type, sharing, views, containers; damage is told."""

from __future__ import annotations

import contextlib
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from tests.weights.measured import measure
from tests.weights.torch_files import (
    Opcodes,
    Storages,
    Tensor,
    pickle_state,
    write_checkpoint,
    write_legacy,
    write_members,
)
from visionkit.errors import ModelError
from visionkit.weights import read_checkpoint

WRITERS = pytest.mark.parametrize("write", [write_checkpoint, write_legacy])
RS = np.random.RandomState(3)
STATE = {
    "conv.weight": RS.standard_normal((5, 3, 2, 4)).astype(np.float32),
    "conv.bias": RS.standard_normal(5).astype(np.float32),
    "bn.num_batches_tracked": np.array(7, np.int64),
    "mask": np.array([[True, False, True]]),
    "empty": np.zeros((0, 4), np.float32),
    **{
        kind: RS.randint(0, 100, (2, 3)).astype(kind)
        for kind in ("float64", "float16", "int32", "int16", "int8", "uint8")
    },
}


@WRITERS
def test_every_type_of_element(tmp_path, write):
    read = read_checkpoint(write(tmp_path / "net.pth", STATE))
    assert list(read) == list(STATE)
    for name, array in STATE.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(read[name], array)


@WRITERS
def test_brain_floats_become_floats(tmp_path, write):
    # 0x3f80 is the upper half of 1.0, 0xc020 of -2.5, 0x7f80 of infinity
    half = Tensor(np.array([0x3F80, 0xC020, 0x7F80], np.uint16), 0, (3,), (1,), dtype="bfloat16")
    (read,) = read_checkpoint(write(tmp_path / "net.pth", {"w": half})).values()
    assert read.dtype == np.float32
    assert read.tolist() == [1.0, -2.5, np.inf]


@WRITERS
def test_tensors_that_share_and_skip(tmp_path, write):
    shared = np.arange(24, dtype=np.float32)
    state = {
        "head": Tensor(shared, 0, (2, 3), (3, 1)),
        "tail": Tensor(shared, 6, (3, 4), (1, 4), parameter=True),  # offset 6, transposed
        "every other": Tensor(shared, 1, (12,), (2,)),
        "tied": Tensor(shared, 0, (24,), (1,)),
        "turned": RS.standard_normal((3, 7)).T,
    }
    read = read_checkpoint(write(tmp_path / "net.pth", state))
    assert read["head"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read["tail"].tolist() == [[6, 10, 14, 18], [7, 11, 15, 19], [8, 12, 16, 20]]
    assert read["every other"].tolist() == list(range(1, 24, 2))
    assert read["tied"].tolist() == shared.tolist()
    np.testing.assert_array_equal(read["turned"], state["turned"])


@WRITERS
@pytest.mark.parametrize("inside", [("state_dict",), ("model",), ("model_state_dict",), ("model", "state_dict")])
def test_a_state_dict_inside_a_training_checkpoint(tmp_path, write, inside):
    read = read_checkpoint(write(tmp_path / "net.pth", STATE, inside=inside[::-1]))
    assert list(read) == list(STATE)


@WRITERS
def test_names_saved_from_inside_a_wrapper(tmp_path, write):
    state = {f"module.{name}": array for name, array in STATE.items()}
    assert list(read_checkpoint(write(tmp_path / "net.pth", state))) == list(STATE)
    mixed = {"module.a": STATE["conv.bias"], "b": STATE["conv.bias"]}
    assert list(read_checkpoint(write(tmp_path / "net.pth", mixed))) == list(mixed)


def test_arrays_are_views_of_the_file(tmp_path):
    path = write_checkpoint(tmp_path / "net.pth", {"w": np.zeros((1000, 60_000), np.float32)})  # 240 MB
    outcome = measure(
        "from visionkit.weights import read_checkpoint",
        "w = read_checkpoint(sys.argv[1])['w']; assert w.shape == (1000, 60000) and not w.flags.writeable; "
        "import pathlib; smaps = pathlib.Path('/proc/self/status').read_text(); "
        "anonymous = next(int(line.split()[1]) for line in smaps.splitlines() if line.startswith('RssAnon')); "
        "assert anonymous < 100_000, anonymous",
        path,
        cwd=tmp_path,
    )
    assert outcome.slug == "", outcome


def test_a_file_of_a_machine_with_the_other_byte_order(tmp_path):
    storages = Storages()
    data = pickle_state({"w": np.array([1.0, -2.0], np.float32)}, storages)
    write_members(
        tmp_path / "net.pth", {"data.pkl": data, "byteorder": b"big", "data/0": struct.pack(">2f", 1.0, -2.0)}
    )
    read = read_checkpoint(tmp_path / "net.pth")["w"]
    assert read.tolist() == [1.0, -2.0]
    assert read.dtype.isnative
    write_members(tmp_path / "net.pth", {"data.pkl": data, "byteorder": b"middle", "data/0": bytes(8)})
    with pytest.raises(ModelError, match="its byte order is 'middle'"):
        read_checkpoint(tmp_path / "net.pth")


def test_what_python_2_wrote(tmp_path):
    """Strings of bytes, and an OrderedDict made of a list of pairs, as PyTorch 0.1 wrote them."""
    codes = Opcodes().name("collections", "OrderedDict").raw(b"(]]U\x01wa").name("torch._utils", "_rebuild_tensor")
    codes.raw(b"((U\x07storage").name("torch", "FloatStorage").raw(b"U\x0294U\x03cpu").value(2).raw(b"NtQ")
    codes.value(0).value((2,)).value((1,)).raw(b"tRaatR")
    facts = pickle.dumps({"little_endian": True}, 2)
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + facts
    keys = b"\x80\x02]U\x0294a."
    path = tmp_path / "net.pth"
    path.write_bytes(head + codes.end() + keys + struct.pack("<q2f", 2, 0.5, -3.0))
    assert read_checkpoint(path)["w"].tolist() == [0.5, -3.0]


@WRITERS
def test_a_file_that_ends_early(tmp_path, write):
    path = write(tmp_path / "net.pth", STATE)
    raw = path.read_bytes()
    for number in range(20):
        path.write_bytes(raw[: len(raw) * number // 20])
        with pytest.raises(ModelError) as caught:
            read_checkpoint(path)
        assert caught.value.slug == "model-corrupt"
        assert str(path) in caught.value.message


def test_one_byte_changed(tmp_path):
    path = write_checkpoint(tmp_path / "net.pth", STATE)
    raw = bytearray(path.read_bytes())
    raw[raw.index(STATE["conv.weight"].tobytes()) + 5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ModelError, match=r"'net/data/0' does not have its checksum \(CRC-32\)") as caught:
        read_checkpoint(path)
    assert caught.value.slug == "model-corrupt"


@WRITERS
def test_bytes_changed_anywhere_never_crash(tmp_path, write):
    """400 seeded mutations: read, or refused as a `ModelError`."""
    path = write(tmp_path / "net.pth", STATE)
    raw = path.read_bytes()
    rs = np.random.RandomState(1)
    read = 0
    for _ in range(400):
        changed = bytearray(raw)
        for position in rs.randint(0, len(raw), 3):
            changed[position] = rs.randint(256)
        path.write_bytes(changed)
        with contextlib.suppress(ModelError):
            read_checkpoint(path)
            read += 1
    assert 0 < read < 300


def tar_of(path):
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("storages"))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "an empty file (0 bytes)"),
        (b"<!DOCTYPE html><html>404", "a web page (24 bytes)"),
        (b"not weights\n", "text (12 bytes)"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file (108 bytes)"),
        (b"\x1f\x8b" + bytes(20), "a gzip file"),
        (pickle.dumps({"a": 1}, 2), "a pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (bytes(4) + b"TFL3" + bytes(9), "a TFLite model"),
        (struct.pack("<Q", 9) + b'{"a":{}}  ', "a safetensors file"),
        (None, "a tar archive"),
    ],
)
def test_what_is_no_checkpoint_is_told_what_it_is(tmp_path, content, kind):
    path = tmp_path / "net.pth"
    path.write_bytes(content) if content is not None else tar_of(path)
    with pytest.raises(ModelError) as caught:
        read_checkpoint(path)
    assert caught.value.slug == "model-corrupt"
    assert f"is no PyTorch checkpoint but {kind}" in caught.value.message


def test_other_zip_archives(tmp_path):
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(ModelError, match=r"without one `data\.pkl`"):
        read_checkpoint(path)
    write_members(path, {"data.pkl": b"\x80\x02}.", "constants.pkl": b"\x80\x02)."})
    with pytest.raises(ModelError, match="TorchScript program") as caught:
        read_checkpoint(path)
    assert caught.value.slug == "model-unsafe"


def test_what_holds_no_tensors(tmp_path):
    path = tmp_path / "net.pth"
    for value, words in (({}, "a dict without tensors"), ([1], "a list"), ({"epoch": 3}, "3 under 'epoch'")):
        write_members(path, {"data.pkl": pickle.dumps(value, 2)})
        with pytest.raises(ModelError, match=words) as caught:
            read_checkpoint(path)
        assert caught.value.slug == "model-corrupt"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelError, match="there is no such file") as caught:
        read_checkpoint(tmp_path / "none.pth")
    assert caught.value.slug == "weights-missing"
    with pytest.raises(ModelError, match="it is not a regular file"):
        read_checkpoint(tmp_path)
