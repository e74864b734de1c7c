"""Handwritten digits to learn from: those that come with scikit-learn, or a folder in the format of MNIST."""

from __future__ import annotations

import gzip
import importlib.util
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError

__all__ = ["Digits", "read_digits"]

SIDE, INK = 28, 20  # a digit of 20 pixels in a frame of 28, as MNIST has them
TEST, VAL = 0.2, 0.1
KINDS = {0x803: 3, 0x801: 1}  # the first number of an IDX file of bytes: its dimensions
MOST = 1 << 28  # bytes of an unpacked file


@dataclass(frozen=True)
class Digits:
    """Images uint8 (N, H, W), white on black, and labels int64 (N,), by part: `train`, `val` and `test`."""

    name: str
    parts: Mapping[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]]


def read_digits(folder: Path | None = None) -> Digits:
    """scikit-learn's 1,797 digits, 8 x 8 pixels enlarged to 20 x 20 in 28 x 28; or those of a folder.

    A folder holds MNIST's files, `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, `t10k-…` likewise, packed
    (`.gz`) or not. With both, `t10k` is the test part; where there is only one, a fifth of it is. A tenth of the whole
    (of the rest, with a test part of its own) chooses the epoch. The parts are the same always.

    Raises:
        InputError: `digits-missing`; no such files, or no scikit-learn. `digits-corrupt`; files of another form.
    """
    if folder is None:
        images, labels = _sklearn_digits()
        return Digits("scikit-learn digits", _parts(images, labels, TEST))
    found = {part: _idx_pair(folder, part) for part in ("train", "t10k")}
    learnt, held = found["train"], found["t10k"]
    if learnt is not None and held is not None:
        return Digits("MNIST", {**_parts(*learnt, 0.0), "test": held})
    one = learnt or held
    if one is None:
        raise InputError(
            "digits-missing",
            f"{folder} holds no t10k-images-idx3-ubyte or train-images-idx3-ubyte (.gz too). --data takes a folder "
            "with MNIST's files; without it, scikit-learn's digits are used.",
        )
    return Digits("MNIST train" if learnt else "MNIST t10k", _parts(*one, TEST))


def _parts(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], test: float) -> dict[str, Any]:
    order = np.random.default_rng(0).permutation(len(images))
    held, chosen = round(test * len(order)), round(VAL * len(order))
    ends = {"test": order[:held], "val": order[held : held + chosen], "train": order[held + chosen :]}
    return {part: (images[rows], labels[rows]) for part, rows in ends.items()}


def _sklearn_digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read from the file, so that nothing of scikit-learn need be imported."""
    spec = importlib.util.find_spec("sklearn")
    home = Path(spec.origin).parent if spec is not None and spec.origin else None
    path = home / "datasets" / "data" / "digits.csv.gz" if home else None
    if path is None or not path.is_file():
        raise InputError(
            "digits-missing",
            "scikit-learn, whose digits are used without --data, is not installed. Install it (pip install "
            "scikit-learn), or give --data a folder with MNIST's files.",
        )
    try:
        rows = np.loadtxt(gzip.decompress(path.read_bytes()).decode("ascii").splitlines(), delimiter=",")
        small = rows[:, :64].reshape(-1, 8, 8).astype(np.float32) * (255 / 16)
    except (OSError, EOFError, ValueError, zlib.error, IndexError) as error:
        raise InputError("digits-corrupt", f"{path} is not scikit-learn's file of digits: {error}.") from error
    images = np.zeros((len(small), SIDE, SIDE), np.uint8)
    edge = (SIDE - INK) // 2
    for k, image in enumerate(small):
        large = cv2.resize(image, (INK, INK), interpolation=cv2.INTER_LINEAR)
        images[k, edge : edge + INK, edge : edge + INK] = np.rint(large)
    return images, rows[:, 64].astype(np.int64)


def _idx_pair(folder: Path, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]] | None:
    paths = [_either(folder / f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
    if paths[0] is None or paths[1] is None:
        return None
    images, labels = (_read_idx(path) for path in paths if path)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or min(images.shape) < 1:
        raise InputError(
            "digits-corrupt",
            f"{paths[0]} has the shape {images.shape} and {paths[1].name} {labels.shape}; expected images (N, H, W) "
            "and as many labels.",
        )
    if min(images.shape[1:]) < SIDE:
        raise InputError(
            "digits-corrupt", f"{paths[0]} has images of {images.shape[1:]} pixels; expected {SIDE} each way or more."
        )
    if labels.max() > 9:
        raise InputError("digits-corrupt", f"{paths[1]} has the label {labels.max()}; expected 0 to 9.")
    return images, labels.astype(np.int64)


def _either(path: Path) -> Path | None:
    packed = path.with_name(f"{path.name}.gz")
    return next((each for each in (path, packed) if each.is_file()), None)


def _read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """An IDX file of bytes: a number for its kind, one size for each dimension, all big-endian, then the bytes."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(MOST + 1)
        count = KINDS[int.from_bytes(data[:4], "big")]
        shape = [int.from_bytes(data[4 * k : 4 * k + 4], "big") for k in range(1, count + 1)]
        return np.frombuffer(data, np.uint8, offset=4 * (count + 1)).reshape(shape).copy()
    except (OSError, EOFError, KeyError, ValueError, zlib.error) as error:
        raise InputError("digits-corrupt", f"{path} is not an IDX file of bytes: {error!r}.") from error
