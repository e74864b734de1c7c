"""Folders of images and masks: layouts, what does not fit together, palettes, views whose mask stays exact."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.train.rendered_masks import palette_png, scene, write_camvid
from visionkit.errors import InputError
from visionkit.tasks.input_rule import InputRule
from visionkit.train.mask_files import decode_mask
from visionkit.train.mask_folders import VOID, LabelSet, MaskFolders, read_labels, read_mask_folders
from visionkit.train.mask_images import MaskBatches, SegmentMaterial, check_masks, class_weights
from visionkit.train.segment_augment import SegmentAugmentation

LABELS = LabelSet(("background", "disc", "square", "triangle"))
STILL = SegmentAugmentation(strength=0, flip=False)


def write_pair(images: Path, masks: Path, stem: str, mask_stem: str | None = None, seed: int = 0) -> None:
    image, mask = scene(np.random.default_rng(seed), (12, 17))
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(images / f"{stem}.png"), image)
    cv2.imwrite(str(masks / f"{mask_stem or stem}.png"), mask)


def named(folders: MaskFolders) -> dict[str, tuple[str, str]]:
    return {sample.name: (sample.mask, folders.parts.get(sample.name, "")) for sample in folders.samples}


def test_camvids_layout(tmp_path: Path) -> None:
    folders = read_mask_folders(write_camvid(tmp_path, {"train": 2, "val": 1}))
    assert folders.layout == "camvid"
    assert named(folders) == {
        "train/0000.png": ("trainannot/0000.png", "train"),
        "train/0001.png": ("trainannot/0001.png", "train"),
        "val/0000.png": ("valannot/0000.png", "val"),
    }


def test_vocs_layout_takes_the_lists_and_no_other_images(tmp_path: Path) -> None:
    for stem in ("a", "b", "c"):
        write_pair(tmp_path / "JPEGImages", tmp_path / "SegmentationClass", stem)
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nmissing\n")
    (lists / "val.txt").write_text("c\na\n")
    folders = read_mask_folders(tmp_path)
    assert folders.layout == "voc"
    assert named(folders) == {
        "JPEGImages/a.png": ("SegmentationClass/a.png", "train"),  # in two lists: it is learnt from
        "JPEGImages/c.png": ("SegmentationClass/c.png", "val"),
    }
    assert [(p.kind, p.name) for p in folders.problems] == [("unmatched", "missing")]


@pytest.mark.parametrize("inside", [True, False])
def test_images_beside_masks_with_and_without_parts(tmp_path: Path, *, inside: bool) -> None:
    for part in ("train", "val"):
        images, masks = (
            (tmp_path / part / "images", tmp_path / part / "masks")
            if inside
            else (tmp_path / "images" / part, tmp_path / "masks" / part)
        )
        write_pair(images, masks, "7", "7_mask")
    folders = read_mask_folders(tmp_path)
    assert folders.layout == "pairs"
    assert sorted(folders.parts.values()) == ["train", "val"]
    assert all(sample.mask.endswith("7_mask.png") for sample in folders.samples)


def test_what_is_alone_is_told_by_name(tmp_path: Path) -> None:
    write_pair(tmp_path / "images", tmp_path / "masks", "both")
    cv2.imwrite(str(tmp_path / "images" / "only_image.png"), np.zeros((3, 4, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "masks" / "only_mask.png"), np.zeros((3, 4), np.uint8))
    folders = read_mask_folders(tmp_path)
    assert [sample.name for sample in folders.samples] == ["images/both.png"]
    assert [(p.name, p.reason) for p in folders.problems] == [
        ("images/only_image.png", "has no mask in masks/"),
        ("masks/only_mask.png", "has no image in images/"),
    ]


def test_a_folder_without_pairs_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    with pytest.raises(InputError, match="images/ beside masks/") as caught:
        read_mask_folders(tmp_path)
    assert caught.value.slug == "no-masks"
    with pytest.raises(InputError):
        read_mask_folders(tmp_path / "nowhere")


def test_masks_that_do_not_fit_are_left_out_and_told_by_name(tmp_path: Path) -> None:
    write_camvid(tmp_path, {"train": 5})
    annot = tmp_path / "trainannot"
    cv2.imwrite(str(annot / "0001.png"), np.zeros((9, 56), np.uint8))  # another size
    cv2.imwrite(str(annot / "0002.png"), np.full((40, 56), 77, np.uint8))  # no class
    cv2.imwrite(str(annot / "0003.png"), np.zeros((40, 56, 3), np.uint8) + np.uint8([1, 2, 3]))  # colours
    (tmp_path / "train" / "0004.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    checked = check_masks(SegmentMaterial(read_mask_folders(tmp_path), LABELS))
    assert [sample.name for sample in checked.samples] == ["train/0000.png"]
    told = {problem.name: (problem.kind, problem.reason) for problem in checked.problems}
    assert told["train/0001.png"][0] == "mask-size"
    assert "56x9" in told["train/0001.png"][1]
    assert told["train/0002.png"][0] == "mask-unknown"
    assert "77" in told["train/0002.png"][1]
    assert told["train/0003.png"][0] == "mask-colours"
    assert told["train/0004.png"][0] == "input-undecodable"
    void = check_masks(SegmentMaterial(read_mask_folders(tmp_path), LabelSet(LABELS.names, frozenset({77}))))
    assert "train/0002.png" in [sample.name for sample in void.samples]
    for path in annot.iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="Not one pair"):
        check_masks(SegmentMaterial(read_mask_folders(tmp_path), LABELS))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_of_a_png_with_a_palette_the_indices_count(bits: int) -> None:
    count = 1 << bits
    rng = np.random.default_rng(bits)
    numbers = rng.integers(0, count, (7, 13)).astype(np.uint8)
    palette = rng.integers(0, 256, (count, 3)).astype(np.uint8)
    palette[1] = palette[0]  # colours alone could not tell these two apart
    assert np.array_equal(decode_mask(palette_png(numbers, palette, bits), "mask.png"), numbers)


def test_grey_masks_of_few_and_many_bits() -> None:
    numbers = np.random.default_rng(0).integers(0, 4, (7, 13)).astype(np.uint8)
    for dtype in (np.uint8, np.uint16):
        data = cv2.imencode(".png", numbers.astype(dtype))[1].tobytes()
        assert np.array_equal(decode_mask(data, "mask.png"), numbers)
    two = cv2.imencode(".png", (numbers % 2) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes()
    assert np.array_equal(decode_mask(two, "mask.png"), numbers % 2)
    with pytest.raises(InputError, match="above 255"):
        decode_mask(cv2.imencode(".png", np.full((2, 3), 300, np.uint16))[1].tobytes(), "mask.png")


def test_labels_of_camvid_and_of_a_file(tmp_path: Path) -> None:
    camvid = read_labels("camvid")
    assert len(camvid.names) == 11
    assert camvid.void == {11}
    (tmp_path / "names.txt").write_text("sky\n\nroad\n")
    assert read_labels(str(tmp_path / "names.txt")).names == ("sky", "road")
    (tmp_path / "twice.txt").write_text("sky\nsky\n")
    for given in ("nothing-known", str(tmp_path / "twice.txt")):
        with pytest.raises(InputError) as caught:
            read_labels(given)
        assert caught.value.slug == "labels-unknown"


def test_median_frequency_weights_by_hand() -> None:
    # class 0: 30 of 100 + 100 pixels, class 1: 10 of 100 (only the first image has it), class 2: 160 of 200
    pixels = np.array([[20, 10, 70, 0], [10, 0, 90, 0]])
    frequency = np.array([0.15, 0.10, 0.80])
    assert np.allclose(class_weights(pixels, "median"), [*(0.15 / frequency), 1])
    assert np.allclose(class_weights(pixels, "sqrt"), [*np.sqrt(0.15 / frequency), 1])
    assert class_weights(pixels, "none").tolist() == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="kind"):
        class_weights(pixels, "half")


def test_a_flipped_mask_is_the_mask_flipped_exactly() -> None:
    image, mask = scene(np.random.default_rng(5), (41, 57))
    flip = SegmentAugmentation(strength=0, flip=True)
    seen = {False: 0, True: 0}
    for seed in range(12):
        view, truth = flip(image, mask, (1.0, 1.0), (41, 57), np.random.default_rng(seed))
        mirrored = bool((view != image).any())
        seen[mirrored] += 1
        assert np.array_equal(truth, mask[:, ::-1] if mirrored else mask)
        assert np.array_equal(view, image[:, ::-1] if mirrored else image)
    assert min(seen.values()) > 0


def test_a_view_is_a_piece_of_the_image_and_its_mask_the_same_piece() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (30, 44, 3)).astype(np.uint8)
    mask = rng.integers(0, 4, (30, 44)).astype(np.uint8)
    places = set()
    for seed in range(8):
        view, truth = STILL(image, mask, (1.0, 1.0), (20, 24), np.random.default_rng(seed))
        found = [(y, x) for y in range(11) for x in range(21) if np.array_equal(view, image[y : y + 20, x : x + 24])]
        assert len(found) == 1
        (y, x) = found[0]
        assert np.array_equal(truth, mask[y : y + 20, x : x + 24])
        places.add((y, x))
    assert len(places) > 4


def test_a_changed_mask_stays_with_its_image_and_holds_no_new_numbers() -> None:
    # the image is the mask in grey: after scale, turn and crop both must still say the same
    mask = cv2.resize(scene(np.random.default_rng(2))[1], (120, 90), interpolation=cv2.INTER_NEAREST) * np.uint8(60)
    image = np.repeat(mask[..., None], 3, axis=2)
    strong = SegmentAugmentation(strength=1.5, light=0, colour=0, still=0)
    for seed in range(10):
        view, truth = strong(image, mask, (0.8, 0.8), (60, 64), np.random.default_rng(seed))
        assert set(np.unique(truth)) <= {0, 60, 120, 180, VOID}
        inside = (truth != VOID) & (
            cv2.erode((truth == cv2.dilate(truth, np.ones((3, 3)))).astype(np.uint8), np.ones((3, 3))) > 0
        )
        assert (np.abs(view[..., 0].astype(int) - truth) <= 2)[inside].mean() > 0.99


def test_what_lies_outside_of_the_image_is_void() -> None:
    image, mask = scene(np.random.default_rng(3), (20, 20))
    view, truth = STILL(image, mask, (1.0, 1.0), (32, 40), np.random.default_rng(0))
    assert view.shape == (32, 40, 3)
    assert (truth == VOID).sum() == 32 * 40 - 20 * 20


def test_batches_are_the_same_for_a_seed_whatever_the_threads(tmp_path: Path) -> None:
    folders = read_mask_folders(write_camvid(tmp_path, {"train": 5}))
    rule = InputRule.preset("torch", (40, 56), resize="stretch")

    def first(seed: int, workers: int, start: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
        batches = MaskBatches(
            SegmentMaterial(folders, LABELS),
            folders.samples,
            rule,
            SegmentAugmentation(),
            crop_hw=(24, 32),
            batch=2,
            seed=seed,
            workers=workers,
        )
        assert batches.steps_per_epoch == 2
        stream = batches.stream(start)
        return [next(stream) for _ in range(3)]

    one, two = first(0, 1), first(0, 3)
    for (x, y), (x2, y2) in zip(one, two, strict=True):
        assert x.shape == (2, 24, 32, 3)
        assert y.shape == (2, 24, 32)
        assert y.dtype == np.int32
        assert np.array_equal(x, x2)
        assert np.array_equal(y, y2)
    assert np.array_equal(first(0, 1, start=2)[0][0], one[2][0])  # a resumed stream
    assert not np.array_equal(first(1, 1)[0][0], one[0][0])
