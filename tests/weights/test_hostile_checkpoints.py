"""Hostile checkpoints: refused by name, in under 2 s and 300 MiB, without a side effect."""

from __future__ import annotations

import pickle
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.weights.measured import Outcome, measure
from tests.weights.torch_files import (
    Opcodes,
    Storages,
    Tensor,
    pickle_state,
    write_checkpoint,
    write_legacy,
    write_members,
)

STATE = {"conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), "conv.bias": np.zeros(2, np.float32)}
CANARY = "canary"


def read(path: Path) -> Outcome:
    """`read_checkpoint(path)` in a process of its own, in the file's folder."""
    outcome = measure(
        "from visionkit.weights import read_checkpoint", "read_checkpoint(sys.argv[1])", path, cwd=path.parent
    )
    assert not (path.parent / CANARY).exists(), "code of the checkpoint ran"
    return outcome


def zip_of(path: Path, data: bytes, **storages: bytes) -> Path:
    members = {"data.pkl": data, "byteorder": b"little"} | {f"data/{key[1:]}": raw for key, raw in storages.items()}
    write_members(path, members)
    return path


def global_of(protocol: str, module: str, name: str, argument: str) -> bytes:
    """A pickle that calls `module.name(argument)`, in each of the ways a pickle can."""
    if protocol == "GLOBAL":
        return Opcodes().name(module, name).value((argument,)).raw(b"R").end()
    if protocol == "STACK_GLOBAL":
        return Opcodes().value(module).value(name).raw(b"\x93").value((argument,)).raw(b"R").end()
    if protocol == "INST":
        return Opcodes().raw(b"(").value(argument).raw(f"i{module}\n{name}\n".encode()).end()
    if protocol == "OBJ":
        return Opcodes().raw(b"(").name(module, name).value(argument).raw(b"o").end()
    return Opcodes().name(module, name).value((argument,)).raw(b"\x81").end()


CALLS = [
    ("GLOBAL", "os", "system", f"touch {CANARY}"),
    ("GLOBAL", "posix", "system", f"touch {CANARY}"),
    ("STACK_GLOBAL", "builtins", "exec", f"open('{CANARY}', 'w')"),
    ("INST", "subprocess", "getoutput", f"touch {CANARY}"),
    ("OBJ", "builtins", "eval", f"open('{CANARY}', 'w')"),
    ("NEWOBJ", "pathlib", "Path.touch", CANARY),
    ("STACK_GLOBAL", "torch", "serialization.load", CANARY),
    ("GLOBAL", "torch.hub", "load", CANARY),
    ("GLOBAL", "numpy", "load", CANARY),
    ("GLOBAL", "torch.storage", "_load_from_bytes", CANARY),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]}-{call[1]}.{call[2]}")
def test_a_global_that_runs_code(tmp_path, call):
    read(zip_of(tmp_path / "a.pth", global_of(*call))).check("model-unsafe", "a.pth", f"{call[1]}.{call[2]}")


@pytest.mark.parametrize("position", range(5))
def test_a_global_in_each_pickle_of_the_older_format(tmp_path, position):
    facts = {"protocol_version": 1001, "little_endian": True}
    parts = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, facts)]
    parts += [pickle_state(STATE, Storages(), legacy=True), pickle.dumps(["0", "1"], 2)]
    call = global_of("GLOBAL", "os", "system", f"touch {CANARY}")
    parts[position] = call if position else parts[0] + call
    path = tmp_path / "a.pth"
    path.write_bytes(b"".join(parts))
    read(path).check("model-unsafe", "os.system")


def test_pickles_of_whole_programs_do_run_in_python(tmp_path, monkeypatch):
    """The control: what is refused above does run where it is unpickled."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(global_of(*CALLS[0]))  # noqa: S301 - that it is unsafe is the point
    assert (tmp_path / CANARY).exists()


def tensor_pickle(count: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    codes = Opcodes().ordered_dict().raw(b"(").value("w").name("torch._utils", "_rebuild_tensor_v2").raw(b"((")
    codes.value("storage").name("torch", "FloatStorage").value("0").value("cpu").value(count).raw(b"tQ")
    return codes.value(offset).value(size).value(stride).value(False).ordered_dict().raw(b"tRu").end()


HUGE = 10**12


@pytest.mark.parametrize(
    ("data", "slug", "words"),
    [
        (
            tensor_pickle(HUGE, (HUGE,), (1,)),
            "model-corrupt",
            ("storage '0'", f"claims {4 * HUGE} bytes", "has 16 bytes"),
        ),
        (tensor_pickle(2, (2,), (1,)), "model-corrupt", ("claims 8 bytes", "has 16 bytes")),
        (tensor_pickle(-4, (4,), (1,)), "model-corrupt", ("no key and count",)),
        (tensor_pickle(4, (5,), (1,)), "model-corrupt", ("'w'", "(5)", "does not lie inside its storage of 4")),
        (tensor_pickle(4, (2,), (1,), offset=3), "model-corrupt", ("offset 3",)),
        (tensor_pickle(4, (2,), (1,), offset=-1), "model-corrupt", ("offset -1",)),
        (tensor_pickle(4, (4,), (-1,), offset=3), "model-corrupt", ("stride (-1)",)),
        (tensor_pickle(4, (2, 2), (1,)), "model-corrupt", ("stride (1)",)),
        (tensor_pickle(4, (-2, -2), (1, 1)), "model-corrupt", ("size (-2, -2)",)),
        (tensor_pickle(4, (10**9,), (0,)), "model-unsafe", ("1000000000 elements is made of 4 by repetition",)),
        (tensor_pickle(4, (10**5,) * 30, (0,) * 30), "model-unsafe", ("by repetition",)),
        (tensor_pickle(4, (1,) * 33, (1,) * 33), "model-corrupt", ("at most 32 numbers",)),
        (tensor_pickle(4, (2**80,), (1,)), "model-corrupt", ("no integer of 64 bits",)),
    ],
)
def test_a_tensor_or_storage_that_lies(tmp_path, data, slug, words):
    read(zip_of(tmp_path / "a.pth", data, _0=bytes(16))).check(slug, "a.pth", *words)


def test_one_storage_under_a_thousand_tensors(tmp_path):
    shared = np.zeros(1 << 20, np.float32)
    state = {str(number): Tensor(shared, 0, (1 << 20,), (1,)) for number in range(1000)}
    for write in (write_checkpoint, write_legacy):
        read(write(tmp_path / "a.pth", state)).check("model-unsafe", "the same bytes many times")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "..\\x", "C:x", "a/data/0\0b"])
def test_a_member_that_leaves_the_archive(tmp_path, name):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    path = write_checkpoint(tmp_path / "deep" / "er" / "a.pth", STATE)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        archive.writestr(info, b"x")
    read(path).check("model-unsafe", "leaves the archive")
    assert {item.name for item in tmp_path.rglob("*")} == {"deep", "er", "a.pth"}


def test_a_member_that_is_a_symbolic_link(tmp_path):
    path = write_checkpoint(tmp_path / "a.pth", STATE)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("a/data/9")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, b"/etc/passwd")
    read(path).check("model-unsafe", "'a/data/9'", "symbolic link")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name(tmp_path):
    path = write_checkpoint(tmp_path / "a.pth", STATE)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a/data/0", b"x" * 96)
    read(path).check("model-unsafe", "two members 'a/data/0'")


@pytest.mark.parametrize("name", ["data.pkl", "data/0"])
def test_a_compressed_member_is_a_bomb(tmp_path, name):
    def pack(info: zipfile.ZipInfo) -> None:
        info.compress_type = zipfile.ZIP_DEFLATED if info.filename == f"a/{name}" else zipfile.ZIP_STORED

    data = tensor_pickle(10**8, (10**8,), (1,))
    members = {"data.pkl": data, "data/0": bytes(16)} | {name: bytes(150_000_000)}
    write_members(tmp_path / "a.pth", members, pack)
    assert (tmp_path / "a.pth").stat().st_size < 1_000_000
    read(tmp_path / "a.pth").check("model-unsafe", f"'a/{name}' is compressed", "150000000")


def colliding_keys() -> bytes:
    codes = Opcodes().raw(b"}(")
    for number in range(1, 60_000):
        codes.value(number * (2**61 - 1)).raw(b"N")  # Python hashes each of them to 0
    return codes.raw(b"u").end()


def laughs() -> bytes:
    codes = Opcodes().raw(b"]q\x00")
    for level in range(200):  # each list holds the one before ten times
        codes.raw(b"](" + b"h" + bytes([level]) + (b"h" + bytes([level])) * 9 + b"eq" + bytes([level + 1]) + b"0")
    return codes.raw(b"0h\xc8").end()


def copies() -> bytes:
    """One list of 50,000 pairs, made into a dictionary 20,000 times."""
    codes = Opcodes().raw(b"](" + b"N" * 50_000 + b"e").raw(b"\x85q\x000")
    for _ in range(20_000):
        codes.name("collections", "OrderedDict").raw(b"h\x00R0")
    return codes.raw(b"N").end()


BOMBS = {
    "nested": (b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".", "model-unsafe", "more than 200000 operations"),
    "deep": (b"\x80\x02" + b"]" * 90_000 + b"a" * 89_999 + b".", "model-corrupt", "a list"),
    "operations": (b"\x80\x02" + b"N0" * 2_000_000 + b"N.", "model-unsafe", "more than 200000 operations"),
    "laughs": (laughs(), "model-corrupt", "a list"),
    "memo": (b"\x80\x02Nr\xff\xff\xff\xff.", "model-corrupt", "a NoneType"),
    "copies": (copies(), "model-corrupt", "no pairs"),
    "collisions": (colliding_keys(), "model-corrupt", "a dictionary's key"),
    "long": (b"\x80\x02\x8b" + struct.pack("<i", 3_000_000) + b"\x7f" * 3_000_000 + b".", "model-corrupt", "digits"),
    "digits": (b"L" + b"9" * 3_000_000 + b"L\n.", "model-corrupt", "damaged or ends early"),
    "text": (b"\x80\x02X\xff\xff\xff\xff.", "model-corrupt", "damaged or ends early"),
    "length": (b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b".", "model-corrupt", "damaged or ends early"),
    "size": (b"\x80\x02X" + struct.pack("<I", 5 << 20) + b"a" * (5 << 20) + b".", "model-unsafe", "at most 4194304"),
    "code": (b"\x80\x02\x82\x01.", "model-unsafe", "EXT"),
    "set": (b"\x80\x04\x8f.", "model-unsafe", "EMPTY_SET"),
    "underflow": (b"\x80\x02R.", "model-corrupt", "was never put"),
    "mark": (b"\x80\x02(\x85.", "model-corrupt", "mark"),
    "nothing": (b"", "model-corrupt", "damaged or ends early"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_pickle_that_is_a_bomb(tmp_path, name):
    data, slug, words = BOMBS[name]
    read(zip_of(tmp_path / "a.pth", data)).check(slug, "a.pth", words)


def test_a_directory_that_is_a_bomb(tmp_path):
    path = write_checkpoint(tmp_path / "a.pth", STATE)
    raw = bytearray(path.read_bytes())
    end = raw.rindex(b"PK\x05\x06")
    size, start = struct.unpack_from("<LL", raw, end + 12)
    entry = bytes(raw[start : start + size])
    many = entry * (100 << 20 >> 10)
    struct.pack_into("<LL", raw, end + 12, len(many), start)
    path.write_bytes(raw[:start] + many + raw[end:])
    read(path).check("model-unsafe", "directory of", "at most 4194304")


def test_many_empty_members(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"a/{number}", b"")
    read(path).check("model-corrupt", "without one `data.pkl`")


def test_two_members_over_the_same_bytes(tmp_path):
    path = write_checkpoint(tmp_path / "a.pth", {"a": np.zeros(50, np.float32), "b": np.zeros(50, np.float32)})
    raw = bytearray(path.read_bytes())
    first = raw.index(b"PK\x03\x04", raw.index(b"a/data/0") - 30)
    entry = raw.rindex(b"a/data/1") - 46
    struct.pack_into("<L", raw, entry + 42, first)
    path.write_bytes(raw)
    read(path).check("model-corrupt", "'a/data/1' lies outside of the file")


def test_a_storage_of_the_older_format_that_lies(tmp_path):
    path = write_legacy(tmp_path / "a.pth", STATE)
    raw = bytearray(path.read_bytes())
    count = raw.rindex(struct.pack("<q", 24))
    for lie in (25, 2**40, -1):
        struct.pack_into("<q", raw, count, lie)
        path.write_bytes(raw)
        read(path).check("model-corrupt", "the storage '0' of 24 float32 has")


def test_a_storage_of_the_older_format_that_lies_twice(tmp_path):
    """Count and pickle agree on more than the file has."""
    facts = pickle.dumps({"little_endian": True}, 2)
    data = tensor_pickle(10**11, (10**11,), (1,))
    head = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + facts + data + pickle.dumps(["0"], 2)
    path = tmp_path / "a.pth"
    path.write_bytes(head + struct.pack("<q", 10**11) + bytes(1000))
    read(path).check("model-corrupt", "the storage '0' of 100000000000 float32 has 100000000000, in a file of")
