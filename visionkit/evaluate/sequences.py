"""Annotated tracking sequences: a folder of frames with one box a frame (the layout of OTB)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError
from visionkit.geometry.boxes import xywh_to_xyxy

__all__ = ["Sequence", "find_sequences"]

TRUTH = "groundtruth_rect"


@dataclass(frozen=True, eq=False)
class Sequence:
    """One sequence: its frames' paths in order and the true boxes float32 (N, 4) xyxy."""

    name: str
    frames: tuple[Path, ...]
    truth: npt.NDArray[np.float32]


def find_sequences(folder: Path) -> list[Sequence]:
    """The sequences in `folder`, itself one or holding them, in name order.

    A sequence is a folder with `groundtruth_rect*.txt` (a line a frame: left, top, width, height, separated by commas,
    blanks or tabs; 1-based as in OTB unless the name has `0based`) and its frames in `img/`.

    Raises:
        InputError: there is none, or one's lines do not parse.
    """
    if not folder.is_dir():
        raise InputError(
            "input-missing", f"{folder} is no folder. Give one with {TRUTH}.txt and img/, or of such folders."
        )
    roots = (
        [folder] if list(folder.glob(f"{TRUTH}*.txt")) else sorted(path for path in folder.iterdir() if path.is_dir())
    )
    sequences = [_read(root) for root in roots if list(root.glob(f"{TRUTH}*.txt"))]
    if not sequences:
        raise InputError("no-sequences", f"{folder} holds no sequence: a folder with {TRUTH}.txt and frames in img/.")
    return sequences


def _read(root: Path) -> Sequence:
    path = sorted(root.glob(f"{TRUTH}*.txt"))[0]
    rows = [_row(line, path, i) for i, line in enumerate(path.read_text().splitlines(), 1) if line.strip()]
    xywh = np.array(rows, np.float32).reshape(-1, 4)
    if "0based" not in path.name:
        xywh[:, :2] -= 1
    frames = sorted(
        file for file in (root / "img").glob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png", ".bmp")
    )
    count = min(len(frames), len(xywh))
    if count < 2:
        raise InputError("no-frames", f"{root} has {len(frames)} frames in img/ and {len(xywh)} boxes: two are needed.")
    return Sequence(root.name, tuple(frames[:count]), xywh_to_xyxy(xywh[:count]))


def _row(line: str, path: Path, number: int) -> list[float]:
    try:
        values = [float(part) for part in re.split(r"[,\s]+", line.strip())]
    except ValueError:
        values = []
    if len(values) != 4:
        raise InputError(
            "truth-undecodable", f"{path}, line {number}: expected left, top, width, height. Got {line!r}."
        )
    return values
