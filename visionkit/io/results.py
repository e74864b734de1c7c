"""Result rows as strict JSON: building them from structures, writing and reading `results.jsonl`, whole JSON files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import InputError
from visionkit.geometry.rle import rle_encode
from visionkit.io.files import OutputFile, writing_to
from visionkit.io.line_writer import LineWriter
from visionkit.io.text import printable_name, safe_text
from visionkit.structures import (
    Classification,
    DenseClassification,
    Detections,
    Frame,
    MultiClassification,
    Segmentation,
    Track,
)

__all__ = [
    "ClassNames",
    "JsonlWriter",
    "class_name",
    "frame_row",
    "json_line",
    "read_results",
    "result_fields",
    "write_json",
]

Result = Detections | Classification | MultiClassification | DenseClassification | Segmentation | Track
Names = Sequence[str] | Mapping[int, str] | None
ClassNames = Names | Mapping[str, Sequence[str]]  # by head

# How fine the numbers of a row are. Pixels to 1/100 and scores to 1/10000 are below what any network means;
# times to a microsecond are finer than any container's clock.
PIXEL_DIGITS = 2
SCORE_DIGITS = 4
AREA_DIGITS = 6  # a pixel in a million
TIME_DIGITS = 3


def frame_row(
    frame: Frame,
    result: Result | None = None,
    *,
    class_names: ClassNames = None,
    fields: Mapping[str, Any] | None = None,
    error: str | None = None,
) -> dict[str, Any]:
    """One row of `results.jsonl`: the frame's place and time, and what was found in it.

    Args:
        frame: gives index, pts_ms, duration_ms, source and size_hw; a damaged one is marked `"damaged": true`.
        result: its `result_fields`; None (with `error`) leaves them out.
        class_names: as `result_fields`.
        fields: further entries, of other results or of files written for this frame.
        error: why there is no result for this frame.
    """
    row: dict[str, Any] = {
        "index": frame.index,
        "pts_ms": _rounded(frame.pts_ms, TIME_DIGITS),
        "duration_ms": _rounded(frame.duration_ms, TIME_DIGITS),
        "source": frame.source,  # the reader has made it printable; once more would double its escapes
        "size_hw": list(frame.size_hw),
    }
    if frame.damaged:
        row["damaged"] = True
    if result is not None:
        row.update(result_fields(result, class_names))
    row.update(fields or {})
    if error is not None:
        row["error"] = error
    return row


def result_fields(result: object, class_names: ClassNames = None) -> dict[str, Any]:
    """What a row says of one result: `detections`, `classes`, `heads`, `area` or `track`; nothing of what is no result.

    Args:
        result: a structure; of a `DenseClassification` the classes of the whole image.
        class_names: by class id, or by head where there are heads; an id without a name gets its number as text.
    """
    if isinstance(result, Detections):
        return {"detections": _detection_rows(result, _of_one_head(class_names))}
    if isinstance(result, DenseClassification):
        result = result.overall
    if isinstance(result, Classification):
        return {"classes": _class_rows(result, _of_one_head(class_names))}
    if isinstance(result, MultiClassification):
        return {"heads": {head: _class_rows(c, _of_head(class_names, head)) for head, c in result.heads.items()}}
    if isinstance(result, Segmentation):
        return {"area": _areas(result, _of_one_head(class_names))}
    if isinstance(result, Track):
        track = {
            "xyxy": _xyxy(result.xyxy),
            "confidence": _rounded(result.confidence, SCORE_DIGITS),
            "state": result.state,
        }
        return {"track": track}
    return {}


def _class_rows(result: Classification, names: Names) -> list[dict[str, Any]]:
    return [
        {**_class(class_id, names), "confidence": _rounded(confidence, SCORE_DIGITS)}
        for class_id, confidence in zip(result.class_id, result.confidence, strict=True)
    ]


def _areas(result: Segmentation, names: Names) -> dict[str, float]:
    """The share of the pixels of each class that is there, by name in the order of ids; equal names get their id."""
    ids, counts = _counted(result.class_map)
    shares: dict[str, float] = {}
    for class_id, count in zip(ids, counts, strict=True):
        name = str(_class(class_id, names)["class_name"])
        while name in shares:
            name = f"{name} ({class_id})"
        shares[name] = round(int(count) / result.class_map.size, AREA_DIGITS)
    return shares


def _counted(class_map: npt.NDArray[np.integer[Any]]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The ids in a map, rising, and the pixels of each."""
    if class_map.dtype not in (np.uint8, np.uint16):
        return np.unique(class_map, return_counts=True)
    counts = np.bincount(class_map.ravel())
    ids = np.flatnonzero(counts)
    return ids, counts[ids]


def _of_head(names: ClassNames, head: str) -> Names:
    """The names of one head, where they are told by head."""
    found = names.get(head) if isinstance(names, Mapping) else names  # type: ignore[call-overload]
    return None if isinstance(found, str) else found


def _of_one_head(names: ClassNames) -> Names:
    """The names of a network's only head, which may be told by its name all the same."""
    values = list(names.values()) if isinstance(names, Mapping) else []
    return values[0] if len(values) == 1 and not isinstance(values[0], str) else names  # type: ignore[return-value]


def _detection_rows(detections: Detections, names: Names) -> list[dict[str, Any]]:
    rows = [
        {"xyxy": _xyxy(box), "confidence": _rounded(score, SCORE_DIGITS), **_class(class_id, names)}
        for box, score, class_id in zip(detections.xyxy, detections.confidence, detections.class_id, strict=True)
    ]
    if detections.tracker_id is not None:
        for row, tracker_id in zip(rows, detections.tracker_id, strict=True):
            if tracker_id >= 0:  # those below have no number yet
                row["tracker_id"] = int(tracker_id)
    if detections.mask is not None:
        for row, mask in zip(rows, detections.mask, strict=True):
            row["mask"] = rle_encode(mask)
    return rows


def class_name(class_id: Any, names: Names) -> str:
    """The name of a class; its number where it has none."""
    number = int(class_id)
    try:
        return str(number) if names is None or number < 0 else str(names[number])
    except (IndexError, KeyError):
        return str(number)


def _class(class_id: Any, names: Names) -> dict[str, Any]:
    return {"class_id": int(class_id), "class_name": class_name(class_id, names)}


def _xyxy(box: Any) -> list[float | None]:
    return [_rounded(value, PIXEL_DIGITS) for value in box]


def _rounded(value: Any, digits: int) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), digits) + 0.0  # + 0.0 turns -0.0 into 0.0


def jsonable(value: Any) -> Any:
    """`value` in JSON's own types: NumPy unpacked, paths printed, NaN and infinities turned into None.

    Raises:
        TypeError: something in it has no meaning in JSON.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return jsonable(value.tolist())
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike | bytes):
        return printable_name(value)
    if isinstance(value, Mapping):
        return {_key(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(v) for v in value]
    raise TypeError(f"a result must be made of numbers, text, lists and mappings. Received: {type(value).__name__}.")


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return str(int(key))
    raise TypeError(f"a key of a result must be text or a whole number. Received: {key!r}.")


def json_bytes(value: Any, indent: int | None = None) -> bytes:
    """`value` as strict JSON in UTF-8, without a newline at the end."""
    clean = jsonable(value)
    try:
        return json.dumps(clean, ensure_ascii=False, allow_nan=False, indent=indent).encode()
    except UnicodeEncodeError:  # A lone surrogate has no UTF-8; JSON's own \udc80 escape carries it.
        return json.dumps(clean, ensure_ascii=True, allow_nan=False, indent=indent).encode()


def json_line(row: Mapping[str, Any]) -> bytes:
    """`row` as one line of `results.jsonl`, newline included."""
    return json_bytes(row) + b"\n"


class JsonlWriter(LineWriter):
    """Rows as JSON Lines, one line each: see `LineWriter`."""

    def encode(self, row: Mapping[str, Any], first: bool) -> bytes:
        return json_line(row)


def write_json(path: str | os.PathLike[str], value: Any, *, overwrite: bool = True) -> None:
    """Writes `value` to `path` as indented strict JSON; the file appears whole or not at all.

    Raises:
        OutputError: as `OutputFile`.
    """
    data = json_bytes(value, indent=2) + b"\n"
    file = OutputFile(path, overwrite=overwrite)
    try:
        with writing_to(path):
            file.temporary.write_bytes(data)
        file.publish()
    except BaseException:
        file.discard()
        raise


def read_results(path: str | os.PathLike[str], *, allow_torn: bool = False) -> Iterator[dict[str, Any]]:
    """Yields the rows of a JSON Lines file in order.

    Args:
        path: the file.
        allow_torn: stop quietly before a last line that was cut off (by a killed run) instead of raising.

    Raises:
        InputError: `results-unreadable` or `results-corrupt`, naming the line.
    """
    name = safe_text(path)
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, 1):
                torn = not line.endswith(b"\n")
                if torn and allow_torn:
                    return
                yield _parsed(line, torn, f"line {number} of '{name}'")
    except OSError as error:
        raise InputError("results-unreadable", f"cannot read '{name}': {error.strerror}") from error


def _parsed(line: bytes, torn: bool, where: str) -> dict[str, Any]:
    if torn:
        raise InputError("results-corrupt", f"{where} has no end: the run that wrote it was cut off")
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError("results-corrupt", f"{where} is not JSON: {safe_text(error)}") from error
    if not isinstance(row, dict):
        raise InputError("results-corrupt", f"{where} is not a JSON object")
    return row


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
