"""Segmenters over model files: what they say is what the network says, and what is no segmenter is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tasks.made_segment import halves
from visionkit.errors import ModelError, UsageError
from visionkit.runtime.quiet import import_keras, import_tensorflow
from visionkit.tasks import InputRule, load_segmenter
from visionkit.tasks.score_maps import Scores

LABELS = ("sky", "sand", "sea")
SIZE_HW = (32, 48)
IMAGE = halves((50, 61))


def network(kind="logits"):
    keras = import_keras()
    keras.utils.set_random_seed(3)
    image = keras.Input((*SIZE_HW, 3), name="image")
    x = keras.layers.Conv2D(5, 3, strides=4, padding="same", activation="relu")(image)
    x = keras.layers.Conv2D(3, 1, name="logits", activation="softmax" if kind == "probs" else None)(x)
    if kind == "classes":
        x = keras.layers.Dense(3)(keras.layers.Flatten()(x))
    return keras.Model(image, x)


def expected(model, kind="logits", preset="unit"):
    rule = InputRule.preset(preset, SIZE_HW, resize="stretch")
    found = np.asarray(model(rule(IMAGE)[None], training=False))[0].transpose(2, 0, 1)
    return Scores((np.log(found) if kind == "probs" else found,), IMAGE.shape[:2]).probs()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIONKIT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_a_keras_file_says_what_its_network_says(tmp_path, kind):
    model, path = network(kind), tmp_path / "mine.keras"
    model.save(path)
    task = load_segmenter(path, runtime="litert", labels=LABELS, preset="unit")
    assert np.allclose(task.probs(IMAGE), expected(model, kind), atol=1e-4)
    found = task(IMAGE)
    assert found.class_map.shape == IMAGE.shape[:2]
    assert task.labels == LABELS
    assert task.describe()["name"] == "mine.keras"
    assert task.describe()["runtime"] == "litert"
    task.close()


def test_a_tflite_file_with_labels_from_a_text_file(tmp_path):
    model, path = network(), tmp_path / "mine.tflite"
    path.write_bytes(import_tensorflow().lite.TFLiteConverter.from_keras_model(model).convert())
    (tmp_path / "names.txt").write_text("\n".join(LABELS))
    task = load_segmenter(path, trust=True, labels=tmp_path / "names.txt", preset="unit", tta=True)
    assert task.labels == LABELS
    assert task.options.flip
    alone = load_segmenter(path, trust=True, preset="unit")
    assert np.allclose(alone.probs(IMAGE), expected(model), atol=1e-4)


def test_a_savedmodel_for_images_of_any_size_is_refused_with_what_to_do(tmp_path):
    tf = import_tensorflow()
    module = tf.Module()
    spec = tf.TensorSpec((None, None, None, 3), tf.uint8, name="image")
    module.serve = tf.function(lambda image: {"class_map": image[..., 0]}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.serve)
    with pytest.raises(ModelError, match=r"fixed.*runs in TensorFlow itself.*give the card"):
        load_segmenter(tmp_path / "saved", trust=True, labels=LABELS)
    with pytest.raises(ModelError, match="trust"):
        load_segmenter(tmp_path / "saved")


def test_what_does_not_fit_is_refused_and_says_what_would(tmp_path):
    path, other = tmp_path / "mine.keras", tmp_path / "classes.keras"
    network().save(path)
    network("classes").save(other)
    how = {"runtime": "litert"}
    with pytest.raises(ModelError, match=r"gives .*takes one image \(1"):
        load_segmenter(other, **how)
    with pytest.raises(ModelError, match="3 classes, and there are 2 labels"):
        load_segmenter(path, labels=("a", "b"), **how)
    with pytest.raises(UsageError, match="leave out scales, tile"):
        load_segmenter(path, tile=64, scales=(1, 2), **how)
    with pytest.raises(UsageError, match="no output 'masks'"):
        load_segmenter(path, output="masks", **how)
    with pytest.raises(UsageError, match="preset must be one of"):
        load_segmenter(path, preset="rainbow", **how)
    with pytest.raises(ModelError):
        load_segmenter(tmp_path / "absent.tflite")
