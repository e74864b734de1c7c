"""Box annotations in four formats: the same boxes out of each, and what is wrong told instead of fatal."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.train.rendered_boxes import NAMES, voc_xml, write_coco, write_openimages, write_voc, write_yolo
from visionkit.errors import InputError
from visionkit.train.detection_folders import DetectionFolders, read_detection_folders
from visionkit.train.detection_yolo import simple_yaml

BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">]>
<annotation><object><name>&d;&d;&d;</name></object></annotation>"""
OUTSIDE = """<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/hostname">]><annotation><object><name>&a;</name></object>
</annotation>"""


def kinds(folders: DetectionFolders) -> Counter[str]:
    return Counter(problem.kind for problem in folders.problems)


def boxes_of(folders: DetectionFolders) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """By stem, class names with boxes rounded to a hundredth of a pixel, sorted."""
    return {
        Path(sample.name).stem: sorted(
            (folders.classes[k], tuple(np.round(box, 2).tolist()))
            for k, box in zip(sample.class_id, sample.xyxy.astype(float), strict=True)
        )
        for sample in folders.samples
    }


def test_the_four_formats_give_the_same_boxes(tmp_path: Path) -> None:
    found = write_voc(tmp_path / "voc", {"train": 5, "val": 2})
    images = tmp_path / "voc" / "JPEGImages"
    voc = read_detection_folders(tmp_path / "voc")
    assert (voc.layout, voc.classes) == ("voc", NAMES)
    assert len(voc.select("train")) == 5
    assert len(voc.select("val")) == 2
    assert boxes_of(voc) == {stem: sorted((NAMES[kind], box) for kind, box in boxes) for stem, boxes in found.items()}
    others = {
        "coco": read_detection_folders(write_coco(tmp_path, found), images=images),
        "yolo": read_detection_folders(write_yolo(tmp_path / "yolo", found), images=images),
        "openimages": read_detection_folders(write_openimages(tmp_path, found), images=images),
    }
    for layout, folders in others.items():
        assert folders.layout == layout
        assert folders.classes == NAMES
        assert not folders.problems
        assert boxes_of(folders) == boxes_of(voc)


def test_a_voc_reader_that_takes_one_off_disagrees(tmp_path: Path) -> None:
    """The convention matters: with VOC's numbers counted from 1, not one box would be COCO's."""
    found = write_voc(tmp_path / "voc", {"train": 3})
    coco = read_detection_folders(write_coco(tmp_path, found), images=tmp_path / "voc" / "JPEGImages")
    voc = read_detection_folders(tmp_path / "voc")
    for a, b in zip(voc.samples, coco.samples, strict=True):
        moved = a.xyxy - np.array([1, 1, 0, 0], np.float32)
        assert np.abs(np.sort(moved, axis=0) - np.sort(b.xyxy, axis=0)).max() == 1


def test_voc100s_formats_are_identical(shared: Path) -> None:
    root = shared / "data" / "detection" / "voc100_formats"
    images, truths = root / "images", root / "gts"
    voc = read_detection_folders(truths / "pascalvoc_format", images=images)
    coco = read_detection_folders(truths / "coco_format_v1", images=images)
    second = read_detection_folders(truths / "coco_format_v2", images=images)
    csv = read_detection_folders(truths / "openimages_format", images=images)
    yolo = read_detection_folders(truths / "yolo_format", images=images, classes=[str(k) for k in range(20)])
    assert (len(voc.samples), sum(map(len, voc.samples))) == (100, 273)
    assert not any(folders.problems for folders in (voc, coco, second, csv, yolo))
    assert boxes_of(voc) == boxes_of(coco) == boxes_of(second) == boxes_of(csv)
    named = {stem: sorted((coco.classes[int(k)], box) for k, box in boxes) for stem, boxes in boxes_of(yolo).items()}
    assert named == boxes_of(voc)


def test_real_sets_and_their_known_faults(shared: Path) -> None:
    data = shared / "data"
    bccd = read_detection_folders(data / "detection" / "bccd")
    assert [len(bccd.select(part)) for part in ("train", "val", "test")] == [205, 87, 72]
    assert bccd.classes == ("Platelets", "RBC", "WBC")
    assert [(p.kind, p.name) for p in bccd.problems] == [
        ("box-degenerate", "BloodImage_00338.xml"),
        ("box-degenerate", "BloodImage_00343.xml"),
    ]
    coco128 = read_detection_folders(
        data / "coco128_train" / "object_detection", images=data / "coco128_train" / "images" / "train2017"
    )
    assert len(coco128.samples) == 124 + 2
    assert kinds(coco128)["unlabelled"] == 2
    assert kinds(coco128)["image-missing"] == 2
    mini = read_detection_folders(data / "detection" / "mini_coco_json")
    assert (mini.layout, len(mini.samples), "background" in mini.classes) == ("coco", 5, False)
    assert read_detection_folders(data / "detection" / "mini_voc_xml").classes == ("android", "pig_android")


def damaged_voc(root: Path) -> Path:
    found = write_voc(root, {"train": 3})
    notes, size = root / "Annotations", (72, 96)
    stems = list(found)
    wrong = [(0, (10.0, 10.0, 10.0, 20.0)), (1, (-30.0, 5.0, 20.0, 30.0)), (1, (200.0, 5.0, 220.0, 30.0))]
    (notes / f"{stems[0]}.xml").write_text(voc_xml("x.png", size, wrong))
    strange = "<object><name>disc</name><bndbox><xmin>a</xmin></bndbox></object><object/>"
    edges = "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
    strange += f"<object><name>cell</name><bndbox>{edges}</bndbox></object>"
    (notes / f"{stems[1]}.xml").write_text(voc_xml("y.png", (10, 10), found[stems[1]], strange))
    for stem, text in (("bomb", BOMB), ("entity", OUTSIDE), ("cut", "<annotation><obj"), ("html", "<html/>")):
        (notes / f"{stem}.xml").write_text(text)
    (notes / "deep.xml").write_text("<annotation>" + "<a>" * 5000 + "</a>" * 5000 + "</annotation>")
    (notes / "orphan.xml").write_text(voc_xml("orphan.png", size, found[stems[2]]))
    (notes / "bytes.xml").write_bytes(b"\xff\xfe\x00")
    lists = root / "ImageSets" / "Main"
    names = [*stems, "bomb", "entity", "cut", "html", "deep", "orphan", "bytes", "nothing"]
    (lists / "train.txt").write_text("\n".join(names))
    return root


def test_what_is_wrong_with_xml_is_told_and_nothing_is_expanded(tmp_path: Path) -> None:
    started = time.perf_counter()
    folders = read_detection_folders(damaged_voc(tmp_path), classes=["disc", "square"])
    assert time.perf_counter() - started < 5
    assert len(folders.samples) == 3
    told = kinds(folders)
    assert told["annotation-invalid"] == 6
    assert told["box-degenerate"] == told["box-beyond"] == told["box-outside"] == told["size"] == 1
    assert told["box-invalid"] == told["class-unknown"] == 1
    assert told["image-missing"] == 1
    assert told["label-missing"] == 1
    first = next(sample for sample in folders.samples if len(sample) == 1)
    assert first.xyxy.tolist() == [[0.0, 5.0, 20.0, 30.0]]  # cut to the image


def test_yolos_faults_and_yaml(tmp_path: Path) -> None:
    found = write_voc(tmp_path / "voc", {"train": 3})
    root = write_yolo(tmp_path / "yolo", found)
    (tmp_path / "voc" / "JPEGImages").rename(root / "images")
    stems = list(found)
    lines = [
        "0 0.5 0.5 0.1",
        "x 1 2 3 4",
        "7 0.5 0.5 0.1 0.1",
        "0 nan 0.5 0.1 0.1",
        "1 0.5 0.5 0.2 0.4",
        "0 .1 .1 .3 .1 .3 .4",
    ]
    (root / "labels" / f"{stems[0]}.txt").write_text("\n".join(lines))
    (root / "labels" / f"{stems[1]}.txt").write_text("")
    (root / "labels" / f"{stems[2]}.txt").unlink()
    (root / "labels" / "orphan.txt").write_text("0 0.5 0.5 0.1 0.1")
    folders = read_detection_folders(root)
    by_stem = {Path(sample.name).stem: sample for sample in folders.samples}
    assert set(by_stem) == set(stems[:2])  # an empty file says that there is nothing; no file says nothing
    assert len(by_stem[stems[1]]) == 0
    np.testing.assert_allclose(by_stem[stems[0]].xyxy, [[38.4, 21.6, 57.6, 50.4], [9.6, 7.2, 28.8, 28.8]], atol=1e-4)
    assert dict(kinds(folders)) == {
        "unlabelled": 1,
        "line-invalid": 1,
        "class-unknown": 1,
        "box-invalid": 1,
        "image-missing": 1,
    }


def test_parts_of_a_yolo_yaml(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        found = write_voc(tmp_path / part, {part: 2}, seed=len(part))
        write_yolo(tmp_path / "made" / part, found)
        (tmp_path / part / "JPEGImages").rename(tmp_path / "made" / part / "images")
    (tmp_path / "made" / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images  # as Roboflow writes it\n\nnc: 2\nnames: ['disc', \"square\"]\n"
    )
    folders = read_detection_folders(tmp_path / "made")
    assert folders.layout == "yolo"
    assert folders.classes == NAMES
    assert Counter(folders.parts.values()) == {"train": 2, "val": 2}


def test_simple_yaml_reads_what_yolo_writes() -> None:
    assert simple_yaml("names:\n  0: a\n  1: 'b: c'\npath: .\n")["names"] == {"0": "a", "1": "b: c"}
    assert simple_yaml("names:\n- a\n- b\n")["names"] == ["a", "b"]
    assert simple_yaml("names: [a, 'b, c',\n  d]\nx: 1")["names"] == ["a", "b, c", "d"]
    assert simple_yaml("names: {0: a, 1: b}")["names"] == {"0": "a", "1": "b"}
    assert simple_yaml("a: &x [1]\nb: *x")["b"] == "*x"  # an alias is text


def test_cocos_faults(tmp_path: Path) -> None:
    found = write_voc(tmp_path / "voc", {"train": 2})
    path = write_coco(tmp_path, found)
    table = json.loads(path.read_text())
    first = table["images"][0]["id"]
    table["annotations"] += [
        {"image_id": 9999, "category_id": 3, "bbox": [0, 0, 5, 5]},
        {"image_id": first, "category_id": 55, "bbox": [0, 0, 5, 5]},
        {"image_id": first, "category_id": 3, "bbox": [1, 2, 3]},
        {"image_id": first, "category_id": 3, "bbox": [0, 0, 40, 40], "iscrowd": 1},
        "nonsense",
    ]
    table["images"].append({"id": 5, "file_name": "../../etc/passwd"})
    path.write_text(json.dumps(table))
    folders = read_detection_folders(path, images=tmp_path / "voc" / "JPEGImages")
    assert dict(kinds(folders)) == {"orphan": 1, "class-unknown": 1, "box-invalid": 1, "image-missing": 1}
    assert sum(int(sample.crowd.sum()) for sample in folders.samples) == 1
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match="holds no image with boxes"):
        read_detection_folders(path)


def test_where_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_detection_folders(tmp_path / "missing")
    assert caught.value.slug == "input-missing"
    with pytest.raises(InputError) as caught:
        read_detection_folders(tmp_path)
    assert caught.value.slug == "no-boxes"
    with pytest.raises(ValueError, match="Received: layout='x'"):
        read_detection_folders(tmp_path, layout="x")
