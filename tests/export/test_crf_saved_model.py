"""CLS-3 for segmentation: a SavedModel with the CRF inside, run by TensorFlow alone, says what VisionKit says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from visionkit import crf
from visionkit.errors import ModelError, OutputError
from visionkit.export import export_segmenter
from visionkit.export.folder import new_folder
from visionkit.export.input_graph import SegmentGraph
from visionkit.layers.dense_crf import DenseCRF
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.segment_fit import SizeOptions, fit_of

ALONE = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
answers = {}
for name, image in np.load(sys.argv[2]).items():
    out = served(image=tf.constant(image))
    answers[name] = out["class_map"].numpy()
    answers[name + "_probs"] = out["probabilities"].numpy()
np.savez(sys.argv[3], **answers)
ours = [name for name in sys.modules if name.split(".")[0] in ("visionkit", "keras", "numba")]
print("IMPORTED", [name for name in ours if not name.startswith("keras")])
"""


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 (H, W, 3) BGR: two regions of colours and a disc."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    labels = (x > width * 0.55 + 5 * np.sin(y / 9)).astype(int)
    labels[(x - width * 0.3) ** 2 + (y - height * 0.5) ** 2 < (height * 0.25) ** 2] = 2
    colours = np.array([[60, 80, 200], [70, 190, 60], [200, 60, 70]])[labels]
    return np.clip(colours + random.normal(0, 8, colours.shape), 0, 255).astype(np.uint8)


def colour_net(size_hw: tuple[int, int] | None = (48, 64), sharpness: float = 1.5) -> keras.Model:
    """Logits (H, W, 3) that tell red, green and blue apart, blurred, as a coarse network's are."""
    image = keras.Input((*(size_hw or (None, None)), 3), name="image")
    mixed = keras.layers.Conv2D(3, 5, padding="same", name="mix", use_bias=False)
    out = mixed(image)
    kernel = np.tile(np.eye(3) * sharpness / 25, (5, 5, 1, 1)).astype(np.float32)
    mixed.set_weights([kernel])
    return keras.Model(image, keras.layers.Activation("linear", name="logits")(out))


def alone(folder: Path, images: dict[str, np.ndarray], tmp_path: Path) -> dict[str, np.ndarray]:
    """What a process with TensorFlow and NumPy only says of images (B, H, W, 3) RGB."""
    np.savez(tmp_path / "in.npz", **images)
    command = [sys.executable, "-I", "-c", ALONE, str(folder), str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "IMPORTED []" in run.stdout
    return dict(np.load(tmp_path / "out.npz"))


def by_python(model: keras.Model, rule: InputRule, image: np.ndarray, params: crf.CRFParams) -> np.ndarray:
    """Marginals of an image BGR: rule, network, bilinear enlarging, mean field, each by VisionKit in Python."""
    import cv2

    logits = np.asarray(model(rule(image)[None]))[0]
    logits = cv2.resize(logits, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return crf.mean_field(crf.unary_from_probs(probs), np.ascontiguousarray(image[..., ::-1]), params)


def test_tensorflow_alone_gives_the_labels_of_the_python_path(tmp_path: Path) -> None:
    model, rule = colour_net(), InputRule.preset("torch", (48, 64))
    params = crf.CRFParams(theta_alpha=30, bilateral_weight=4, iterations=3)
    folder = export_segmenter(model, tmp_path / "net", rule=rule, crf=params, labels=["r", "g", "b"])
    first, second = picture(90, 130), picture(75, 52, seed=1)
    batch = np.stack([first, picture(90, 130, seed=2)])[..., ::-1]
    answers = alone(folder, {"batch": batch, "other": second[None, ..., ::-1]}, tmp_path)
    for image, name, index in ((first, "batch", 0), (second, "other", 0)):
        wanted = by_python(model, rule, image, params)
        assert answers[name].dtype == np.uint8
        assert (answers[name][index] == wanted.argmax(-1)).mean() >= 0.995
        assert np.abs(answers[f"{name}_probs"][index] - wanted).mean() < 0.005
        # the CRF did something, so that a file without it would be found
        plain = by_python(model, rule, image, crf.CRFParams(iterations=0))
        assert np.abs(plain - wanted).mean() > 0.02
    about = json.loads((folder / "assets.extra" / "visionkit.json").read_text(encoding="utf-8"))
    assert about["labels"] == ["r", "g", "b"]
    assert about["crf"]["theta_alpha"] == 30
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.npz", "net", "out.npz"]


def test_a_trained_layer_goes_in_as_it_is(tmp_path: Path) -> None:
    import tensorflow as tf

    layer = DenseCRF(1, theta_alpha=20, per_label=True)
    layer.build([(None, None, None, 3), (None, None, None, 3)])
    layer.bilateral_factor.assign([1.0, 5.0, 2.0])
    model, rule = colour_net((32, 40)), InputRule.preset("unit", (32, 40), resize="letterbox")
    folder = export_segmenter(model, tmp_path / "net", rule=rule, crf=layer, probes=[picture(40, 70)])
    loaded = tf.saved_model.load(str(folder))
    image = picture(40, 50)  # of the input's aspect: no frame
    probs = loaded.signatures["serving_default"](image=tf.constant(image[None, ..., ::-1]))["probabilities"].numpy()[0]
    logits = tf.image.resize(model(rule(image)[None]), (40, 50))
    wanted = keras.ops.softmax(DenseCRF.__call__(layer, [logits, image[None, ..., ::-1]]))
    assert np.abs(probs - np.asarray(wanted)[0]).mean() < 0.01
    raw = loaded.signatures["raw"](inputs=tf.constant(rule(image)[None]))["logits"].numpy()
    assert np.allclose(raw, np.asarray(model(rule(image)[None])), atol=1e-5)


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "shortest_side"])
@pytest.mark.parametrize("preset", ["torch", "caffe"])
def test_inputs_are_those_of_the_rule(resize: Any, preset: str) -> None:
    rule = InputRule.preset(preset, (64, 96), resize=resize)
    for fixed in (True, False):
        for size in ((77, 120), (130, 61), (64, 96)):
            image = np.asarray(picture(*size))
            graph = SegmentGraph(rule, (64, 96) if fixed else None)
            fit = fit_of(rule, size, SizeOptions(size_hw=(64, 96) if fixed else None))
            found = np.asarray(graph.inputs(image[None, ..., ::-1], False))[0]
            wanted = fit.rule(image)
            assert found.shape == wanted.shape
            assert np.abs(found - wanted).max() * min(rule.std) <= 1.01  # grey levels
            assert np.abs(found - wanted).mean() * min(rule.std) < 0.15


def test_open_sizes_are_exported_or_refused_with_the_remedy(tmp_path: Path) -> None:
    rule = InputRule.preset("torch", (32, 32), resize="shortest_side", resize_size=32)
    export_segmenter(colour_net(None), tmp_path / "open", rule=rule)
    image = keras.Input((None, None, 3))
    pooled = keras.layers.AveragePooling2D(2)(keras.layers.Conv2D(3, 1)(image))
    enlarged = keras.layers.UpSampling2D(2, interpolation="bilinear", name="up")(pooled)
    with pytest.raises(ModelError, match="fixed `size_hw`") as error:
        export_segmenter(
            keras.Model(image, keras.layers.Conv2D(3, 1, name="logits")(enlarged)), tmp_path / "x", rule=rule
        )
    assert error.value.slug == "export-untraceable"
    assert [p.name for p in tmp_path.iterdir()] == ["open"]


def test_a_file_that_differs_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = InputRule.preset("torch", (32, 40))
    plain = SegmentGraph.inputs
    monkeypatch.setattr(SegmentGraph, "inputs", lambda self, images, fixed: plain(self, images[..., ::-1], fixed))  # BGR for RGB
    with pytest.raises(ModelError, match="was not written") as error:
        export_segmenter(colour_net((32, 40)), tmp_path / "net", rule=rule)
    assert error.value.slug == "export-differs"
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "net"
    with new_folder(target) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(OutputError, match="already exists") as error, new_folder(target):
        pass
    assert error.value.slug == "exists"
    with pytest.raises(ZeroDivisionError), new_folder(target, overwrite=True) as folder:
        (folder / "a").write_text(str(1 / 0))
    assert (target / "a").read_text() == "old"
    with new_folder(target, overwrite=True) as folder:
        (folder / "b").write_text("new")
    assert [p.name for p in target.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_a_file_in_the_way_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "net").write_text("mine")
    with pytest.raises(OutputError, match="remove it"), new_folder(tmp_path / "net", overwrite=True):
        pass
    with pytest.raises(OutputError, match="cannot write"), new_folder(tmp_path / "nowhere" / "net"):
        pass
