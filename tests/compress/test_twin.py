"""A network's twin in tf_keras: the same answers, the way back, and what tensorflow-model-optimization does to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import keras
import numpy as np
import pytest

from visionkit import nets
from visionkit.compress.tfmot_bridge import clustered, pruned, quantization_aware, stripped
from visionkit.compress.twin import bring_back, train_twin, twin_of
from visionkit.errors import ModelError

SIZE_HW = (24, 32)


def small(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = nets.resnet(depths=[1, 1], width=8, stem="small", classes=5, size_hw=SIZE_HW)
    for layer in model.layers:  # statistics as of a training: a twin that mixes them up shows
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([w + 0.3 * (k + 1) for k, w in enumerate(layer.get_weights())])
    return model


def noise(count: int = 4) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, *SIZE_HW, 3)).astype(np.float32)


def stream() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    while True:
        yield noise(8), np.eye(5, dtype=np.float32)[np.arange(8) % 5]


def answers(model, images: np.ndarray) -> np.ndarray:
    return np.asarray(model(images, training=False))


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v2", "mobilenet_v3_small", "lenet5"])
def test_a_twin_answers_the_same_and_gives_all_its_weights_back(name: str) -> None:
    if name == "resnet":
        model = small()
    else:
        size_hw = (32, 32) if name == "lenet5" else (64, 96)
        model = getattr(nets, name)(classes=7, size_hw=size_hw)
    images = np.random.default_rng(1).normal(size=(2, *model.inputs[0].shape[1:])).astype(np.float32)
    twin = twin_of(model)
    before = answers(model, images)
    np.testing.assert_allclose(answers(twin, images), before, atol=1e-5)
    assert np.abs(before).max() > 0
    model.set_weights([weight * 0 for weight in model.get_weights()])
    bring_back(twin, model)
    np.testing.assert_allclose(answers(model, images), before, atol=1e-5)


def test_hard_sigmoid_is_keras_3s_and_not_the_older_one() -> None:
    image = keras.Input((4, 6, 3))
    model = keras.Model(image, keras.layers.Activation("hard_sigmoid", name="gate")(image))
    values = np.linspace(-4, 4, 72, dtype=np.float32).reshape(1, 4, 6, 3)
    np.testing.assert_allclose(answers(twin_of(model), values), np.clip(values / 6 + 0.5, 0, 1), atol=1e-6)
    assert np.abs(np.clip(values / 6 + 0.5, 0, 1) - np.clip(0.2 * values + 0.5, 0, 1)).max() > 0.05  # tf_keras's own


def test_what_has_no_counterpart_is_named() -> None:
    with pytest.raises(ModelError, match="avgpool"):
        twin_of(nets.alexnet(classes=3))
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, 3, name="c")(image) * 2.0)
    with pytest.raises(ModelError, match="no counterpart"):
        twin_of(model)


def test_a_variable_that_does_not_come_back_is_an_error() -> None:
    twin = twin_of(small())
    other = nets.resnet(depths=[1, 1], width=16, stem="small", classes=5, size_hw=SIZE_HW)
    with pytest.raises(ModelError, match="conv1/kernel"):
        bring_back(twin, other)


def test_pruning_leaves_the_asked_share_of_zeros_and_the_original_alone() -> None:
    model = small()
    before = [np.array(weight) for weight in model.get_weights()]
    twin = twin_of(model)
    thin, callbacks = pruned(twin, 0.6, 20, keep=("conv1",))
    np.testing.assert_allclose(answers(thin, noise()), answers(model, noise()), atol=1e-5)
    train_twin(thin, stream(), epochs=2, steps_per_epoch=10, learning_rate=1e-3, callbacks=callbacks)
    for weight, was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, was)
    np.testing.assert_allclose(answers(twin, noise()), answers(model, noise()), atol=1e-5)  # nor the twin
    bring_back(stripped(thin), model)
    shares = {
        layer.name: float((np.asarray(layer.kernel) == 0).mean())
        for layer in model.layers
        if "conv" in layer.name and hasattr(layer, "kernel")
    }
    assert shares.pop("conv1") < 0.01
    assert all(0.58 < share < 0.62 for share in shares.values())
    np.testing.assert_allclose(answers(stripped(thin), noise()), answers(model, noise()), atol=1e-5)


def test_clustering_leaves_few_values_in_each_kernel() -> None:
    model = small()
    twin = twin_of(model)
    few = clustered(twin, 6, keep=("conv1",))
    assert np.abs(answers(few, noise()) - answers(model, noise())).max() > 1e-3  # it is clustered at once
    train_twin(few, stream(), epochs=1, steps_per_epoch=5, learning_rate=1e-3)
    bring_back(stripped(few), model)
    counts = {layer.name: len(np.unique(layer.kernel)) for layer in model.layers if hasattr(layer, "kernel")}
    assert counts.pop("conv1") > 100
    assert set(counts.values()) == {6}
    np.testing.assert_allclose(answers(stripped(few), noise()), answers(model, noise()), atol=1e-4)


def test_fake_quantization_trains_and_comes_back() -> None:
    model = small()
    aware = quantization_aware(twin_of(model))
    rows: list[dict[str, float]] = []
    train_twin(aware, stream(), epochs=6, steps_per_epoch=10, learning_rate=3e-3, report=rows.append)
    assert rows[-1]["loss"] < rows[0]["loss"]
    before = answers(model, noise())
    bring_back(aware, model)
    assert np.abs(answers(model, noise()) - before).max() > 0.01
    apart = np.abs(answers(aware, noise()) - answers(model, noise()))
    assert 0 < apart.max() < 0.3 * np.abs(answers(model, noise())).max()  # 8 bits in the one, none in the other


def test_the_process_stays_with_keras_3() -> None:
    code = (
        "import os, keras, tensorflow as tf\n"
        "from visionkit.compress.tfmot_modules import load_tfmot\n"
        "tfmot, tf_keras = load_tfmot()\n"
        "assert getattr(tf, 'keras').Model is keras.Model\n"
        "assert 'TF_USE_LEGACY_KERAS' not in os.environ\n"
        "assert tf_keras.Model is not keras.Model\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
