"""LeNet-5, AlexNet, VGG, GoogLeNet and Inception-v3: parameters, sizes, heads, and life outside of Keras."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.nets.numpy_forward import randomize
from visionkit import nets
from visionkit.nets.blocks import classifier_head, conv, layer_name
from visionkit.runtime import compile_model

Build = Callable[..., keras.Model]


def image(height: int, width: int, channels: int = 3, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(batch, height, width, channels)).astype(np.float32)


def parameters(model: keras.Model) -> int:
    """Trainable parameters: moving statistics are no parameters in torch, and none in the papers."""
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.parametrize(
    ("build", "arguments", "count"),
    [
        (nets.lenet5, {}, 156 + 2_416 + 48_120 + 10_164 + 850),  # 61,706
        (nets.alexnet, {}, 61_100_840),
        (nets.alexnet_2012, {}, 60_965_224),
        (nets.alexnet_2012, {"groups": 1}, 62_378_344),
        (nets.vgg16, {}, 138_357_544),
        (nets.vgg16, {"classes": None}, 14_714_688),
        (nets.vgg19, {}, 143_667_240),
        (nets.googlenet, {}, 6_624_904),
        (nets.googlenet, {"aux": True}, 13_004_888),
        (nets.googlenet, {"variant": "paper"}, 6_998_552),
        (nets.inception_v3, {"aux": True}, 27_161_264),
    ],
)
def test_parameters_are_the_published_ones(build: Build, arguments: dict[str, Any], count: int) -> None:
    assert parameters(build(**arguments)) == count


def test_alexnets_first_layer_has_the_slides_numbers() -> None:
    layer = nets.alexnet_2012(classes=None).get_layer("conv1")
    kernel, bias = layer.get_weights()
    outputs = int(np.prod(layer.output.shape[1:]))
    assert (kernel.size, bias.size) == (34_848, 96)
    assert layer.output.shape == (None, 55, 55, 96)
    assert outputs == 290_400
    assert outputs * (363 + 1) == 105_705_600  # unshared


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (
            lambda: nets.googlenet(classes=5),
            {
                "maxpool1": (56, 56, 64),
                "maxpool2": (28, 28, 192),
                "inception3b.concat": (28, 28, 480),
                "inception4e.concat": (14, 14, 832),
                "inception5b.concat": (7, 7, 1024),
            },
        ),
        (
            lambda: nets.inception_v3(classes=5),
            {
                "maxpool2": (35, 35, 192),
                "Mixed_5d.concat": (35, 35, 288),
                "Mixed_6e.concat": (17, 17, 768),
                "Mixed_7c.concat": (8, 8, 2048),
            },
        ),
        (lambda: nets.lenet5(), {"s2": (14, 14, 6), "s4": (5, 5, 16), "c5": (1, 1, 120)}),
        (lambda: nets.alexnet_2012(classes=None), {"conv1.pool": (27, 27, 96), "conv5.pool": (6, 6, 256)}),
        (lambda: nets.alexnet(classes=None), {"features.0": (55, 55, 64), "features.10.pool": (6, 6, 256)}),
    ],
)
def test_maps_have_the_papers_sizes(model: Callable[[], keras.Model], shapes: dict[str, tuple[int, ...]]) -> None:
    built = model()
    assert {name: built.get_layer(name).output.shape[1:] for name in shapes} == shapes


@pytest.mark.parametrize(
    ("build", "ceil", "floor"), [(nets.vgg16, (16, 15), (15, 15)), (nets.alexnet_2012, (15, 14), (14, 13))]
)
def test_caffes_pooling_has_more_windows_at_500_pixels(
    build: Build, ceil: tuple[int, int], floor: tuple[int, int]
) -> None:
    for mode, want in ((True, ceil), (False, floor)):
        shape = build(classes=None, size_hw=(500, 480), ceil_mode=mode).output_shape
        assert shape[1:3] == want


SMALL: dict[str, Callable[[Any], keras.Model]] = {
    "lenet5": lambda classes: nets.lenet5(classes=classes, size_hw=(32, 36)),
    "alexnet_2012": lambda classes: nets.alexnet_2012(classes=classes, size_hw=(67, 85)),
    "googlenet": lambda classes: nets.googlenet(classes=classes, size_hw=(33, 47)),
    "googlenet_paper": lambda classes: nets.googlenet(classes=classes, size_hw=(48, 41), variant="paper"),
    "inception_v3": lambda classes: nets.inception_v3(classes=classes, size_hw=(75, 92)),
}


@pytest.mark.parametrize("name", SMALL)
def test_several_heads_share_one_trunk(name: str) -> None:
    model = SMALL[name]({"kind": 4, "colour": 3})
    x = image(*model.input_shape[1:])
    answers = model(x, training=False)
    assert {head: tuple(logits.shape) for head, logits in answers.items()} == {"kind": (2, 4), "colour": (2, 3)}
    assert model.get_layer("logits_kind").units == 4


@pytest.mark.parametrize(
    ("build", "options", "names"),
    [
        (nets.googlenet, {"size_hw": (33, 47)}, {"logits", "aux1", "aux2"}),
        (nets.googlenet, {"size_hw": (79, 97), "variant": "paper"}, {"logits", "aux1", "aux2"}),
        (nets.inception_v3, {"size_hw": (299, 310)}, {"logits", "aux"}),
    ],
)
def test_auxiliary_heads_answer_beside_the_main_one(build: Build, options: dict[str, Any], names: set[str]) -> None:
    outputs = build(classes=5, aux=True, **options).output
    assert {name: tuple(tensor.shape) for name, tensor in outputs.items()} == dict.fromkeys(names, (None, 5))


@pytest.mark.parametrize(
    ("build", "size"),
    [
        (nets.alexnet, (75, 98)),
        (nets.googlenet, (33, 50)),
    ],
)
def test_open_sizes_answer_as_fixed_ones_do(build: Build, size: tuple[int, int]) -> None:
    known = randomize(build(classes=None, size_hw=size))
    any_size = build(classes=None, size_hw=None)
    any_size.set_weights(known.get_weights())
    assert any_size.input_shape == (None, None, None, 3)
    x = image(*size)
    want = known(x, training=False)
    assert np.allclose(any_size.predict(x, verbose=0), want, atol=1e-5 * float(np.abs(want).max()))


def test_layers_with_weights_and_auxiliary_heads_are_named_as_in_torch(shared: Path) -> None:
    cases = (
        ("googlenet", nets.googlenet(aux=True)),
        ("inception_v3", nets.inception_v3(aux=True)),
    )
    for name, model in cases:
        state = json.loads((shared / "parity" / f"{name}.json").read_text())["state_dict"]
        torch = {key.rpartition(".")[0] for key in state}
        weighty = [x for x in model.layers if x.weights and not isinstance(x, keras.layers.Dropout)]
        assert {"fc" if layer.name == "logits" else layer.name for layer in weighty} == torch


# TensorFlow alone: neither this package nor Keras can be imported
LOADER = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "visionkit":
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
sys.modules["keras"] = None  # as if it were not installed
import numpy as np
import tensorflow as tf
for folder in json.loads(sys.argv[1]):
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]
    answers = serve(**{name: tf.constant(np.load(folder + "/image.npy"))})
    np.savez(folder + "/answers.npz", **{key: value.numpy() for key, value in answers.items()})
"""


@pytest.mark.parametrize(
    "names",
    [
        ("lenet5", "googlenet"),
        # exports of ten seconds each
        pytest.param(("alexnet_2012", "googlenet_paper", "inception_v3"), marks=pytest.mark.slow),
    ],
)
def test_saved_models_run_in_tensorflow_alone(names: tuple[str, ...], tmp_path: Path) -> None:
    wanted = {}
    for name in names:
        model = randomize(SMALL[name](5))
        x = image(*model.input_shape[1:])
        model.export(str(tmp_path / name), format="tf_saved_model", verbose=False)
        np.save(tmp_path / name / "image.npy", x)
        wanted[name] = keras.ops.convert_to_numpy(model(x, training=False))
    folders = json.dumps([str(tmp_path / name) for name in wanted])
    done = subprocess.run([sys.executable, "-c", LOADER, folders], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, want in wanted.items():
        (got,) = np.load(tmp_path / name / "answers.npz").values()
        assert np.abs(got - want).max() < 1e-5 * max(1.0, np.abs(want).max()), name


@pytest.mark.parametrize("name", ["lenet5", "googlenet_paper"])
def test_litert_answers_as_keras_does(name: str, tmp_path: Path) -> None:
    model = randomize(SMALL[name](5))
    x = image(*model.input_shape[1:], batch=1)
    want = keras.ops.convert_to_numpy(model(x, training=False))
    with compile_model(model, runtime="litert", cache_dir=tmp_path) as runner:
        assert list(runner.outputs) == ["logits"]
        assert np.abs(runner(image=x)["logits"] - want).max() < 1e-5 * max(1.0, np.abs(want).max())


def test_weights_survive_a_file(tmp_path: Path) -> None:
    model = randomize(SMALL["googlenet"](5))
    model.save_weights(tmp_path / "a.weights.h5")
    again = SMALL["googlenet"](5)
    again.load_weights(tmp_path / "a.weights.h5")
    x = image(33, 47)
    assert np.array_equal(again(x, training=False), model(x, training=False))


def test_a_whole_model_survives_a_file(tmp_path: Path) -> None:
    model = randomize(nets.alexnet_2012(classes=None, size_hw=(67, 85), ceil_mode=True))
    model.save(tmp_path / "a.keras")
    x = image(67, 85)
    assert np.array_equal(keras.models.load_model(tmp_path / "a.keras")(x), model(x))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: nets.vgg16(size_hw=(31, 224)), r"at least 32 for vgg16. Received: size_hw=\(31, 224\)"),
        (lambda: nets.vgg16(size_hw=224), "size_hw=224"),
        (lambda: nets.alexnet(size_hw=(224.0, 224)), "size_hw"),
        (lambda: nets.alexnet(size_hw=(224, 224, 3)), "size_hw"),
        (lambda: nets.alexnet(size_hw=(62, 63)), "at least 63"),
        (lambda: nets.googlenet(size_hw=(15, 14)), "at least 15"),
        (lambda: nets.inception_v3(size_hw=(74, 75)), "at least 75"),
        (lambda: nets.inception_v3(size_hw=(298, 299), aux=True), "at least 299"),
        (lambda: nets.lenet5(size_hw=None), "must be given: lenet5 flattens"),
        (lambda: nets.alexnet_2012(size_hw=None), "must be given"),
        (lambda: nets.googlenet(variant="keras"), "torchvision, paper. Received: variant='keras'"),
        (lambda: nets.googlenet(variant="paper", aux=True, size_hw=None), "must be given"),
        (lambda: nets.googlenet(variant="paper", aux=True, size_hw=(79, 78)), "at least 79"),
        (lambda: nets.googlenet(classes={"a": 2}, aux=True), "`aux` needs `classes`"),
        (lambda: nets.inception_v3(classes=None, aux=True), "`aux` needs `classes`"),
        (lambda: nets.lenet5(classes=0), "classes=0"),
        (lambda: nets.lenet5(classes=True), "classes=True"),
        (lambda: nets.lenet5(classes={}), "each head"),
        (lambda: nets.lenet5(classes={"my head": 3}), "my head"),
        (lambda: nets.lenet5(classes={"a": 2.5}), "2.5"),
    ],
)
def test_networks_name_a_bad_argument(make: Callable[[], keras.Model], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize(
    ("build", "size"),
    [
        (nets.alexnet, (63, 63)),
        (nets.alexnet_2012, (67, 67)),
        (nets.vgg16, (32, 32)),
        (nets.googlenet, (15, 15)),
        (nets.inception_v3, (75, 75)),
    ],
)
def test_the_smallest_size_leaves_one_cell(build: Build, size: tuple[int, int]) -> None:
    assert build(classes=None, size_hw=size).output_shape[1:3] == (1, 1)


def test_padding_is_torchs_where_same_would_shift() -> None:
    x = keras.Input((8, 9, 2))
    model = randomize(keras.Model(x, conv(x, 3, 3, stride=2, padding=1, name="conv")))
    assert model.output_shape == (None, 4, 5, 3)
    kernel = model.get_layer("conv").get_weights()[0]
    picture = image(8, 9, 2)
    padded = np.pad(picture, ((0, 0), (1, 1), (1, 1), (0, 0)))
    want = np.tensordot(padded[:, 2:5, 4:7], kernel, 3)  # output (1, 2)
    assert np.allclose(model(picture)[:, 1, 2], want, atol=1e-5)


def test_groups_of_one_channel_are_depthwise() -> None:
    x = keras.Input((8, 9, 4))
    made = conv(x, 4, 3, groups=4, padding=1, name="conv")
    assert isinstance(keras.Model(x, made).get_layer("conv"), keras.layers.DepthwiseConv2D)


def test_names_have_no_dots_where_keras_runs_on_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert layer_name("layer1.0.conv1") == "layer1.0.conv1"
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    assert layer_name("layer1.0.conv1") == "layer1-0-conv1"


def test_a_head_without_classes_is_its_features() -> None:
    features = keras.Input((7,))
    assert classifier_head(features, None) is features
