"""Fully convolutional networks with skips: SEG-2, sizes, other backbones, VGG-16's weights, export."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from visionkit import nets
from visionkit.errors import ModelError
from visionkit.geometry.receptive_field import AxisField, ReceptiveField
from visionkit.inspection import summarize
from visionkit.nets.convolutionize import fully_convolutional
from visionkit.nets.fcn import Scored, enlarging, fcn_head
from visionkit.nets.resnet import resnet_stages
from visionkit.runtime import compile_model
from visionkit.weights.torchvision import fcn_from_vgg

NETWORKS = {"fcn32s_vgg16": (19,), "fcn16s_vgg16": (5, 27), "fcn8s_vgg16": (5, 9, 31)}
TINY: dict[str, Any] = {"units": 8, "classes": 3}
# centres of the first cells under a padding of 100 (REFERENCE 4.3), and strides
CENTERS = {"score": (Fraction(25, 2), 32), "pool4": (Fraction(-183, 2), 16), "pool3": (Fraction(-191, 2), 8)}


def net(name: str, size_hw: tuple[int, int] | None, **options: Any) -> keras.Model:
    model: keras.Model = getattr(nets, name)(size_hw=size_hw, **TINY | options)
    return model


def offsets(model: keras.Model) -> tuple[int, ...]:
    """What is cut above and left of each map, in the order of the network."""
    crops = [layer.cropping for layer in model.layers if isinstance(layer, layers.Cropping2D)]
    crops = [crop for crop in crops if any(map(any, crop))]
    assert all(down[0] == across[0] for down, across in crops)
    return tuple(down[0] for down, _ in crops)


@pytest.mark.parametrize(("name", "published"), NETWORKS.items())
def test_seg2_crops_are_the_published_ones(name: str, published: tuple[int, ...]) -> None:
    model = net(name, (131, 97))
    assert offsets(model) == published
    assert model.output_shape == (None, 131, 97, 3)


def test_seg2_centres_are_the_published_ones() -> None:
    rows = summarize(net("fcn8s_vgg16", (131, 97)))
    for name, (center, stride) in CENTERS.items():
        field = (rows.layer(name).fields or {})["image"]
        assert field.center_hw() == (center, center), name
        assert field.stride_hw == (stride, stride), name
    fc6 = (rows.layer("fc6").fields or {})["image"]
    assert fc6.size_hw == (404, 404)


def middle(image: np.ndarray) -> tuple[float, float]:
    """The centroid of a map (H, W), in indices of pixels."""
    weights = image / image.sum()
    return float((weights.sum(1) * np.arange(len(image))).sum()), float(
        (weights.sum(0) * np.arange(image.shape[1])).sum()
    )


def field_of(center: Fraction, stride: int) -> ReceptiveField:
    axis = AxisField(1, stride, -center)
    return ReceptiveField(axis, axis)


def heads(names: Sequence[str], hw: Sequence[tuple[int, int]], shift: int = 0) -> keras.Model:
    """The head alone over maps of these names; `shift` moves what is known of the last map's centres."""
    image = keras.Input((150, 200, 1))
    inputs = [keras.Input((*size, 1)) for size in hw]
    shifts = [0] * (len(names) - 1) + [shift]
    fields = [field_of(CENTERS[name][0] + by, CENTERS[name][1]) for name, by in zip(names, shifts, strict=True)]
    scored = [Scored(name, x, field) for name, x, field in zip(names, inputs, fields, strict=True)]
    return keras.Model([image, *inputs], fcn_head(image, scored))


SIZES = {"score": (6, 8), "pool4": (23, 27), "pool3": (45, 53)}  # of VGG-16's maps of 160 x 224 pixels


def centred(names: Sequence[str], lit: str, cell: tuple[int, int], shift: int = 0) -> tuple[float, float]:
    """How far from its receptive field's centre a lit cell comes out, down and across."""
    model = heads(names, [SIZES[name] for name in names], shift)
    maps = {name: np.zeros((1, *SIZES[name], 1), "float32") for name in names}
    maps[lit][0, cell[0], cell[1], 0] = 1
    out = np.asarray(model([np.zeros((1, 150, 200, 1)), *maps.values()]))[0, :, :, 0]
    center, stride = CENTERS[lit]
    found = middle(out)
    return tuple(got - float(center + stride * i) for got, i in zip(found, cell, strict=True))  # type: ignore[return-value]


HEADS = {"32s": ("score",), "16s": ("score", "pool4"), "8s": ("score", "pool4", "pool3")}


@pytest.mark.parametrize("head", HEADS)
def test_seg2_sizes_of_the_heads_are_the_networks(head: str) -> None:
    model = net(f"fcn{head}_vgg16", (160, 224))
    for name in HEADS[head]:
        assert model.get_layer("score" if name == "score" else name).output.shape[1:3] == SIZES[name]


@pytest.mark.parametrize(
    ("head", "lit", "cell"),
    [
        ("32s", "score", (2, 3)),
        ("16s", "score", (2, 3)),
        ("16s", "pool4", (10, 13)),
        ("8s", "score", (2, 3)),
        ("8s", "pool4", (10, 13)),
        ("8s", "pool3", (20, 25)),
    ],
)
def test_seg2_a_lit_cell_comes_out_at_its_receptive_fields_centre(head: str, lit: str, cell: tuple[int, int]) -> None:
    assert centred(HEADS[head], lit, cell) == pytest.approx((0, 0), abs=1e-3)


@pytest.mark.parametrize(("head", "shift"), [("32s", 1), ("16s", 16), ("8s", 8)])
def test_seg2_a_crop_off_by_one_is_found(head: str, shift: int) -> None:
    """32s: 18 in the place of 19; the others: the last skip taken a cell too early."""
    last = HEADS[head][-1]
    wrong = centred(HEADS[head], last, (2, 3) if last == "score" else (12, 14), shift=shift)
    assert max(map(abs, wrong)) == pytest.approx(shift, abs=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_seg2_output_has_the_size_of_the_image(name: str) -> None:
    """Each height from 97 to 224 with another width: every remainder of 32 in both."""
    model = net(name, None, units=1)
    for height in range(97, 225):
        width = 97 + (height * 37) % 128
        rows = summarize(model, (height, width))
        assert rows.outputs["logits"] == (height, width, 3)
        room = rows.layer("upscore").output_shape
        offset = NETWORKS[name][-1]
        assert room[0] is not None
        assert room[1] is not None
        assert room[0] >= height + offset
        assert room[1] >= width + offset


@pytest.mark.parametrize("size_hw", [(97, 120), (1, 40)])
def test_open_sizes_give_what_fixed_ones_give(size_hw: tuple[int, int]) -> None:
    fixed, free = net("fcn8s_vgg16", size_hw), net("fcn8s_vgg16", None)
    _stir(fixed)
    free.set_weights(fixed.get_weights())
    x = np.random.default_rng(0).normal(size=(2, *size_hw, 3)).astype("float32")
    expected = np.asarray(fixed(x))
    assert expected.shape == (2, *size_hw, 3)
    np.testing.assert_allclose(np.asarray(free(x)), expected, atol=1e-6 * np.abs(expected).max())


def _stir(model: keras.Model) -> None:
    """Numbers in the place of the zeros with which scores begin."""
    random = np.random.default_rng(1)
    for layer in model.layers:
        if layer.name.startswith("score"):
            layer.set_weights([random.normal(size=w.shape, scale=0.1) for w in layer.get_weights()])


def test_at_once_scales_the_skips() -> None:
    plain, scaled = net("fcn8s_vgg16", (97, 120)), net("fcn8s_vgg16", (97, 120), at_once=True)
    _stir(plain)
    scaled.set_weights(plain.get_weights())
    assert (scaled.get_layer("scale_pool4").scale, scaled.get_layer("scale_pool3").scale) == (0.01, 0.0001)
    for name, factor in (("score_pool4", 0.01), ("score_pool3", 0.0001)):
        kernel, bias = scaled.get_layer(name).get_weights()
        scaled.get_layer(name).set_weights([kernel / factor, bias])
    x = np.random.default_rng(0).normal(size=(1, 97, 120, 3)).astype("float32")
    expected = np.asarray(plain(x))
    np.testing.assert_allclose(np.asarray(scaled(x)), expected, atol=1e-5 * np.abs(expected).max())


def test_scores_begin_at_zero_and_enlarging_stays() -> None:
    model = net("fcn8s_vgg16", (97, 120))
    assert not np.asarray(model(np.ones((1, 97, 120, 3)))).any()
    names = {layer.name for layer in model.layers if layer.weights and not layer.trainable}
    assert names == {"upscore_pool4", "upscore_pool3", "upscore"}
    kernels = [tuple(model.get_layer(name).kernel.shape) for name in ("upscore_pool4", "upscore_pool3", "upscore")]
    assert kernels == [(4, 4, 3, 3), (4, 4, 3, 3), (16, 16, 3, 3)]
    assert net("fcn32s_vgg16", (97, 120)).get_layer("upscore").kernel.shape == (64, 64, 3, 3)
    assert net("fcn16s_vgg16", (97, 120)).get_layer("upscore").kernel.shape == (32, 32, 3, 3)
    assert net("fcn32s_vgg16", (97, 120), trainable_upsampling=True).get_layer("upscore").trainable


def test_resize_false_gives_the_finest_scores() -> None:
    low = net("fcn8s_vgg16", (97, 120), resize=False)
    assert low.layers[-1].name == "logits_low"
    assert low.output_shape == (None, *low.get_layer("fuse_pool3").output.shape[1:3], 3)


# Other backbones


def alexnet_maps(x: Any) -> list[Any]:
    """The published FCN-AlexNet's: 100 pixels of padding, fc6 as a convolution of 6x6."""
    x = layers.ZeroPadding2D(100, name="pad")(x)
    for index, (channels, kernel, stride, padding, pool) in enumerate(
        ((6, 11, 4, 0, True), (8, 5, 1, 2, True), (8, 3, 1, 1, False), (8, 3, 1, 1, False), (8, 3, 1, 1, True))
    ):
        x = layers.ZeroPadding2D(padding, name=f"conv{index}.pad")(x)
        x = layers.Conv2D(channels, kernel, stride, name=f"conv{index}")(x)
        x = layers.MaxPooling2D(3, 2, name=f"pool{index}")(x) if pool else x
    return [layers.Conv2D(8, 6, name="fc6")(x)]


def test_alexnets_crop_is_the_published_one() -> None:
    model = nets.fcn(alexnet_maps, skips=0, classes=3, size_hw=(131, 97))
    assert model.get_layer("upscore").kernel.shape[:2] == (63, 63)
    assert offsets(model) == (18,)
    assert model.output_shape == (None, 131, 97, 3)


@pytest.mark.parametrize("size_hw", [(97, 131), (96, 160), (33, 65), (225, 128)])
def test_resnet18_needs_no_padding(size_hw: tuple[int, int]) -> None:
    """Its centres lie on pixels, so that odd kernels enlarge, and it is the enlarged map that is cropped."""
    model = nets.fcn(lambda x: resnet_stages(x, "resnet18"), classes=3, size_hw=size_hw)
    assert offsets(model) == (1, 1, 7)
    assert model.output_shape == (None, *size_hw, 3)
    notes = [row.notes for row in summarize(model).layers if row.notes]
    assert not notes, "inspection finds the branches aligned"


def test_inspection_finds_a_wrong_crop_misaligned() -> None:
    image = keras.Input((97, 131, 3))
    maps = resnet_stages(image, "resnet18")
    coarse = layers.Conv2D(3, 1)(maps[3])
    up = layers.Conv2DTranspose(3, 4, 2)(coarse)  # 7 x 8 for 4 x 5 ... of even size, half a cell off
    height, width = maps[2].shape[1:3]
    up = layers.Cropping2D(((1, up.shape[1] - height - 1), (1, up.shape[2] - width - 1)))(up)
    wrong = keras.Model(image, layers.Add()([up, layers.Conv2D(3, 1)(maps[2])]))
    assert any("misaligned" in note for row in summarize(wrong).layers for note in row.notes)


def test_centres_that_cannot_meet_are_refused() -> None:
    with pytest.raises(ValueError, match="centres do not come to lie on one another"):
        enlarging(field_of(Fraction(1, 4), 8), field_of(Fraction(0), 4))
    with pytest.raises(ValueError, match="times a whole number"):
        enlarging(field_of(Fraction(0), 6), field_of(Fraction(0), 4))


def test_maps_that_leave_a_part_of_the_image_out_are_refused() -> None:
    def narrow(x: Any) -> list[Any]:
        return [layers.Conv2D(4, 33, 2, name="wide")(x)]

    with pytest.raises(ValueError, match=r"leave a part of the image out.*Pad the image"):
        nets.fcn(narrow, skips=0, size_hw=(97, 120))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skips": 4}, "`skips` must be 0 to 3"),
        ({"skips": True}, "`skips` must be 0 to 3"),
        ({"scales": (0.5,)}, "`scales` must be empty or hold one number for each skip"),
        ({"classes": 0}, "`classes` must be a positive integer"),
        ({"size_hw": (0, 4)}, "`size_hw` must be"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nets.fcn(lambda x: resnet_stages(x, "resnet18"), **{"size_hw": (64, 96), **options})
    with pytest.raises(ValueError, match="`units` must be a positive integer"):
        nets.fcn8s_vgg16(units=0)


# VGG-16's weights, and export


@pytest.fixture(scope="module")
def vgg_state() -> dict[str, np.ndarray]:
    """A checkpoint of VGG-16, its layers of 4096 units cut to 8, in torch's layout."""
    random = np.random.default_rng(3)
    state: dict[str, np.ndarray] = {}
    for layer in net("fcn32s_vgg16", (97, 120)).layers:
        if layer.name.startswith("features.") and layer.weights:
            kh, kw, cin, cout = layer.kernel.shape
            scale = np.sqrt(2 / (kh * kw * cin))
            state[f"{layer.name}.weight"] = random.normal(size=(cout, cin, kh, kw), scale=scale).astype("float32")
            state[f"{layer.name}.bias"] = random.normal(size=cout, scale=0.1).astype("float32")
    for name, shape in (("classifier.0", (8, 512 * 49)), ("classifier.3", (8, 8)), ("classifier.6", (1000, 8))):
        state[f"{name}.weight"] = random.normal(size=shape, scale=np.sqrt(2 / shape[1])).astype("float32")
        state[f"{name}.bias"] = random.normal(size=shape[0], scale=0.1).astype("float32")
    return state


def _classifier(state: dict[str, np.ndarray]) -> keras.Model:
    """VGG-16 with eight units where it has 4096, filled from the same checkpoint by other means."""
    from visionkit.nets.vgg import STAGES_16, vgg_stages

    image = keras.Input((224, 224, 3), name="image")
    x = layers.Flatten()(vgg_stages(image, STAGES_16)[-1])
    for name in ("classifier.0", "classifier.3"):
        x = layers.ReLU()(layers.Dense(8, name=name)(x))
    model = keras.Model(image, x)
    for layer in model.layers:
        if layer.weights:
            weight = state[f"{layer.name}.weight"]
            if weight.ndim == 4:
                weight = weight.transpose(2, 3, 1, 0)
            elif layer.name == "classifier.0":
                weight = weight.reshape(8, 512, 7, 7).transpose(2, 3, 1, 0).reshape(-1, 8)
            else:
                weight = weight.T
            layer.set_weights([weight, state[f"{layer.name}.bias"]])
    return model


def test_vggs_dense_layers_become_convolutions(vgg_state: dict[str, np.ndarray]) -> None:
    """The features before the scores are those of the classifier made convolutional, over the padded image."""
    model = net("fcn8s_vgg16", (58, 90))
    kept = fcn_from_vgg(model, vgg_state)
    assert {*kept} == {"score", "score_pool4", "score_pool3", "upscore_pool4", "upscore_pool3", "upscore"}
    x = np.random.default_rng(0).normal(size=(1, 58, 90, 3)).astype("float32")
    found = np.asarray(keras.Model(model.inputs[0], model.get_layer("fc7.relu").output)(x))
    padded = np.pad(x, ((0, 0), (99, 99), (99, 99), (0, 0)))  # 256 x 288: multiples of 32, so that no pooling rounds
    expected = np.asarray(fully_convolutional(_classifier(vgg_state), (256, 288))(padded))
    assert found.shape == expected.shape == (1, 2, 3, 8)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_a_checkpoint_that_does_not_fit_is_refused(vgg_state: dict[str, np.ndarray]) -> None:
    state = {name: value for name, value in vgg_state.items() if name != "features.0.bias"}
    state["classifier.0.weight"] = state["classifier.0.weight"][:, :-1]
    with pytest.raises(ModelError, match=r"classifier\.0\.weight is \(8, 25087\), expected \(8, 25088\)") as refused:
        fcn_from_vgg(net("fcn8s_vgg16", (97, 120)), state)
    assert "features.0.bias (64,) is missing" in str(refused.value)


def test_savedmodel_and_litert_equal_keras(vgg_state: dict[str, np.ndarray], tmp_path: Path) -> None:
    import tensorflow as tf

    model = net("fcn8s_vgg16", (58, 90), at_once=True)
    fcn_from_vgg(model, vgg_state)
    _stir(model)
    x = np.random.default_rng(0).normal(size=(1, 58, 90, 3)).astype("float32")
    expected = np.asarray(model(x))
    model.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"](tf.constant(x))
    ((_, answer),) = served.items()
    np.testing.assert_allclose(answer.numpy(), expected, atol=1e-5 * np.abs(expected).max())
    with compile_model(model, runtime="litert", cache_dir=tmp_path) as runner:
        np.testing.assert_allclose(runner(image=x)["logits"], expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "parameters"), [("fcn32s_vgg16", 136_152_917), ("fcn16s_vgg16", 0), ("fcn8s_vgg16", 0)]
)
def test_parameters(name: str, parameters: int) -> None:
    """Features 14,714,688; fc6 of 7 * 7 * 512 * units + units; fc7 of units ** 2 + units; scores; the enlarging."""
    skips = {"fcn32s_vgg16": (), "fcn16s_vgg16": (512,), "fcn8s_vgg16": (512, 256)}[name]
    kernels = {"fcn32s_vgg16": (64,), "fcn16s_vgg16": (4, 32), "fcn8s_vgg16": (4, 4, 16)}[name]
    units = 16
    tiny = net(name, (97, 120), units=units, classes=21).count_params()

    def expected(units: int) -> int:
        scores = sum(21 * channels + 21 for channels in (units, *skips))
        fully = 49 * 512 * units + units + units**2 + units
        return 14_714_688 + fully + scores + sum(21 * 21 * k * k for k in kernels)

    assert tiny == expected(units)
    if parameters:
        assert expected(4096) == parameters
