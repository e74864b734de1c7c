"""Rows D9 to D13 of the fault matrix for weights: refused before Keras reads them, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.weights.measured import Outcome, measure

SECRET = b"the content of another file"


def refused(path: Path, slug: str, *words: str) -> Outcome:
    """Check the file as it is checked before it is loaded: in a process of its own, measured, without Keras."""
    outcome = measure(
        "from pathlib import Path\nfrom visionkit.weights.hdf5_check import check_hdf5\nimport h5py",
        "check_hdf5(Path(sys.argv[1]))",
        path,
        cwd=path.parent,
    )
    outcome.check(slug, str(path), *words)
    assert SECRET.decode() not in outcome.message
    return outcome


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "net.weights.h5"


def open_like_keras(path: Path) -> h5py.File:
    file = h5py.File(path, "w")
    group = file.create_group("layers/conv/vars")
    group.attrs["name"] = "conv"
    group["0"] = np.arange(24, dtype=np.float32)
    return file


def test_d9_shape_bomb(path):
    with open_like_keras(path) as file:
        file.create_dataset("layers/dense/vars/0", (68_000, 68_000), np.float32)  # never written: 0 bytes stored
    assert path.stat().st_size < 20_000
    refused(path, "model-unsafe", "declares 18496000000 bytes for 'layers/dense/vars/0' and stores 0")


def test_d9_zeros_that_pack(path):
    with open_like_keras(path) as file:
        file.create_dataset("layers/dense/vars/0", data=np.zeros((3000, 10_000), np.float32), compression="gzip")
    refused(path, "model-unsafe", "declares 120000000 bytes for 'layers/dense/vars/0'")


def test_d9_chunk_bomb(path):
    with open_like_keras(path) as file:
        file.create_dataset("layers/dense/vars/0", (1,), np.float32, maxshape=(None,), chunks=(500_000_000,))
    refused(path, "model-unsafe", "'layers/dense/vars/0'")


def test_d9_external_link(path):
    (path.parent / "other.h5").write_bytes(SECRET)
    with open_like_keras(path) as file:
        file["layers/dense"] = h5py.ExternalLink(str(path.parent / "other.h5"), "/x")
    outcome = refused(path, "model-unsafe", "a link to another file at 'layers/dense'")
    assert "other.h5" not in outcome.message


def test_d9_symbolic_link_and_cycle(path):
    with open_like_keras(path) as file:
        file["layers/dense"] = h5py.SoftLink("/layers/conv")
    refused(path, "model-unsafe", "a symbolic link at 'layers/dense'")
    with open_like_keras(path) as file:
        file["layers/conv/again"] = file["layers"]
    refused(path, "model-unsafe", "holds the same object twice")


def test_d9_external_dataset(path):
    (path.parent / "secret.txt").write_bytes(SECRET)
    with open_like_keras(path) as file:
        where = [(str(path.parent / "secret.txt"), 0, len(SECRET))]
        file.create_dataset("layers/dense/vars/0", (len(SECRET),), np.uint8, external=where)
    outcome = refused(path, "model-unsafe", "keeps the numbers of 'layers/dense/vars/0' in another file")
    assert "secret.txt" not in outcome.message


def test_d9_virtual_dataset(path):
    with h5py.File(path.parent / "other.h5", "w") as file:
        file["x"] = np.zeros(9, np.float32)
    layout = h5py.VirtualLayout((9,), np.float32)
    layout[:] = h5py.VirtualSource(str(path.parent / "other.h5"), "x", (9,))
    with open_like_keras(path) as file:
        file.create_virtual_dataset("layers/dense/vars/0", layout)
    refused(path, "model-unsafe", "takes the numbers of 'layers/dense/vars/0' from other files")


def test_d9_what_is_no_number(path):
    with open_like_keras(path) as file:
        file["layers/dense/vars/0"] = ["a", "b"]
    refused(path, "model-unsafe", "'layers/dense/vars/0' of a type that is no number")
    with open_like_keras(path) as file:
        file["layers/dense/vars/0"] = np.dtype("f4")
    refused(path, "model-unsafe", "named type")


def test_d9_attribute_bomb_and_deep_groups(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["name"] = np.zeros(2_000_000, np.uint8)
    refused(path, "model-unsafe", "an attribute of 2000000 bytes")
    with open_like_keras(path) as file:
        file.create_group("/".join("a" * 40))
    refused(path, "model-unsafe", "32 levels")


def test_d12_a_file_that_ends_early(path):
    with open_like_keras(path) as file:
        file["layers/dense/vars/0"] = np.ones((100, 300), np.float32)
    raw = path.read_bytes()
    for part in (8, 100, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:part])
        refused(path, "model-corrupt", f"is an HDF5 file ({part} bytes) that ends early or is damaged")


def test_d12_what_is_no_hdf5(path):
    for content, kind in ((b"", "an empty file"), (b"<html>", "a web page"), (b"PK\x03\x04..", "a zip archive")):
        path.write_bytes(content)
        refused(path, "model-corrupt", f"is not HDF5, as Keras's weights are, but {kind}")


def test_what_keras_writes_passes(path):
    """The control: shapes, names and legacy layout of whole files, half precision and packed numbers among them."""
    from visionkit.weights.hdf5_check import check_hdf5

    with open_like_keras(path) as file:
        file.create_dataset("layers/dense/vars/0", data=np.random.RandomState(0).rand(50, 70), compression="gzip")
        file["layers/dense/vars/1"] = np.float16(0.5)
        file["layers/dense/vars/2"] = np.zeros((0, 3), np.float32)
    facts = check_hdf5(path)
    assert facts.shapes == {
        "layers/conv/vars/0": (24,),
        "layers/dense/vars/0": (50, 70),
        "layers/dense/vars/1": (),
        "layers/dense/vars/2": (0, 3),
    }
    assert facts.names == {"layers/conv/vars": "conv"}
    assert not facts.legacy
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["a", "b"]
    assert check_hdf5(path).legacy
