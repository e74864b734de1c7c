"""Class folders and their split: order, damage, doubles, and parts that share nothing."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.train.rendered import SHAPES, write_shapes
from visionkit.errors import InputError
from visionkit.train.class_folders import Sample, read_class_folders
from visionkit.train.class_images import check_images
from visionkit.train.split import Split, block_split, read_split, stratified_split


def samples_of(counts: dict[int, int]) -> list[Sample]:
    return [Sample(f"{k}/{n}.jpg", k) for k, count in counts.items() for n in range(count)]


def test_classes_and_files_come_in_natural_order(tmp_path: Path) -> None:
    for name in ("10", "2", "1"):
        write_shapes(tmp_path / "x", 1)
        (tmp_path / "data" / name).mkdir(parents=True)
        for file in ("10.png", "9.png"):
            os.link(tmp_path / "x" / "circle" / "ci0.png", tmp_path / "data" / name / file)
    folders = read_class_folders(tmp_path / "data")
    assert folders.classes == ("1", "2", "10")
    assert [s.name for s in folders.samples] == [f"{c}/{n}.png" for c in (1, 2, 10) for n in (9, 10)]
    assert [s.class_id for s in folders.samples] == [0, 0, 1, 1, 2, 2]


def test_a_name_that_is_not_utf8_is_found_again(tmp_path: Path) -> None:
    write_shapes(tmp_path, 1)
    name = os.fsdecode(b"caf\xe9")
    (tmp_path / "circle").rename(tmp_path / name)
    folders = read_class_folders(tmp_path)
    assert folders.classes[0] == "caf\\xe9"
    assert folders.path(folders.samples[0]).is_file()


def test_a_folder_already_in_parts_keeps_them(tmp_path: Path) -> None:
    write_shapes(tmp_path / "train", 3, seed=0)
    write_shapes(tmp_path / "Validation", 2, seed=1)
    folders = read_class_folders(tmp_path)
    assert folders.classes == SHAPES
    assert Counter(folders.parts.values()) == {"train": 9, "val": 6}
    assert folders.samples[0].name == "train/circle/ci0.png"


def test_train_and_test_may_be_classes(tmp_path: Path) -> None:
    # no folders inside: two classes with these names, not parts
    write_shapes(tmp_path / "x", 2)
    (tmp_path / "data").mkdir()
    (tmp_path / "x" / "circle").rename(tmp_path / "data" / "train")
    (tmp_path / "x" / "cross").rename(tmp_path / "data" / "test")
    assert read_class_folders(tmp_path / "data").classes == ("test", "train")


@pytest.mark.parametrize("empty", ["missing", "nothing", "files"])
def test_what_is_no_class_folders_is_told(tmp_path: Path, empty: str) -> None:
    root = tmp_path / "data"
    if empty != "missing":
        root.mkdir()
    if empty == "files":
        (root / "a.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="data"):
        read_class_folders(root)


def test_an_empty_class_is_left_out_and_told(tmp_path: Path) -> None:
    write_shapes(tmp_path, 2)
    (tmp_path / "nothing").mkdir()
    folders = read_class_folders(tmp_path)
    assert "nothing" not in folders.classes
    assert [(p.kind, p.name) for p in folders.problems] == [("empty-class", "nothing")]


def test_a_folder_that_the_model_does_not_know_is_refused(tmp_path: Path) -> None:
    write_shapes(tmp_path, 1)
    with pytest.raises(InputError, match="square") as caught:
        read_class_folders(tmp_path, ("cross", "circle"))
    assert caught.value.slug == "unknown-class"
    given = read_class_folders(tmp_path, ("square", "line", "circle", "cross"))
    assert {s.name.split("/")[0]: s.class_id for s in given.samples} == {"square": 0, "circle": 2, "cross": 3}


def test_damage_doubles_and_contradictions_are_told_by_name(tmp_path: Path) -> None:
    write_shapes(tmp_path, 6)
    whole = (tmp_path / "circle" / "ci0.png").read_bytes()
    (tmp_path / "circle" / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "circle" / "none.png").write_bytes(b"")
    (tmp_path / "circle" / "again.png").write_bytes(whole)
    (tmp_path / "square" / "also.png").write_bytes((tmp_path / "cross" / "cr3.png").read_bytes())
    checked = check_images(read_class_folders(tmp_path))
    told = {(p.kind, p.name) for p in checked.problems}
    assert {("damaged", "circle/half.png"), ("damaged", "circle/none.png")} <= told
    assert ("duplicate", "circle/again.png") in told
    assert ("contradiction", "cross/cr3.png") in told
    names = {s.name for s in checked.samples}
    assert not names & {"circle/half.png", "circle/none.png", "cross/cr3.png", "square/also.png"}
    assert len(names) == 18  # 6 a class, one double more, one contradiction less


def test_only_damaged_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"a/x\.jpg"):
        check_images(read_class_folders(tmp_path))


def test_the_split_is_stratified_disjoint_whole_and_of_its_seed() -> None:
    samples = samples_of({0: 50, 1: 10, 2: 25})
    split = stratified_split(samples, val=0.2, test=0.2, seed=3)
    parts = [split.train, split.val, split.test]
    assert sum(map(len, parts)) == len(set().union(*map(set, parts))) == 85
    assert Counter(name[0] for name in split.val) == {"0": 10, "1": 2, "2": 5}
    assert Counter(name[0] for name in split.test) == {"0": 10, "1": 2, "2": 5}
    assert stratified_split(samples, val=0.2, test=0.2, seed=3) == split
    assert stratified_split(samples, val=0.2, test=0.2, seed=4) != split


def test_a_new_class_does_not_move_the_others() -> None:
    few = stratified_split(samples_of({0: 20, 1: 20}), val=0.2)
    more = stratified_split(samples_of({0: 20, 1: 20, 2: 20}), val=0.2)
    assert set(few.val) == {name for name in more.val if name[0] in "01"}


def test_the_same_image_stays_in_one_part() -> None:
    samples = samples_of({0: 40})
    digests = {s.name: str(n // 4) for n, s in enumerate(samples)}  # four copies of each
    split = stratified_split(samples, val=0.3, test=0.3, digests=digests)
    homes = [{digests[name] for name in part} for part in (split.train, split.val, split.test)]
    assert sum(map(len, homes)) == 10
    naive = stratified_split(samples, val=0.3, test=0.3)  # which knows no digests: the control
    assert {digests[n] for n in naive.train} & {digests[n] for n in naive.val}


def test_blocks_keep_neighbouring_names_together() -> None:
    # one person a run of ten file names, one name a class: photographs of a person never fall apart
    samples = [Sample(f"{k}/IMG_{100 + 10 * person + k}.jpg", k) for k in range(10) for person in range(20)]
    split = block_split(samples, val=0.2, test=0.2, seed=1, blocks=20)

    def people(names: tuple[str, ...]) -> set[int]:
        return {(int(name.split("_")[1][:-4]) - 100) // 10 for name in names}

    assert len(people(split.val)) == len(people(split.test)) == 4
    assert not people(split.train) & people(split.val) | people(split.val) & people(split.test)
    assert sum(len(part) for part in (split.train, split.val, split.test)) == 200
    random = stratified_split(samples, val=0.2, test=0.2)  # the control mixes them
    assert people(random.train) & people(random.test)


def test_a_class_too_small_for_the_split_is_named() -> None:
    with pytest.raises(InputError, match=r"1/0\.jpg") as caught:
        stratified_split(samples_of({0: 9, 1: 1}), val=0.2)
    assert caught.value.slug == "class-too-small"
    with pytest.raises(ValueError, match=r"val=0\.6"):
        stratified_split(samples_of({0: 9}), val=0.6, test=0.5)


def test_a_split_is_written_and_read_again(tmp_path: Path) -> None:
    samples = samples_of({0: 10, 1: 10})
    split = stratified_split(samples, val=0.2, test=0.2)
    split.write(tmp_path / "split.json", {"seed": 0})
    assert read_split(tmp_path / "split.json", samples) == split
    assert [s.name for s in split.select("val", samples)] == list(split.val)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[", "not JSON"),
        ("[]", "list of names"),
        ('{"train": 3}', "list of names"),
        ('{"train": ["0/1.jpg"], "val": ["0/1.jpg"]}', "two parts"),
        ('{"train": ["gone.jpg"]}', "None of the 1 names"),
    ],
)
def test_a_split_that_does_not_fit_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(InputError, match=told) as caught:
        read_split(tmp_path / "s.json", samples_of({0: 3}))
    assert caught.value.slug == "split-invalid"


def test_a_split_is_strict_json_of_relative_names(tmp_path: Path) -> None:
    Split(("a/1.jpg",), ("a/2.jpg",)).write(tmp_path / "split.json", {"seed": 5})
    table = json.loads((tmp_path / "split.json").read_text())
    assert table == {"seed": 5, "train": ["a/1.jpg"], "val": ["a/2.jpg"], "test": []}
