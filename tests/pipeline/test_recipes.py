"""Recipes: equal to the commands they stand for, stages in a chain, settings."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import visionkit as vk
from tests.tasks.cards import write_card
from tests.tasks.made_detect import scene, write_detect_card
from tests.tasks.made_segment import write_segment_card
from tests.tasks.made_transform import write_transformer_card
from visionkit.cli import classify, detect, rectify, segment, track
from visionkit.cli.shell import run
from visionkit.errors import ModelError
from visionkit.io import VideoWriter, open_source, read_results
from visionkit.io.results import frame_row, result_fields
from visionkit.pipeline.recipe_file import load_recipe
from visionkit.pipeline.recipe_run import reading_by, writing_by
from visionkit.pipeline.recipe_stages import OUTPUT, SOURCE, STAGES
from visionkit.pipeline.regions import RegionsStage, region_boxes
from visionkit.structures import Segmentation
from visionkit.tasks import BoxRectifier, load_classifier, load_detector

SIZE_HW, COUNT = (96, 160), 12
COMMANDS = {"detect": detect, "segment": segment, "classify": classify, "rectify": rectify, "track": track}
# Words of the command line that recipes say otherwise.
OTHER = {"xyxy": "box", "select": None, "trust_model": None}
CORNERS = "10,5,80,12,70,60,4,55"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for all tests, so that each network is compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISIONKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A folder with small cards: `find`, `part`, `name` and `turn`."""
    folder = tmp_path_factory.mktemp("models")
    write_detect_card(folder / "find")
    write_segment_card(folder / "part")
    write_card(folder / "name")
    write_transformer_card(folder / "turn", [0.5, -0.1, 0.1, 0.1, 0.5, 0])
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    with VideoWriter(path, size_hw=SIZE_HW, fps=25) as writer:
        for index in range(COUNT):
            left = 4 + 3 * index
            image = scene(SIZE_HW, [("red", left, 20, left + 24, 44), ("green", 100, 60, 130, 90)])
            writer.write(image, 40.0 * index, 40.0)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe_at(path: Path, *stages: str, more: str = "") -> Path:
    text = "".join(f"[[stage]]\n{one}\n" for one in stages)
    path.write_text(text + more)
    return path


def rows_of(folder) -> list[dict]:
    return list(read_results(Path(folder) / "results.jsonl"))


HOW = 'runtime = "litert"\nthreads = 1\n'


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (f'use = "detect"\nmodel = "find"\nconf = 0.2\nmax_det = 9\n{HOW}', "detect find --conf 0.2 --max-det 9"),
        (
            f'use = "detect"\nmodel = "find"\nconf = 0.1\ntrack = true\nlines = [[80, 0, 80, 96]]\n{HOW}',
            "detect find --conf 0.1 --track --line 80,0,80,96",
        ),
        (f'use = "classify"\nmodel = "name"\ntopk = 2\n{HOW}', "classify name --topk 2"),
        (f'use = "dense"\nmodel = "name"\nheat = "1"\n{HOW}', "classify name --dense --heat 1"),
        (f'use = "segment"\nmodel = "part"\nuncertainty = true\n{HOW}', "segment part --uncertainty"),
        (f'use = "rectify"\nmodel = "turn"\nborder = "clamp"\n{HOW}', "rectify turn --border clamp"),
        (f'use = "rectify"\ncorners = [{CORNERS}]\nsize = [40, 50]\n', f"rectify - --corners {CORNERS} --size 40,50"),
        (f'use = "track"\nbox = [4, 20, 24, 24]\nmodel = "siambox_light"\n{HOW}', "track - --box 4,20,24,24"),
    ],
    ids=lambda value: value.split()[0] if "use" not in value else None,
)
def test_one_stage_writes_the_bytes_of_its_command(models, clip, here, stage, words):
    verb, model, *args = words.split()
    if model != "-":
        args += ["--model", str(models / model)]
    if "litert" in stage:
        args += ["--runtime", "litert", "--threads", "1"]
    recipe = recipe_at(models / f"{here.name}.toml", stage)
    assert run([verb, str(clip), *args, "--out", "command"]) == 0
    assert run(["run", str(recipe), str(clip), "--out", "recipe"]) == 0
    named = {path.relative_to("command") for path in Path("command").rglob("*") if path.is_file()}
    assert {path.relative_to("recipe") for path in Path("recipe").rglob("*") if path.is_file()} == named
    for name in named - {Path("run.json")}:
        assert (Path("recipe") / name).read_bytes() == (Path("command") / name).read_bytes(), name
    one, other = (json.loads(Path(name, "run.json").read_text()) for name in ("command", "recipe"))
    assert (one["settings"], one["model"]) == (other["settings"], other["model"])
    assert other["recipe"]["sha256"] == hashlib.sha256(recipe.read_bytes()).hexdigest()
    assert "recipe" not in one
    assert len(rows_of("recipe")) == COUNT
    by_api = vk.run(str(clip), vk.recipe(recipe), out=here / "api", progress=False)
    assert (by_api.out / "results.jsonl").read_bytes() == Path("command/results.jsonl").read_bytes()


@pytest.mark.parametrize("use", sorted(COMMANDS))
def test_options_are_those_of_the_command_with_the_same_values(use):
    options = STAGES[use].options
    found = {one.name: one for one in COMMANDS[use].command.params}
    ends = {"source", "start_s", "end_s", "vid_stride", "backend", "max_pixels"}
    ends |= {"out", "overwrite", "video", "codec", "formats", "show"}
    dense = {"dense", "stride", "exact", "heat"}
    words = {OTHER.get(name, name): one for name, one in found.items() if name not in ends | dense}
    words.pop(None, None)
    assert set(words) <= set(options)
    assert set(options) - set(words) <= {"of", "boxes", "margin", "square", "save_crops"}  # what chains need
    for name, one in words.items():
        usual = None if str(one.default).endswith("UNSET") else one.default
        assert options[name].usual == (usual or options[name].usual), name
        assert not (usual is None and options[name].usual not in (None, False, ())), name


def test_a_source_and_an_output_without_words_are_the_usual_ones():
    from visionkit.pipeline import Reading, Writing

    assert reading_by({}) == Reading()
    assert writing_by({}) == Writing()
    assert reading_by({"start": 1.5, "vid_stride": 2}) == Reading(start_s=1.5, stride=2)
    assert set(SOURCE) == {"start", "end", "vid_stride", "backend", "max_pixels"}
    assert set(OUTPUT) == {"out", "video", "codec", "format"}


def test_detect_rectify_classify_is_what_the_tasks_say_one_after_the_other(models, clip, here):
    recipe = recipe_at(
        models / "chain.toml",
        f'use = "detect"\nmodel = "find"\nconf = 0.1\nmax_det = 4\n{HOW}',
        'use = "rectify"\nboxes = true\nsize = 32\nantialias = true\nsave_crops = true',
        f'use = "classify"\nof = "crops"\nmodel = "name"\n{HOW}',
    )
    assert run(["run", str(recipe), str(clip), "--out", "out"]) == 0
    finder = load_detector(models / "find", runtime="litert", threads=1, conf=0.1, max_det=4)
    namer = load_classifier(models / "name", runtime="litert", threads=1)
    straight, crops = BoxRectifier((32, 32)), 0
    with open_source(clip) as frames:
        for frame, row in zip(frames, rows_of("out"), strict=True):
            found = finder(frame.image)
            assert row["detections"] == frame_row(frame, found, class_names=finder.labels)["detections"]
            assert len(row["rectified"]) == len(found)
            for box, entry in zip(found.xyxy, row["rectified"], strict=True):
                crop = straight.inside(frame.image, box).image
                np.testing.assert_array_equal(cv2.imread(f"out/{entry['file']}"), crop)
                assert entry["classes"] == result_fields(namer(crop), namer.labels)["classes"]
                crops += 1
    assert crops >= COUNT
    assert len(list(Path("out/crops").iterdir())) == crops
    told = json.loads(Path("out/run.json").read_text())
    assert {name: one["name"] for name, one in told["models"].items()} == {"detect": "find", "classify": "name"}
    assert [stage["use"] for stage in told["recipe"]["stages"]] == ["detect", "rectify", "classify"]


def test_regions_are_boxes_around_pieces_largest_first(models, clip, here):
    class_map = np.zeros((20, 30), np.uint8)
    class_map[2:5, 3:9], class_map[5, 9] = 1, 1  # touches by a corner: one piece of 19 pixels
    class_map[10:18, 1:6] = 2
    class_map[0, 29] = 1
    sure = np.where(class_map == 2, 0.75, 0.5).astype(np.float32)
    found = region_boxes(Segmentation(class_map, sure), min_area=0.01)
    assert found.xyxy.tolist() == [[1, 10, 6, 18], [3, 2, 10, 6]]
    assert (found.class_id.tolist(), found.confidence.tolist()) == ([2, 1], [0.75, 0.5])
    assert len(region_boxes(Segmentation(class_map), min_area=0)) == 3
    assert region_boxes(Segmentation(class_map), [1], min_area=0.01).confidence.tolist() == [1]
    assert len(region_boxes(Segmentation(class_map), min_area=0, max_regions=1)) == 1
    assert len(region_boxes(Segmentation(np.zeros((4, 5), np.uint8)))) == 0
    recipe = recipe_at(models / "pieces.toml", f'use = "segment"\nmodel = "part"\n{HOW}', 'use = "regions"\n')
    out = ["--out", "out", "--format", "coco"]
    assert run(["run", str(recipe), str(clip), "--set", "regions.min_area=0", *out]) == 0
    assert all("detections" in row and "mask" in row for row in rows_of("out"))
    assert run(["run", str(recipe), str(clip), "--set", "regions.classes=zebra", "--out", "two"]) == 5
    with pytest.raises(ModelError, match="the model has no class 'zebra'; it has"):
        vk.run(str(clip), vk.recipe(recipe, {"regions.classes": ["zebra"]}), out="three", progress=False)
    with pytest.raises(ValueError, match="`min_area` must be at least 0 and less than 1"):
        RegionsStage(None, min_area=1)


def test_a_setting_is_named_by_kind_or_number(models):
    recipe = load_recipe(
        recipe_at(models / "set.toml", 'use = "detect"\nmodel = "find"', 'use = "rectify"\nboxes = true\nsize = 9')
    )
    given = {"detect.classes": "car,bus", "1.conf": "0.5", "2.size": "[4, 5]", "rectify.square": True}
    given |= {"detect.lines": "[[1, 2, 3, 4]]", "detect.track": "true", "detect.model": "bccd_cells"}
    found = recipe.changed(given).stages
    assert found[0].given == {
        "model": "bccd_cells",
        "classes": ("car", "bus"),
        "conf": 0.5,
        "lines": (((1.0, 2.0), (3.0, 4.0)),),
        "track": True,
    }
    assert found[1].given == {"boxes": True, "size": (4, 5), "square": True}
    assert recipe.stages[0].given == {"model": str(models / "find")}
