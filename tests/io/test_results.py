"""Result rows: strict JSON, rounded once, readable back; files that are whole or absent."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from tests.io.readback import snapshot
from visionkit.errors import InputError, OutputError
from visionkit.io import JsonlWriter, frame_row, read_results, write_json
from visionkit.io.results import json_line
from visionkit.structures import Classification, Detections, Frame, Track


def strict(line: bytes) -> object:
    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(line.decode("utf-8"), parse_constant=refuse)


def frame(**changes: object) -> Frame:
    values = {"image": np.zeros((720, 1280, 3), np.uint8), "index": 12, "pts_ms": 480.0, "duration_ms": 40.0}
    return Frame(**{**values, "source": "clip.mp4", **changes})


def test_the_row_of_the_design_document():
    found = Detections(np.array([[1, 2, 30.5, 40]]), np.array([0.91]), np.array([3]), tracker_id=np.array([7]))
    names = ["background", "person", "bicycle", "car"]
    assert strict(json_line(frame_row(frame(), found, class_names=names))) == {
        "index": 12,
        "pts_ms": 480.0,
        "duration_ms": 40.0,
        "source": "clip.mp4",
        "size_hw": [720, 1280],
        "detections": [
            {"xyxy": [1.0, 2.0, 30.5, 40.0], "confidence": 0.91, "class_id": 3, "class_name": "car", "tracker_id": 7}
        ],
    }


def test_numbers_are_rounded_below_what_they_mean():
    track = Track(np.array([1 / 3, -0.001, 99.999, 1e4 / 7]), 0.123456, "uncertain")
    row = frame_row(frame(pts_ms=1001 / 30, duration_ms=None), track)
    assert json_line(row).decode() == (
        '{"index": 12, "pts_ms": 33.367, "duration_ms": null, "source": "clip.mp4", "size_hw": [720, 1280], '
        '"track": {"xyxy": [0.33, 0.0, 100.0, 1428.57], "confidence": 0.1235, "state": "uncertain"}}\n'
    )


def test_classes_and_names_that_are_missing():
    result = Classification(np.array([2, 0, 9]), np.array([0.7, 0.2, 0.1]))
    for names in (["cat", "dog", "car"], {0: "cat", 2: "car"}):
        classes = frame_row(frame(), result, class_names=names)["classes"]
        assert [c["class_name"] for c in classes] == ["car", "cat", "9"]
    nameless = frame_row(frame(), Classification(np.array([-1]), np.array([1.0])), class_names=["cat"])
    assert nameless["classes"] == [{"class_id": -1, "class_name": "-1", "confidence": 1.0}]


def test_damaged_and_failed_frames_are_marked():
    row = frame_row(frame(damaged=True), error="the network returned NaN")
    assert row["damaged"] is True
    assert row["error"] == "the network returned NaN"
    assert not {"detections", "track", "classes"} & set(row)
    assert frame_row(frame(), Detections.empty())["detections"] == []


def test_i5_nan_and_infinity_become_null():
    boxes = Detections(np.array([[np.nan, np.inf, -np.inf, 1]]), np.array([np.nan]), np.array([0]))
    row = {**frame_row(frame(), boxes), "more": [float("nan"), {"deep": np.float32("inf")}, np.array([1.5, np.nan])]}
    got = strict(json_line(row))
    assert got["detections"][0]["xyxy"] == [None, None, None, 1.0]
    assert got["detections"][0]["confidence"] is None
    assert got["more"] == [None, {"deep": None}, [1.5, None]]


def test_numpy_paths_and_odd_text_go_in(tmp_path):
    row = {
        "int": np.int64(3), "bool": np.bool_(True), "array": np.arange(4).reshape(2, 2), "path": Path("a/b.mp4"),
        "bytes": b"\xff.mp4", "tuple": (1, 2), "text": "Grüße \N{CAT FACE} \x1b[31m \u202e \x00 \ud800", 5: "key",
    }  # fmt: skip
    line = json_line(row)
    assert line.count(b"\n") == 1
    assert strict(line) == {
        "int": 3, "bool": True, "array": [[0, 1], [2, 3]], "path": "a/b.mp4", "bytes": "\\xff.mp4", "tuple": [1, 2],
        "text": row["text"], "5": "key",
    }  # fmt: skip


def test_plain_text_stays_readable():
    assert "Grüße 猫".encode() in json_line({"text": "Grüße 猫"})


@pytest.mark.parametrize("value", [{"a": object()}, {"a": {1.5: 2}}, {"a": {True: 2}}, {"a": 1j}])
def test_what_json_cannot_say_is_refused(value):
    with pytest.raises(TypeError):
        json_line(value)


def test_rows_round_trip_through_a_file(tmp_path):
    rows = [frame_row(frame(index=i, pts_ms=40.0 * i), Detections.empty()) for i in range(1000)]
    path = tmp_path / "results.jsonl"
    with JsonlWriter(path) as writer:
        for row in rows:
            writer.write(row)
        assert not path.exists()
    assert writer.rows == 1000
    assert list(read_results(path)) == rows
    assert list(snapshot(tmp_path)) == ["results.jsonl"]


def test_a_failed_run_leaves_no_rows(tmp_path):
    def body():
        with JsonlWriter(tmp_path / "results.jsonl") as writer:
            writer.write({"index": 0})
            raise KeyError

    with pytest.raises(KeyError):
        body()
    assert snapshot(tmp_path) == {}


def test_an_existing_file_is_replaced_only_on_success(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text("old\n")
    with pytest.raises(OutputError) as caught:
        JsonlWriter(path)
    assert caught.value.slug == "exists"
    writer = JsonlWriter(path, overwrite=True)
    writer.write({"index": 0})
    assert path.read_text() == "old\n"
    writer.abort()
    assert path.read_text() == "old\n"
    with JsonlWriter(path, overwrite=True) as writer:
        writer.write({"index": 0})
    assert path.read_text() == '{"index": 0}\n'


def test_a_stream_gets_each_row_at_once_and_stays_open():
    class Counted(io.BytesIO):
        flushes = 0

        def flush(self) -> None:
            self.flushes += 1

    stream = Counted()
    with JsonlWriter(stream) as writer:
        for i in range(3):
            writer.write({"index": i})
            assert stream.flushes == i + 1
    assert stream.getvalue() == b'{"index": 0}\n{"index": 1}\n{"index": 2}\n'
    assert not stream.closed
    with pytest.raises(ValueError, match="closed"):
        writer.write({"index": 3})


def test_a_closed_pipe_passes_as_such():
    class Broken(io.BytesIO):
        def write(self, data: object) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        JsonlWriter(Broken()).write({"index": 0})


def test_a_full_device_is_disk_full():
    with Path("/dev/full").open("wb", buffering=0) as stream, pytest.raises(OutputError) as caught:
        JsonlWriter(stream).write({"index": 0})
    assert caught.value.slug == "disk-full"


def test_a_torn_last_line_is_tolerated_only_when_asked(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"index": 0}\n{"index": 1}\n{"ind')
    assert [row["index"] for row in read_results(path, allow_torn=True)] == [0, 1]
    with pytest.raises(InputError, match=r"line 3 .* cut off"):
        list(read_results(path))


@pytest.mark.parametrize("line", [b"{", b"NaN", b'{"a": NaN}', b"[1]", b"\xff", b"", b"[" * 100_000])
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"index": 0}\n' + line + b'\n{"index": 2}\n')
    for allow_torn in (False, True):
        with pytest.raises(InputError, match="line 2 of") as caught:
            list(read_results(path, allow_torn=allow_torn))
        assert caught.value.slug == "results-corrupt"


def test_missing_results_are_an_input_error(tmp_path):
    with pytest.raises(InputError, match="No such file") as caught:
        list(read_results(tmp_path / "none.jsonl"))
    assert caught.value.slug == "results-unreadable"


def test_write_json_is_strict_whole_and_replaces(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"status": "running"})
    write_json(path, {"status": "complete", "fps": float("inf"), "size_hw": np.array([4, 5])})
    assert strict(path.read_bytes()) == {"status": "complete", "fps": None, "size_hw": [4, 5]}
    with pytest.raises(TypeError):
        write_json(path, {"status": object()})
    assert strict(path.read_bytes())["status"] == "complete"
    assert list(snapshot(tmp_path)) == ["run.json"]
    with pytest.raises(OutputError, match="exists"):
        write_json(path, {}, overwrite=False)
