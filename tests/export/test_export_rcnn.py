"""Two-stage detectors as files: the parts for VisionKit, and one graph from pixels to boxes and masks for everyone."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.export.detector_weights import spread
from tests.export.plain import picture, served
from tests.export.test_export_ssd import assert_same, batched, expected, worst
from visionkit import nets
from visionkit.errors import ModelError
from visionkit.export import export_model, plan_rcnn
from visionkit.export.input_graph import DetectGraph
from visionkit.export.plan import ExportOptions, make_plan
from visionkit.runtime.quiet import import_keras
from visionkit.tasks import load_detector
from visionkit.weights import Card, load_card

SIZE_HW = (96, 128)
IMAGES = [picture(150, 200), picture(140, 90, 1), picture(*SIZE_HW, 2)]
FORMATS = {"savedmodel": "net", "litert": "net.tflite"}
LABELS = ("car", "bus", "dog")
# anchors as small as the images: those of 512 pixels would enlarge a network's noise too
RULE = {"pre_nms": 60, "post_nms": 40, "max_det": 20, "anchor_sizes": [[16.0, 32.0, 64.0]] * 3}
MASK_RULE = {**RULE, "post_nms": 20, "max_det": 10, "anchor_sizes": [[8.0], [16.0], [32.0], [48.0], [64.0]]}


def write_rcnn_card(folder: Path, network: str, rule: dict[str, Any]) -> Path:
    """A card of a two-stage network for small inputs, its random weights such that answers differ."""
    keras = import_keras()
    keras.utils.set_random_seed(5)
    args = {"size_hw": list(SIZE_HW), "rule": rule}
    model = getattr(nets, network)(classes=len(LABELS) + 1, size_hw=SIZE_HW, rule=rule)
    spread(model, (np.stack([IMAGES[2], picture(*SIZE_HW, 7)]).astype(np.float32) - 120) / 60)
    folder.mkdir(parents=True)
    model.save_weights(folder / "w.weights.h5")
    digest = hashlib.sha256((folder / "w.weights.h5").read_bytes()).hexdigest()
    lines = ['task = "detect"', f'network = "{network}"', 'licence = "Apache-2.0"', f"labels = {json.dumps(LABELS)}"]
    lines += ["[args]", f"size_hw = {args['size_hw']}"]
    lines += ["[args.rule]", *(f"{key} = {value}" for key, value in rule.items())]
    lines += ["[input]", "size_hw = [96, 256]", 'resize = "shortest_side"', 'preset = "torch"']
    lines += ["[options]", f"max_det = {rule['max_det']}"]
    lines += ["[[weights]]", 'file = "w.weights.h5"', f'sha256 = "{digest}"', 'format = "visionkit"']
    (folder / "card.toml").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def card(tmp_path_factory) -> Card:
    folder = tmp_path_factory.mktemp("cards") / "tiny"
    return load_card(write_rcnn_card(folder, "fasterrcnn_mobilenet_v3_large_320_fpn", RULE))


@pytest.fixture(scope="module")
def made(card, tmp_path_factory) -> Callable[[str], Path]:
    """It in a format, written when it is first asked for."""
    place = tmp_path_factory.mktemp("made")
    return functools.cache(lambda kind: export_model(card, place / FORMATS[kind], format=kind, probes=IMAGES[:1]).path)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "savedmodel")) for kind in FORMATS]
)
def test_alone_and_in_the_loader_it_says_what_the_card_says(card: Card, made, kind: str, tmp_path: Path) -> None:
    images = IMAGES if kind == "savedmodel" else [IMAGES[2]]  # LiteRT: of the network's size
    plan = make_plan(card, ExportOptions(kind))
    answers = served(made(kind), images, tmp_path)
    task = load_detector(made(kind), trust=True, runtime=kind)
    assert task.labels == LABELS
    for image, answer in zip(images, answers, strict=True):
        assert worst(plan, {name: value[None] for name, value in answer.items()}, expected(plan, image)) < 1e-4
        assert assert_same(answer, task, image) > 5
    # an image whose aspect fits goes in as the card has it
    loose = load_detector(card.folder, runtime="keras")
    assert_same(answers[-1], loose, images[-1])


def test_parts_are_those_that_the_loader_asks_for(card: Card) -> None:
    plan = make_plan(card, ExportOptions("litert"))
    assert dict(plan.parts) == {"trunk": "raw_trunk", "box_head": "raw_box_head"}
    assert plan.raw["raw_box_head"].inputs[0].shape == (40, 7, 7, 256)
    assert plan.card.input["resize"] == "corner"
    assert tuple(plan.card.input["size_hw"]) == SIZE_HW


@pytest.mark.parametrize("fault", ["swapped", "background", "unscaled", "bgr", "padding"])
def test_a_wrong_graph_is_found(card: Card, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, image = make_plan(card, ExportOptions("savedmodel")), IMAGES[1]
    wanted = expected(plan, image)
    assert worst(plan, batched(plan, image), wanted) < 1e-4
    to_image, inputs = DetectGraph.to_image, DetectGraph.inputs
    if fault == "swapped":
        monkeypatch.setattr(DetectGraph, "to_image", lambda s, b, *a: to_image(s, b, *a)[..., ::-1])
    elif fault == "unscaled":
        monkeypatch.setattr(DetectGraph, "to_image", lambda s, b, *a: b)
    elif fault == "bgr":
        monkeypatch.setattr(DetectGraph, "inputs", lambda s, x, fixed: inputs(s, x[..., ::-1], fixed))
    elif fault == "padding":  # zeros behind the image taken for image
        monkeypatch.setattr(DetectGraph, "valid_hw", lambda s, x, fixed: s.tf.constant([SIZE_HW], s.tf.float32))
    else:
        boxes = plan_rcnn.served_boxes
        moved = {"classes": 1}
        monkeypatch.setattr(
            plan_rcnn,
            "served_boxes",
            lambda g, i, f, found: boxes(g, i, f, {k: v + moved.get(k, 0) for k, v in found.items()}),
        )
    assert worst(plan, batched(plan, image), wanted) > 10 * 1e-4


def test_what_cannot_be_is_refused(card: Card) -> None:
    with pytest.raises(ModelError, match="multiples of 32") as error:
        make_plan(card, ExportOptions("litert", size_hw=(100, 128)))
    assert error.value.slug == "size-unfit"


@pytest.mark.slow  # 44 million weights are written and read several times: a minute
def test_masks_are_an_output_of_their_own(tmp_path: Path) -> None:
    folder = write_rcnn_card(tmp_path / "mask", "maskrcnn_resnet50_fpn", MASK_RULE)
    card = load_card(folder)
    for kind, name in FORMATS.items():
        artifact = export_model(card, tmp_path / name, format=kind, probes=IMAGES[2:])
        plan = make_plan(card, ExportOptions(kind))
        (answer,) = served(artifact.path, IMAGES[2:], tmp_path)
        wanted = expected(plan, IMAGES[2])
        assert answer["masks"].shape == (10, 28, 28)
        assert worst(plan, {key: value[None] for key, value in answer.items()}, wanted) < 1e-4
        swapped = {key: value[None] for key, value in answer.items()}
        swapped["masks"] = swapped["masks"].swapaxes(-1, -2)
        assert worst(plan, swapped, wanted) > 1e-2
        task = load_detector(artifact.path, trust=True, runtime=kind)
        ours, theirs = task(IMAGES[2], conf=0.1), load_detector(folder, runtime="keras")(IMAGES[2], conf=0.1)
        assert len(ours) == len(theirs) > 0
        assert (ours.mask == theirs.mask).mean() > 0.999
