"""A whole small detector of these layers: saved, exported and converted, with the same answers."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from visionkit.geometry.anchors import cell_anchors
from visionkit.layers import (
    Anchors,
    BoxDecode,
    NonMaximumSuppression,
    ProposalSelection,
    PyramidRoIAlign,
    RoIAlign,
    RoIPool,
    SpatialPyramidPooling,
    SSDBoxes,
)

SIZE_HW = (64, 96)


@pytest.fixture(scope="module")
def detector() -> keras.Model:
    keras.utils.set_random_seed(3)
    image, valid_hw = keras.Input((*SIZE_HW, 3), name="image"), keras.Input((2,), name="valid_hw")
    first = layers.Conv2D(8, 3, strides=4, padding="same", activation="relu")(image)
    maps = [first, layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(first)]
    objectness, deltas = ([layers.Conv2D(n, 1)(x) for x in maps] for n in (3, 12))
    anchors = [Anchors(cell_anchors([size], [0.5, 1, 2]))([x, image]) for size, x in zip((16, 32), maps, strict=True)]
    proposals = ProposalSelection(60, 25)([objectness, deltas, anchors, valid_hw])
    features = PyramidRoIAlign(3, scales=(1 / 4, 1 / 8))([maps, proposals["boxes"]])
    flat = layers.Reshape((25, 3 * 3 * 8))(features)
    scores, change = layers.Dense(4, activation="softmax")(flat), layers.Dense(16)(flat)
    boxes = BoxDecode((10, 10, 5, 5), classes=4)([change, proposals["boxes"], valid_hw])
    found = NonMaximumSuppression(12, 0.5, score_threshold=0.1, candidates=50)([boxes, scores])
    by_class = NonMaximumSuppression(12, 0.5, score_threshold=0.1, per_class=9)([boxes, scores])
    default = layers.Reshape((-1, 4))(layers.Conv2D(24, 1)(maps[1]))
    extra = {
        "pooled": RoIPool((3, 2), scale=1 / 8)([maps[1], proposals["boxes"]]),
        "aligned": RoIAlign(3, scale=1 / 8, aligned=True)([maps[1], proposals["boxes"]]),
        "pyramid": SpatialPyramidPooling()(maps[1]),
        "default": BoxDecode()([default, SSDBoxes(scales=(0.3, 0.6))([maps[1], image])]),
        "proposals": proposals["boxes"],
        **{f"by_class_{key}": value for key, value in by_class.items()},
    }
    return keras.Model([image, valid_hw], {**found, **extra})


def pictures(batch: int) -> list[np.ndarray]:
    images = np.random.default_rng(0).normal(size=(batch, *SIZE_HW, 3)).astype(np.float32)
    return [images, np.array([[60, 90]] * batch, np.float32)]


def answers(detector: keras.Model, batch: int) -> dict[str, np.ndarray]:
    found = {key: np.asarray(value) for key, value in detector(pictures(batch)).items()}
    assert found["count"].min() > 3
    return found


def close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=2e-4, err_msg=key)


def test_keras_file_there_and_back(detector: keras.Model, tmp_path: Path) -> None:
    detector.save(tmp_path / "d.keras")
    again = keras.models.load_model(tmp_path / "d.keras")
    close({k: np.asarray(v) for k, v in again(pictures(2)).items()}, answers(detector, 2))


def test_saved_model_of_open_batch(detector: keras.Model, tmp_path: Path) -> None:
    import tensorflow as tf

    detector.export(tmp_path / "d", verbose=False)
    serve = tf.saved_model.load(str(tmp_path / "d")).signatures["serving_default"]
    for batch in (1, 3):
        images, valid_hw = pictures(batch)
        found = serve(image=tf.constant(images), valid_hw=tf.constant(valid_hw))
        close({k: v.numpy() for k, v in found.items()}, answers(detector, batch))


def test_litert_with_its_own_operations_alone(detector: keras.Model, tmp_path: Path) -> None:
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    module = tf.Module()
    module.kept = [variable.value for variable in detector.variables]
    shapes = {"image": tf.TensorSpec((1, *SIZE_HW, 3)), "valid_hw": tf.TensorSpec((1, 2))}
    module.serve = tf.function(lambda image, valid_hw: detector([image, valid_hw])).get_concrete_function(**shapes)
    tf.saved_model.save(module, str(tmp_path / "d"), signatures={"serving_default": module.serve})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "d"))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    interpreter = Interpreter(model_content=converter.convert())
    images, valid_hw = pictures(1)
    found = interpreter.get_signature_runner()(image=images, valid_hw=valid_hw)
    close(found, answers(detector, 1))
