"""Segmenters as files: without VisionKit they say what the task in Python says, CRF included (CLS-3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.export.plain import picture, served
from tests.tasks.made_segment import write_segment_card
from visionkit import crf
from visionkit.errors import ModelError, UsageError
from visionkit.export import export_model
from visionkit.export.input_graph import SegmentGraph
from visionkit.export.plan import ExportOptions, make_plan
from visionkit.layers.dense_crf import DenseCRF
from visionkit.tasks import load_segmenter
from visionkit.weights import Card, load_card

SIZE_HW = (64, 96)
IMAGES = [picture(75, 100), picture(150, 61, 1), picture(*SIZE_HW, 2)]
PARAMS = {"iterations": 5, "theta_alpha": 12, "theta_beta": 9, "bilateral_weight": 6}
FORMATS = {"savedmodel": "net", "litert": "net.tflite"}


@pytest.fixture(scope="module", params=["letterbox", "shortest_side"])
def card(request, tmp_path_factory) -> Card:
    folder = tmp_path_factory.mktemp("cards") / request.param
    return load_card(write_segment_card(folder, size_hw=SIZE_HW, resize=request.param))


def by_task(card: Card, images: list[np.ndarray], **options) -> list[np.ndarray]:
    """Probabilities (H, W, L) of the task, in Keras, at the size that is exported."""
    task = load_segmenter(card.folder, runtime="keras", size_hw=SIZE_HW, **options)
    return [task.probs(image) for image in images]


@pytest.mark.parametrize("kind", list(FORMATS))
def test_alone_it_says_what_the_task_says(card: Card, kind: str, tmp_path: Path) -> None:
    path = export_model(card, tmp_path / FORMATS[kind], format=kind, probes=[IMAGES[0]]).path
    images = IMAGES if kind == "savedmodel" else [IMAGES[2]]  # LiteRT: of the network's size
    answers = served(path, images, tmp_path)
    for image, answer, wanted in zip(images, answers, by_task(card, images), strict=True):
        assert answer["probabilities"].shape == wanted.shape == (*image.shape[:2], 3)
        assert np.abs(answer["probabilities"] - wanted).max() < 1e-4
        assert answer["class_map"].dtype == np.uint8
        clear = np.diff(np.sort(wanted, -1)[..., -2:])[..., 0] > 1e-3
        assert (answer["class_map"] == wanted.argmax(-1))[clear].all()
        assert wanted.max() > 0.5
        assert len(np.unique(wanted.argmax(-1))) > 1


@pytest.mark.parametrize("kind", list(FORMATS))
def test_the_loader_runs_it_as_it_runs_the_card(card: Card, kind: str, tmp_path: Path) -> None:
    path = export_model(card, tmp_path / FORMATS[kind], format=kind, probes=[IMAGES[0]]).path
    task = load_segmenter(path, trust=True, runtime="litert" if kind == "litert" else "savedmodel")
    assert task.labels == ("background", "sand", "sea")
    for image, wanted in zip(IMAGES, by_task(card, IMAGES), strict=True):
        assert np.abs(task.probs(image) - wanted).max() < 1e-4


def test_the_crf_goes_into_a_savedmodel(card: Card, tmp_path: Path) -> None:
    params = crf.CRFParams(**PARAMS)
    path = export_model(card, tmp_path / "net", format="savedmodel", crf=params, probes=[IMAGES[1]]).path
    plain = by_task(card, IMAGES)
    refined = by_task(card, IMAGES, crf=params)
    for answer, wanted, without in zip(served(path, IMAGES, tmp_path), refined, plain, strict=True):
        assert np.abs(answer["probabilities"] - wanted).mean() < 0.01
        assert np.abs(without - wanted).mean() > 0.02  # a file without its CRF would be found
    task = load_segmenter(path, trust=True, runtime="savedmodel")  # its networks are without
    assert np.abs(task.probs(IMAGES[0]) - plain[0]).max() < 1e-4


def test_a_trained_crf_goes_in_as_it_is(tmp_path: Path) -> None:
    import keras

    folder = write_segment_card(tmp_path / "card", size_hw=SIZE_HW, resize="stretch")
    layer = DenseCRF(1, theta_alpha=20, per_label=True)
    layer.build([(None, None, None, 3), (None, None, None, 3)])
    layer.bilateral_factor.assign([1.0, 5.0, 2.0])
    path = export_model(folder, tmp_path / "net", format="savedmodel", crf=layer, probes=[IMAGES[0]]).path
    image = IMAGES[0]
    (answer,) = served(path, [image], tmp_path)
    logits = np.log(load_segmenter(folder, runtime="keras").probs(image))[None]
    wanted = keras.ops.softmax(layer([logits, image[None, ..., ::-1]]))
    assert np.abs(answer["probabilities"] - np.asarray(wanted)[0]).mean() < 1e-3
    assert np.abs(np.exp(logits) - np.asarray(wanted)).mean() > 0.01


@pytest.mark.parametrize("kind", ["litert", "onnx", "keras"])
def test_a_crf_where_none_can_be_is_refused(card: Card, kind: str) -> None:
    with pytest.raises(UsageError, match="visionkit segment --crf") as error:
        make_plan(card, ExportOptions(kind, crf=crf.CRFParams()))
    assert error.value.slug == "option-unfit"


def test_another_size_is_exported_and_told(card: Card, tmp_path: Path) -> None:
    artifact = export_model(card, tmp_path / "net.tflite", format="litert", size_hw=(32, 64), probes=[IMAGES[0]])
    assert tuple(artifact.card.input["size_hw"]) == (32, 64)
    (answer,) = served(artifact.path, [picture(32, 64)], tmp_path)
    assert answer["class_map"].shape == (32, 64)


@pytest.mark.parametrize("fault", ["bgr", "framed", "classes"])
def test_a_wrong_one_is_not_published(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_segment_card(tmp_path / "card", size_hw=SIZE_HW, resize="letterbox")
    plain, logits = SegmentGraph.inputs, SegmentGraph.logits
    if fault == "bgr":
        monkeypatch.setattr(SegmentGraph, "inputs", lambda self, x, fixed: plain(self, x[..., ::-1], fixed))
    elif fault == "framed":  # the frame is enlarged with the image
        monkeypatch.setattr(SegmentGraph, "logits", lambda self, x, image, fixed: self.tf.image.resize(x, (75, 100)))
    else:
        monkeypatch.setattr(SegmentGraph, "logits", lambda *given: logits(*given)[..., ::-1])
    with pytest.raises(ModelError, match="was not written") as error:
        export_model(folder, tmp_path / "net", format="savedmodel", probes=[IMAGES[0]])
    assert error.value.slug == "export-differs"
    assert [path.name for path in tmp_path.iterdir()] == ["card"]
