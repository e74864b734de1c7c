"""CSV and MOT text: parsed back by the standard library, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from visionkit.io import frame_row
from visionkit.io.tables import CsvWriter, MotWriter
from visionkit.structures import Classification, Detections, Frame, Track


def frame(index: int = 4, source: str = "clip.mp4") -> Frame:
    return Frame(np.zeros((48, 64, 3), np.uint8), index, 40.0 * index, 40.0, source)


def boxes(*xyxy: list[float], **more: object) -> Detections:
    return Detections(np.array(xyxy), np.full(len(xyxy), 0.5), np.arange(len(xyxy)), **more)


def written(kind: type, *rows: dict[str, object], **options: object) -> str:
    stream = io.BytesIO()
    with kind(stream, **options) as writer:
        for row in rows:
            writer.write(row)
    return stream.getvalue().decode("utf-8")


def test_csv_has_a_line_for_every_object():
    rows = [
        frame_row(frame(), boxes([1, 2, 30.5, 40], [0, 0, 5, 6]), class_names=["car", "van"]),
        frame_row(frame(5), Detections.empty()),
        frame_row(frame(6), Track(np.array([1, 2, 3, 4]), 0.25, "lost")),
        frame_row(frame(7), Classification(np.array([3]), np.array([0.75]))),
        frame_row(frame(8), error="it failed"),
    ]
    assert written(CsvWriter, *rows) == (
        "index,pts_ms,source,x1,y1,x2,y2,confidence,class_id,class_name,tracker_id,state,error\r\n"
        "4,160.0,clip.mp4,1.0,2.0,30.5,40.0,0.5,0,car,,,\r\n"
        "4,160.0,clip.mp4,0.0,0.0,5.0,6.0,0.5,1,van,,,\r\n"
        "6,240.0,clip.mp4,1.0,2.0,3.0,4.0,0.25,,,1,lost,\r\n"
        "7,280.0,clip.mp4,,,,,0.75,3,3,,,\r\n"
        "8,320.0,clip.mp4,,,,,,,,,,it failed\r\n"
    )


FORMULAS = ["=HYPERLINK(1)", "+1", "-1", "@x", "\tx", " =1", "\u00a0=1", "a\n=1", "a\r\n =1", "\r=1"]


@pytest.mark.parametrize("label", FORMULAS)
def test_i2_a_label_is_never_a_formula(label):
    row = frame_row(frame(source="x.mp4"), boxes([-1, -2, 3, 4]), class_names=[label])
    [cells] = csv.DictReader(io.StringIO(written(CsvWriter, row), newline=""))
    assert cells["class_name"] == "'" + label
    assert (cells["x1"], cells["y1"]) == ("-1.0", "-2.0")
    [cells] = csv.DictReader(io.StringIO(written(CsvWriter, row, raw=True), newline=""))
    assert cells["class_name"] == label


@pytest.mark.parametrize("label", ["car", "a-b", "a = b", 'quoted "x", y', "two\nlines", "猫"])
def test_i2_ordinary_labels_parse_back(label):
    row = frame_row(frame(), boxes([1, 2, 3, 4]), class_names=[label])
    [cells] = csv.DictReader(io.StringIO(written(CsvWriter, row), newline=""))
    assert cells["class_name"] == label


def test_i5_values_that_are_missing_leave_empty_cells_and_no_mot_line():
    row = frame_row(frame(), boxes([np.nan, 2, 3, np.inf], [1, 2, 4, 8]))
    first, second = csv.DictReader(io.StringIO(written(CsvWriter, row), newline=""))
    assert (first["x1"], first["x2"], first["y2"]) == ("", "3.0", "")
    assert second["x1"] == "1.0"
    assert written(MotWriter, row) == "5,-1,2.00,3.00,3.00,6.00,0.5,-1,-1,-1\n"


def test_mot_counts_from_one_and_keeps_ids():
    rows = [
        frame_row(frame(0), boxes([0, 0, 10, 20], [5.5, 6, 7, 8], tracker_id=np.array([7, 3]))),
        frame_row(frame(1), Track(np.array([1, 2, 3, 4]), 0.25, "lost")),
        frame_row(frame(2), Track(np.array([1, 2, 3, 4]), 0.25, "reacquired")),
    ]
    assert written(MotWriter, *rows) == (
        "1,7,1.00,1.00,10.00,20.00,0.5,-1,-1,-1\n"
        "1,3,6.50,7.00,1.50,2.00,0.5,-1,-1,-1\n"
        "3,1,2.00,3.00,2.00,2.00,0.25,-1,-1,-1\n"
    )


def test_files_are_whole_or_absent(tmp_path):
    with CsvWriter(tmp_path / "a.csv") as writer:
        writer.write(frame_row(frame(), boxes([1, 2, 3, 4])))
        assert not (tmp_path / "a.csv").exists()
    assert (tmp_path / "a.csv").read_text().count("\n") == 2
