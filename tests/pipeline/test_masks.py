"""Runs that segment: rows, indexed masks, failing frames, frames worth labelling."""

from __future__ import annotations

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.tasks.made_segment import by_color, halves, made_segmenter
from visionkit.errors import ModelError
from visionkit.io import VideoWriter, read_results
from visionkit.io.indexed_png import indexed_png, voc_palette
from visionkit.pipeline import Item, MaskSink, SegmentStage, UncertainSink, Writing, run, stream
from visionkit.structures import Frame

SIZE_HW = (48, 72)
COUNT = 100


def place_of(index):
    """Where the red part of image `index` ends."""
    return 8 + index // 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """100 images, red on the left and green on the right; image 57 is all blue."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(COUNT):
        image = halves(SIZE_HW, "blue", "blue") if index == 57 else halves(SIZE_HW, at=place_of(index))
        cv2.imwrite(str(folder / f"{index:03}.png"), image)
    return folder


def segmented(source, out, segmenter, sinks=(), entropy=False, **options):
    stage = SegmentStage(segmenter, entropy=entropy)
    result = run(source, [stage], writing=Writing(out=out, video=False), sinks=[MaskSink(stage), *sinks], **options)
    return result, list(read_results(out / "results.jsonl"))


def failing(kind):
    """The network by colour, that fails on blue images."""

    def function(inputs):
        if inputs[..., 2].mean() > 200:
            if kind == "raise":
                raise ModelError("model-failed", "made to fail")
            return np.zeros((1, 3)) if kind == "shape" else np.full((1, 8, 8, 4), np.nan)
        return by_color(inputs)

    return made_segmenter(function)


def test_rows_and_masks_equal_the_segmenter_image_by_image(folder, tmp_path):
    result, rows = segmented(folder, tmp_path / "out", made_segmenter())
    assert result.status == "complete"
    assert [row["mask"] for row in rows] == [f"masks/{index:06d}.png" for index in range(COUNT)]
    alone = made_segmenter()
    for row in rows[::7]:
        expected = alone(cv2.imread(str(folder / row["source"]))).class_map
        mask = Image.open(tmp_path / "out" / row["mask"])
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), expected)
        assert mask.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
        names, counts = np.unique(expected, return_counts=True)
        shares = {alone.labels[n]: round(c / expected.size, 6) for n, c in zip(names, counts, strict=True)}
        assert row["area"] == shares
        assert sum(row["area"].values()) == pytest.approx(1, abs=1e-5)
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["settings"]["segment"]["input_hw"] == [64, 96]
    assert manifest["files"]["masks"]["frames"] == COUNT


@pytest.mark.parametrize("kind", ["nan", "raise", "shape"])
def test_d14_a_frame_that_fails_fails_alone(folder, tmp_path, kind):
    clean = segmented(folder, tmp_path / "clean", made_segmenter())[1]
    result, rows = segmented(folder, tmp_path / "out", failing(kind))
    assert (result.status, result.exit_code) == ("damaged", 4)
    assert "segment: " in rows[57]["error"]
    assert not {"area", "mask"} & rows[57].keys()
    assert not (tmp_path / "out" / "masks" / "000057.png").exists()
    assert rows[:57] + rows[58:] == clean[:57] + clean[58:]
    with pytest.raises(ModelError):
        segmented(folder, tmp_path / "fast", failing(kind), fail_fast=True)
    assert not (tmp_path / "fast").exists()


def test_several_workers_keep_the_order(folder, tmp_path):
    one = segmented(folder, tmp_path / "one", made_segmenter())[1]
    stage = SegmentStage(made_segmenter(), workers=4)
    run(folder, [stage], writing=Writing(out=tmp_path / "four", video=False), sinks=[MaskSink(stage)])
    assert list(read_results(tmp_path / "four" / "results.jsonl")) == one


def test_a_stream_yields_segmentations(folder):
    found = list(stream(str(folder / "00*.png"), SegmentStage(made_segmenter())))
    assert [frame.index for frame, _ in found] == list(range(10))
    assert all(answer.class_map.shape == SIZE_HW for _, answer in found)


def test_too_many_classes_for_8_bits_are_refused_before_anything_runs(folder, tmp_path):
    many = made_segmenter(labels=[str(i) for i in range(300)])
    with pytest.raises(ModelError) as caught:
        segmented(folder, tmp_path / "out", many)
    assert caught.value.slug == "too-many-classes"
    assert not (tmp_path / "out").exists()


class Video:
    """A CRF over time that remembers how it was called, and answers with the class before."""

    def __init__(self):
        self.calls, self.before = [], None

    def reset(self):
        self.calls.append("reset")
        self.before = None

    def prepare(self, probs, image):
        return probs

    def settle(self, probs):
        self.calls.append("first" if self.before is None else "next")
        before, self.before = self.before, probs
        return probs if before is None else before


def test_a_crf_over_time_sees_the_frames_in_order_and_starts_afresh_behind_a_failure(tmp_path):
    clip = tmp_path / "clip.mp4"
    with VideoWriter(clip, size_hw=SIZE_HW, fps=25) as writer:
        for index in range(8):
            image = halves(SIZE_HW, "blue", "blue") if index == 4 else halves(SIZE_HW, at=8 + 8 * index)
            writer.write(image, 40.0 * index, 40.0)
    video, segmenter = Video(), failing("nan")
    segmenter.refiner = SimpleNamespace(video=lambda: video, settings=lambda size_hw: {})
    stage = SegmentStage(segmenter, workers=3)
    run(clip, [stage], writing=Writing(out=tmp_path / "out", video=False), sinks=[MaskSink(stage)])
    assert video.calls == ["first", "next", "next", "next", "reset", "first", "next", "next"]
    rows = list(read_results(tmp_path / "out" / "results.jsonl"))
    assert "error" in rows[4]
    assert rows[1]["area"] == rows[0]["area"]
    assert rows[2]["area"]["red"] == pytest.approx(16 / 72, abs=0.05)  # the frame before, without its CRF
    assert json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["segment"]["crf_over_time"] is True


def test_indexed_files_are_what_other_programs_expect(tmp_path):
    ids = np.random.default_rng(0).integers(0, 256, (13, 37)).astype(np.uint8)
    for palette in ((), ((9, 8, 7),), tuple((i, i, 255 - i) for i in range(256))):
        path = tmp_path / "mask.png"
        path.write_bytes(indexed_png(ids, palette))
        with Image.open(path) as read:
            assert (read.mode, read.size) == ("P", (37, 13))
            assert np.array_equal(np.asarray(read), ids)
            colors = np.asarray(read.convert("RGB"))
        table = np.array([*palette, *voc_palette()[len(palette) :]], np.uint8)
        assert np.array_equal(colors, table[ids])
        assert np.array_equal(cv2.imread(str(path))[..., ::-1], colors)
    for bad in (ids.astype(int), ids[0], ids[:0]):
        with pytest.raises(ValueError, match="uint8"):
            indexed_png(bad)


def test_the_palette_is_pascal_vocs():
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        7: (128, 128, 128),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    palette = voc_palette()
    assert len(set(palette)) == 256
    assert {place: palette[place] for place in known} == known


def item_at(index, entropy, pts_ms):
    image = np.full((4, 6, 3), index % 256, np.uint8)
    item = Item(Frame(image, index, pts_ms, None if pts_ms is None else 40.0, "clip"))
    item.results["entropy"] = np.full((2, 3), entropy, np.float32)
    return item


def chosen_of(count, values, tmp_path, timed=True):
    sink = UncertainSink(count)
    sink.place = lambda name: (tmp_path / name).parent.mkdir(exist_ok=True) or tmp_path / name
    most = 0
    for index, value in enumerate(values):
        sink.process([item_at(index, value, 40.0 * index if timed else None)])
        most = max(most, len(sink._held))
    told = sink.finish()
    return told, [json.loads(line) for line in (tmp_path / "uncertain/list.jsonl").read_text().splitlines()], most


def test_uncertain_frames_of_a_video_are_the_worst_and_lie_apart(tmp_path):
    """Two bumps, the first higher; the top frames alone would all come from it."""
    times = np.arange(1000)
    values = 0.2 + 0.6 * np.exp(-(((times - 300) / 40) ** 2)) + 0.4 * np.exp(-(((times - 800) / 40) ** 2))
    told, rows, most = chosen_of(4, values, tmp_path)
    assert told["frames"] == 4
    assert most <= 8 * 4
    found = [row["index"] for row in rows]
    assert abs(found[0] - 300) <= 4
    assert any(abs(index - 800) < 30 for index in found)
    assert np.diff(sorted(found)).min() >= 0.95 * 1000 / 8  # the frames that are held need not reach the ends
    assert [row["entropy"] for row in rows] == sorted((row["entropy"] for row in rows), reverse=True)
    top = np.argsort(-values)[:4]
    assert np.ptp(top) < 10, "the control: the worst frames themselves are neighbours"
    for row in rows:
        image = cv2.imread(str(tmp_path / row["file"]))
        assert (image == row["index"] % 256).all()
        assert row["pts_ms"] == 40.0 * row["index"]


def test_uncertain_images_are_simply_the_worst(tmp_path):
    values = np.random.default_rng(1).permutation(200) / 200
    _, rows, most = chosen_of(5, values, tmp_path, timed=False)
    assert [row["index"] for row in rows] == np.argsort(-values)[:5].tolist()
    assert most == 5


def test_fewer_frames_than_wanted_are_all_saved(tmp_path):
    _, rows, _ = chosen_of(5, [0.1, 0.3], tmp_path)
    assert [row["index"] for row in rows] == [1, 0]


def test_a_clip_with_uncertain_frames_end_to_end(tmp_path):
    """Frames 20 to 29 are grey, which the network by colour is least sure of."""
    clip = tmp_path / "clip.mp4"
    with VideoWriter(clip, size_hw=SIZE_HW, fps=25) as writer:
        for index in range(50):
            image = halves(SIZE_HW, "grey", "grey") if 20 <= index < 30 else halves(SIZE_HW)
            writer.write(image, 40.0 * index, 40.0)
    result, rows = segmented(clip, tmp_path / "out", made_segmenter(), [UncertainSink(1)], entropy=True)
    assert result.status == "complete"
    listed = [json.loads(line) for line in (tmp_path / "out/uncertain/list.jsonl").read_text().splitlines()]
    assert len(listed) == 1
    assert 20 <= listed[0]["index"] < 30
    assert rows[listed[0]["index"]]["entropy"] == max(row["entropy"] for row in rows)
    saved = cv2.imread(str(tmp_path / "out" / listed[0]["file"])).astype(int)
    assert np.abs(saved - 90).max() < 12, "the frame as decoded, without a drawing"
