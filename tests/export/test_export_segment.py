"""Segmenters as files: without VisionKit they say what the task in Python says, CRF included (CLS-3)."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.export.plain import picture, served
from tests.tasks.made_segment import write_segment_card
from visionkit import crf
from visionkit.errors import ModelError, UsageError
from visionkit.export import export_model
from visionkit.export.input_graph import SegmentGraph
from visionkit.export.plan import ExportOptions, ExportPlan, make_plan
from visionkit.export.plan_segment import TOLERANCE
from visionkit.layers.dense_crf import DenseCRF
from visionkit.tasks import load_segmenter
from visionkit.tasks.load_segment import TRAINED_CRF
from visionkit.weights import Card, load_card
from visionkit.weights.artifact import attach, describe_artifact, read_artifact

SIZE_HW = (64, 96)
IMAGES = [picture(75, 100), picture(150, 61, 1), picture(*SIZE_HW, 2)]
PARAMS = {"iterations": 3, "theta_alpha": 12, "theta_beta": 9, "bilateral_weight": 6}
FORMATS = {"savedmodel": "net", "litert": "net.tflite"}


@pytest.fixture(scope="module", params=["letterbox", "shortest_side"])
def card(request, tmp_path_factory) -> Card:
    folder = tmp_path_factory.mktemp("cards") / request.param
    return load_card(write_segment_card(folder, size_hw=SIZE_HW, resize=request.param))


@pytest.fixture(scope="module")
def made(card, tmp_path_factory) -> Callable[[str], Path]:
    """It in a format, written when it is first asked for."""
    place = tmp_path_factory.mktemp("made")
    return functools.cache(lambda kind: export_model(card, place / FORMATS[kind], format=kind, probes=[IMAGES[0]]).path)


@pytest.fixture(scope="module")
def stretched(tmp_path_factory) -> Card:
    return load_card(write_segment_card(tmp_path_factory.mktemp("cards") / "tiny", size_hw=SIZE_HW, resize="stretch"))


@pytest.fixture(scope="module")
def written(stretched: Card, tmp_path_factory) -> Path:
    """It as a SavedModel without a CRF."""
    place = tmp_path_factory.mktemp("written") / "net"
    return export_model(stretched, place, format="savedmodel", probes=[IMAGES[0]]).path


def by_task(card: Card, images: list[np.ndarray], **options) -> list[np.ndarray]:
    """Probabilities (H, W, L) of the task, in Keras, at the size that is exported."""
    task = load_segmenter(card.folder, runtime="keras", size_hw=SIZE_HW, **options)
    return [task.probs(image) for image in images]


@pytest.mark.parametrize("kind", list(FORMATS))
def test_alone_it_says_what_the_task_says(card: Card, made, kind: str, tmp_path: Path) -> None:
    images = IMAGES if kind == "savedmodel" else [IMAGES[2]]  # LiteRT: of the network's size
    answers = served(made(kind), images, tmp_path)
    for image, answer, wanted in zip(images, answers, by_task(card, images), strict=True):
        assert answer["probabilities"].shape == wanted.shape == (*image.shape[:2], 3)
        assert np.abs(answer["probabilities"] - wanted).max() < 1e-4
        assert answer["class_map"].dtype == np.uint8
        clear = np.diff(np.sort(wanted, -1)[..., -2:])[..., 0] > 1e-3
        assert (answer["class_map"] == wanted.argmax(-1))[clear].all()
        assert wanted.max() > 0.5
        assert len(np.unique(wanted.argmax(-1))) > 1


@pytest.mark.parametrize("kind", list(FORMATS))
def test_the_loader_runs_it_as_it_runs_the_card(card: Card, made, kind: str) -> None:
    task = load_segmenter(made(kind), trust=True, runtime="litert" if kind == "litert" else "savedmodel")
    assert task.labels == ("background", "sand", "sea")
    for image, wanted in zip(IMAGES, by_task(card, IMAGES), strict=True):
        assert np.abs(task.probs(image) - wanted).max() < 1e-4


def test_the_crf_goes_into_a_savedmodel(stretched: Card, tmp_path: Path) -> None:
    params, images = crf.CRFParams(**PARAMS), IMAGES[:2]
    path = export_model(stretched, tmp_path / "net", format="savedmodel", crf=params, probes=[IMAGES[0]]).path
    plain = by_task(stretched, images)
    refined = by_task(stretched, images, crf=params)
    for answer, wanted, without in zip(served(path, images, tmp_path), refined, plain, strict=True):
        assert np.abs(answer["probabilities"] - wanted).mean() < 0.01
        assert np.abs(without - wanted).mean() > 0.02  # a file without its CRF would be found
    for given, wanted in ((None, refined[0]), (False, plain[0])):  # its networks are without, its loader is not
        task = load_segmenter(path, crf=given, trust=True, runtime="savedmodel")
        assert np.abs(task.probs(images[0]) - wanted).max() < 1e-4


def test_a_trained_crf_goes_in_as_it_is(stretched: Card) -> None:
    import keras

    layer = DenseCRF(1, theta_alpha=20, per_label=True)
    layer.build([(None, None, None, 3), (None, None, None, 3)])
    layer.bilateral_factor.assign([1.0, 5.0, 2.0])
    plan = make_plan(stretched, ExportOptions("savedmodel", crf=layer))
    assert {id(v) for v in layer.variables} <= {id(v) for owner in plan.owners for v in owner.variables}
    image = IMAGES[0]
    answer = batched(plan, image, False)
    logits = np.log(by_task(stretched, [image])[0])[None]
    wanted = np.asarray(keras.ops.softmax(layer([logits, image[None, ..., ::-1]])))
    assert np.abs(answer["probabilities"] - wanted).mean() < 1e-3
    assert np.abs(np.exp(logits) - wanted).mean() > 0.01
    assert plan.compare(answer, expected(plan, image, False), "probabilities", 0.01) < 1e-3
    assert plan.notes == {"crf": TRAINED_CRF}


@pytest.mark.parametrize(("told", "slug"), [(TRAINED_CRF, "artifact-unfit"), ({"theta": 3}, "artifact-corrupt")])
def test_a_crf_that_cannot_be_followed_is_not_left_out(written: Path, tmp_path: Path, told: object, slug: str) -> None:
    path = Path(shutil.copytree(written, tmp_path / "net"))
    made = read_artifact(path)
    assert made is not None
    probes = made.probes()
    notes = {**made.made, "crf": told}
    attach(path, describe_artifact(made.card, parts=made.parts, probes=probes, made=notes), probes)
    with pytest.raises(ModelError) as error:
        load_segmenter(path, trust=True)
    assert error.value.slug == slug
    assert load_segmenter(path, trust=True, crf=False, runtime="savedmodel").refiner is None


@pytest.mark.parametrize("kind", ["litert", "onnx", "keras"])
def test_a_crf_where_none_can_be_is_refused(stretched: Card, kind: str) -> None:
    with pytest.raises(UsageError, match="visionkit segment --crf") as error:
        make_plan(stretched, ExportOptions(kind, crf=crf.CRFParams()))
    assert error.value.slug == "option-unfit"


def test_another_size_is_exported_and_told(stretched: Card, tmp_path: Path) -> None:
    artifact = export_model(stretched, tmp_path / "net.tflite", format="litert", size_hw=(32, 64), probes=[IMAGES[0]])
    assert tuple(artifact.card.input["size_hw"]) == (32, 64)
    (answer,) = served(artifact.path, [picture(32, 64)], tmp_path)
    assert answer["class_map"].shape == (32, 64)


@pytest.mark.parametrize(
    ("fault", "output"), [("bgr", "probabilities"), ("framed", "class_map"), ("classes", "class_map")]
)
def test_a_wrong_graph_is_found(
    tmp_path_factory: pytest.TempPathFactory, fault: str, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_segment_card(tmp_path_factory.mktemp("card") / "tiny", size_hw=SIZE_HW, resize="letterbox")
    plan, image = make_plan(load_card(folder), ExportOptions("savedmodel")), IMAGES[0]

    def worst() -> float:
        answer, wanted = batched(plan, image, False), expected(plan, image, False)
        return max(judged(plan, answer, wanted, name) / max(plan.tolerances[name], 1e-9) for name in wanted)

    assert worst() <= 1
    inputs, logits = SegmentGraph.inputs, SegmentGraph.logits
    if fault == "bgr":
        monkeypatch.setattr(SegmentGraph, "inputs", lambda self, x, fixed: inputs(self, x[..., ::-1], fixed))
    elif fault == "framed":  # the frame is enlarged with the image
        monkeypatch.setattr(SegmentGraph, "logits", lambda self, x, *given: self.tf.image.resize(x, image.shape[:2]))
    else:
        monkeypatch.setattr(SegmentGraph, "logits", lambda *given: logits(*given)[..., ::-1])
    assert worst() > 10
    assert judged(plan, batched(plan, image, False), expected(plan, image, False), output) > 10 * TOLERANCE


def batched(plan: ExportPlan, image: np.ndarray, fixed: bool) -> dict[str, np.ndarray]:
    """What the plan's graph says, with the batch's axis."""
    assert plan.serve is not None
    return {name: np.asarray(value) for name, value in plan.serve(image[None, ..., ::-1], fixed).items()}


def expected(plan: ExportPlan, image: np.ndarray, fixed: bool) -> dict[str, np.ndarray]:
    """What the task says, with the batch's axis."""
    return {name: value[None] for name, value in plan.expected([image], fixed)[0].items()}


def judged(plan: ExportPlan, answer: dict[str, np.ndarray], wanted: dict[str, np.ndarray], output: str) -> float:
    """The difference as the check before publishing has it."""
    found = None if plan.compare is None else plan.compare(answer, wanted, output, plan.tolerances[output])
    return float(np.abs(answer[output] - wanted[output]).max()) if found is None else found
