"""COCO, Pascal VOC, YOLO, MOT and CSV: each written from rows and read back by plain code, and by our own readers."""

from __future__ import annotations

import csv
import json
import os
import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
import pytest

from visionkit.geometry.rle import rle_decode
from visionkit.io import frame_row
from visionkit.io.formats import FORMATS, open_writers, stream_writer
from visionkit.structures import Detections, Frame

NAMES = ("car", "two words", "<&>\x07\u65e5")
SIZE_HW = (60, 90)


def detections(index, masks=False):
    if index == 1:
        return Detections.empty()
    boxes = np.array([[1.25, 2, 31.5, 40], [10, 10, 90, 60], [0, 0, 5, 5]], np.float32)
    mask = np.zeros((3, *SIZE_HW), bool)
    mask[0, 2:40, 2:31], mask[1, 10:60, 10:90] = True, True
    return Detections(boxes, [0.9, 0.5, 0.25], [0, 2, 1], mask if masks else None, np.array([4, -1, 7]))


def rows(masks=False, video=False, failed=False):
    for index in range(3):
        name = "clip.mp4" if video else f"pictures/{'ab'[index % 2]}.png"
        pts = 40.0 * index if video else None
        frame = Frame(np.zeros((*SIZE_HW, 3), np.uint8), index, pts, pts, name)
        if failed and index == 2:
            yield frame_row(frame, error="detect: failed")
        else:
            yield frame_row(frame, detections(index, masks), class_names=NAMES)


def written(folder, formats, **options):
    def place(name):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    writers = open_writers(formats, place, lambda: NAMES)
    for row in rows(**options):
        writers.write(row)
    writers.close()
    return folder


def test_coco_reads_back(tmp_path):
    found = json.loads((written(tmp_path, ["coco"], masks=True) / "coco.json").read_text())
    assert [image["id"] for image in found["images"]] == [1, 2, 3]
    assert found["images"][0] == {"id": 1, "file_name": "pictures/a.png", "width": 90, "height": 60}
    assert found["categories"] == [{"id": k + 1, "name": name} for k, name in enumerate(NAMES)]
    assert [one["id"] for one in found["annotations"]] == [1, 2, 3, 4, 5, 6]
    first = found["annotations"][0]
    assert (first["bbox"], first["category_id"], first["image_id"]) == ([1.25, 2.0, 30.25, 38.0], 1, 1)
    assert (first["score"], first["track_id"], first["iscrowd"]) == (0.9, 4, 0)
    mask = rle_decode(first["segmentation"])
    np.testing.assert_array_equal(mask, detections(0, True).mask[0])
    assert first["area"] == mask.sum() == 38 * 29
    assert "track_id" not in found["annotations"][1]
    assert {one["image_id"] for one in found["annotations"]} == {1, 3}


def test_coco_without_masks_and_of_a_video(tmp_path):
    found = json.loads((written(tmp_path, ["coco"], video=True) / "coco.json").read_text())
    assert found["images"][2]["file_name"] == "clip_000002.jpg"
    assert (found["images"][2]["frame_index"], found["images"][2]["pts_ms"]) == (2, 80.0)
    assert found["annotations"][0]["segmentation"] == []
    assert found["annotations"][0]["area"] == pytest.approx(30.25 * 38, abs=0.01)


def test_pycocotools_or_its_successor_loads_it(tmp_path):
    try:
        from pycocotools.coco import COCO
    except ImportError:
        COCO = pytest.importorskip("faster_coco_eval").COCO
    coco = COCO(str(written(tmp_path, ["coco"], masks=True) / "coco.json"))
    assert len(coco.anns) == 6
    np.testing.assert_array_equal(coco.annToMask(coco.anns[1]).astype(bool), detections(0, True).mask[0])


def test_voc_reads_back(tmp_path):
    written(tmp_path, ["voc"], failed=True)
    assert sorted(path.name for path in (tmp_path / "voc").iterdir()) == ["a.xml", "b.xml"]
    tree = ElementTree.parse(tmp_path / "voc" / "a.xml").getroot()  # noqa: S314 - written above
    assert tree.findtext("filename") == "pictures/a.png"
    assert [int(tree.findtext(f"size/{side}")) for side in ("width", "height")] == [90, 60]
    objects = tree.findall("object")
    assert [one.findtext("name") for one in objects] == ["car", "<&>?\u65e5", "two words"]
    corners = [[float(one.findtext(f"bndbox/{c}")) for c in ("xmin", "ymin", "xmax", "ymax")] for one in objects]
    assert corners == detections(0).xyxy.tolist()
    assert ElementTree.parse(tmp_path / "voc" / "b.xml").getroot().findall("object") == []  # noqa: S314


def test_yolo_reads_back(tmp_path):
    written(tmp_path, ["yolo"])
    assert sorted(path.name for path in (tmp_path / "yolo" / "labels").iterdir()) == ["a-2.txt", "a.txt", "b.txt"]
    lines = [line.split() for line in (tmp_path / "yolo" / "labels" / "a.txt").read_text().splitlines()]
    assert [int(line[0]) for line in lines] == [0, 2, 1]
    numbers = np.array([[float(word) for word in line[1:]] for line in lines]) * [90, 60, 90, 60]
    corners = np.concatenate([numbers[:, :2] - numbers[:, 2:] / 2, numbers[:, :2] + numbers[:, 2:] / 2], axis=1)
    np.testing.assert_allclose(corners, detections(0).xyxy, atol=1e-4)
    assert (tmp_path / "yolo" / "labels" / "b.txt").read_text() == ""
    assert '  1: "two words"' in (tmp_path / "yolo" / "data.yaml").read_text()


def test_mot_and_csv_read_back(tmp_path):
    written(tmp_path, ["mot", "csv"], video=True)
    mot = [line.split(",") for line in (tmp_path / "mot.txt").read_text().splitlines()]
    assert [line[:2] for line in mot] == [["1", "4"], ["1", "-1"], ["1", "7"], ["3", "4"], ["3", "-1"], ["3", "7"]]
    assert [float(v) for v in mot[0][2:6]] == [2.25, 3, 30.25, 38]
    with (tmp_path / "results.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [float(found[0][c]) for c in ("x1", "y1", "x2", "y2")] == [1.25, 2, 31.5, 40]
    assert (found[0]["tracker_id"], found[1]["tracker_id"], found[1]["class_id"]) == ("4", "", "2")
    assert found[-1]["index"] == "2"


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo"])
def test_our_own_readers_read_what_is_written(tmp_path, kind):
    read = pytest.importorskip("visionkit.train.detection_folders").read_detection_folders
    written(tmp_path / "out", [kind])
    for name in "ab":
        (tmp_path / "images" / "pictures").mkdir(parents=True, exist_ok=True)
        for place in (tmp_path / "images" / f"{name}.png", tmp_path / "images" / "pictures" / f"{name}.png"):
            cv2.imwrite(str(place), np.zeros((*SIZE_HW, 3), np.uint8))
    root = {"coco": tmp_path / "out" / "coco.json", "voc": tmp_path / "out" / "voc", "yolo": tmp_path / "out" / "yolo"}
    found = read(root[kind], images=tmp_path / "images", layout=kind)
    sample = next(one for one in found.samples if one.name.endswith("a.png"))
    order = np.argsort(-sample.xyxy[:, 2])
    truth = detections(0)
    np.testing.assert_allclose(sample.xyxy[order], truth.xyxy[np.argsort(-truth.xyxy[:, 2])], atol=0.01)
    assert {found.classes[k] for k in sample.class_id} >= {"car", "two words"}


def test_a_folder_always_has_jsonl_and_nothing_of_a_run_that_is_dropped(tmp_path):
    written(tmp_path / "a", ["csv"])
    assert sorted(os.listdir(tmp_path / "a")) == ["results.csv", "results.jsonl"]
    writers = open_writers(["coco", "mot"], lambda name: tmp_path / name, lambda: None)
    writers.write(next(iter(rows())))
    writers.abort()
    assert os.listdir(tmp_path) == ["a"]


def test_names_of_classes_that_nobody_told_come_from_the_rows(tmp_path):
    writers = open_writers(["coco", "yolo"], lambda name: made(tmp_path / name), lambda: None)
    writers.write(next(iter(rows())))
    writers.close()
    assert [c["id"] for c in json.loads((tmp_path / "coco.json").read_text())["categories"]] == [1, 2, 3]
    assert '  0: "car"' in (tmp_path / "yolo" / "data.yaml").read_text()


def made(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_unknown_formats_are_refused():
    with pytest.raises(ValueError, match="xml"):
        open_writers(["xml"], lambda name: name, lambda: None)
    for formats in (["coco"], ["jsonl", "csv"]):
        with pytest.raises(ValueError, match="one of jsonl, csv, mot"):
            stream_writer(formats, None)
    assert set(FORMATS) == {"jsonl", "csv", "coco", "voc", "yolo", "mot"}
