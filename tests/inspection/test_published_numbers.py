"""Parameters, multiply-adds and receptive fields of known networks, against what is published (REFERENCE 4.1)."""

from __future__ import annotations

import gc

import keras
import numpy as np
import pytest

from visionkit import nets
from visionkit.inspection import count_convolution, count_dense, count_locally_connected, summarize
from visionkit.inspection.counts import convolution_macs

NETWORKS = {
    # name: (builder, arguments)
    "lenet5": ("lenet5", {}),
    "alexnet": ("alexnet", {}),
    "alexnet_2012": ("alexnet_2012", {}),
    "alexnet_2012 without groups": ("alexnet_2012", {"groups": 1}),
    "vgg16": ("vgg16", {}),
    "vgg16 trunk": ("vgg16", {"classes": None}),
    "vgg19": ("vgg19", {}),
    "googlenet": ("googlenet", {"variant": "paper"}),
    "inception_v3": ("inception_v3", {}),
    "resnet18": ("resnet18", {}),
    "resnet50": ("resnet50", {}),
    "resnet50 paper": ("resnet50", {"layout": "paper"}),
    "resnet101": ("resnet101", {}),
    "resnet101 paper": ("resnet101", {"layout": "paper"}),
    "resnet152": ("resnet152", {}),
    "resnet152 paper": ("resnet152", {"layout": "paper"}),
    "mobilenet_v2": ("mobilenet_v2", {}),
    "siamfc branch": ("siamfc_branch", {}),
}


class Summaries:
    """Each network's summary, made once; the networks themselves are let go, as VGG's weights are half a gigabyte."""

    def __init__(self):
        self.made = {}

    def __getitem__(self, name):
        if name not in self.made:
            builder, arguments = NETWORKS[name]
            size = (255, 255) if name == "siamfc branch" else None
            self.made[name] = summarize(getattr(nets, builder)(**arguments), size)
            gc.collect()
        return self.made[name]


@pytest.fixture(scope="module", autouse=True)
def without_random_weights():
    """Drawing a hundred million numbers is most of the time of building a network, and nothing here looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            keras.initializers.VarianceScaling, "__call__", lambda _, shape, dtype=None: np.zeros(shape, dtype)
        )
        yield


@pytest.fixture(scope="module")
def summaries():
    return Summaries()


def field_of(row):
    (field,) = row.fields.values()
    return field


# INS-1


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("lenet5", 156 + 2_416 + 48_120 + 10_164 + 850),
        ("alexnet_2012", 60_965_224),
        ("alexnet_2012 without groups", 62_378_344),
        ("alexnet", 61_100_840),
        ("vgg16", 138_357_544),
        ("vgg16 trunk", 14_714_688),
        ("vgg19", 143_667_240),
        ("googlenet", 6_998_552),
        ("mobilenet_v2", 3_538_984),
    ],
)
def test_parameters(summaries, name, parameters):
    assert summaries[name].parameters == parameters
    assert sum(row.parameters for row in summaries[name].layers) == parameters


@pytest.mark.parametrize(
    ("name", "trainable"),
    [
        ("resnet18", 11_689_512),
        ("resnet50", 25_557_032),
        ("resnet50 paper", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("inception_v3", 23_834_568),
        ("mobilenet_v2", 3_504_872),
    ],
)
def test_trainable_parameters_are_torchvisions(summaries, name, trainable):
    """Torch counts moving means and variances as buffers, not as parameters."""
    assert summaries[name].trainable == trainable == sum(row.trainable for row in summaries[name].layers)


def test_the_groups_of_alexnet_are_counted(summaries):
    """256 filters of 5x5 see 48 of the 96 maps each; all 96 would be the known wrong count."""
    grouped, full = summaries["alexnet_2012"].layer("conv2"), summaries["alexnet_2012 without groups"].layer("conv2")
    assert (grouped.parameters, full.parameters) == (5 * 5 * 48 * 256 + 256, 5 * 5 * 96 * 256 + 256)
    assert grouped.macs * 2 == full.macs == 27 * 27 * 5 * 5 * 96 * 256


def test_siamfc_branch_parameters(summaries):
    """2,338,560 with batch normalisation behind the first four (REFERENCE 4.1)."""
    assert summaries["siamfc branch"].parameters == 2_338_560


KERAS = {
    "ResNet50": 25_636_712,
    "ResNet50V2": 25_613_800,
    "InceptionV3": 23_851_784,
    "MobileNet": 4_253_864,
    "MobileNetV2": 3_538_984,
    "EfficientNetB0": 5_330_571,
    "Xception": 22_910_480,
}
KERAS_SLOW = {
    "VGG16": 138_357_544,
    "VGG19": 143_667_240,
    "ResNet101": 44_707_176,
    "ResNet152": 60_419_944,
    "InceptionResNetV2": 55_873_736,
    "DenseNet121": 8_062_504,
    "NASNetMobile": 5_326_716,
}


def check_application(name, parameters):
    summary = summarize(getattr(keras.applications, name)(weights=None))
    assert summary.parameters == parameters == sum(row.parameters for row in summary.layers)
    assert summary.unknown_macs == ()
    assert all(row.fields is not None for row in summary.layers)


@pytest.mark.parametrize("name", ["MobileNet", "ResNet50V2"])
def test_parameters_of_keras_applications(name):
    check_application(name, KERAS[name])


@pytest.mark.slow  # builds fourteen large networks
@pytest.mark.parametrize(("name", "parameters"), (KERAS | KERAS_SLOW).items())
def test_parameters_of_all_keras_applications(name, parameters):
    check_application(name, parameters)


def test_seed_figures():
    shared = count_convolution((11, 11), 3, 96, output_hw=(55, 55))
    assert (shared.weights, shared.biases, shared.units) == (34_848, 96, 290_400)
    assert count_locally_connected((55, 55), (11, 11), 3, 96).total == 105_705_600
    assert count_locally_connected((200, 200), (10, 10), 1, 1, bias=False).total == 4_000_000
    assert count_convolution((10, 10), 1, 100, bias=False).total == 10_000
    assert count_dense(200 * 200, 40_000, bias=False).total == 1_600_000_000
    assert count_dense(200 * 200 * 3, 1, bias=False).total == 120_000


def test_what_sharing_leaves_out():
    """The same count without biases, or with shared biases, is not the seed's."""
    unshared = count_locally_connected((55, 55), (11, 11), 3, 96)
    assert unshared.weights == 105_415_200
    assert unshared.weights + 96 != 105_705_600


@pytest.mark.parametrize("arguments", [((3, 3), 4, 6, 4), ((3, 3), 6, 4, 4)])
def test_groups_divide_the_channels(arguments):
    kernel, channels, filters, groups = arguments
    with pytest.raises(ValueError, match="must divide"):
        count_convolution(kernel, channels, filters, groups=groups)


# INS-2

FIELDS = [
    # network, row, size, stride, padding
    *[
        ("vgg16", row, *numbers)
        for row, numbers in {
            "pool1": (6, 2, 2),
            "pool2": (16, 4, 6),
            "pool3": (44, 8, 18),
            "pool4": (100, 16, 42),
            "pool5": (212, 32, 90),
            "classifier.0": (404, 32, 90),
        }.items()
    ],
    *[
        ("alexnet_2012", row, *numbers)
        for row, numbers in {
            "conv1": (11, 4, 0),
            "conv1.pool": (19, 8, 0),
            "conv2": (51, 8, 16),
            "conv3": (99, 16, 32),
            "conv4": (131, 16, 48),
            "conv5": (163, 16, 64),
            "conv5.pool": (195, 32, 64),
            "fc6": (355, 32, 64),
        }.items()
    ],
    *[
        ("lenet5", row, *numbers)
        for row, numbers in {
            "c1": (5, 1, 0),
            "s2": (6, 2, 0),
            "c3": (14, 2, 0),
            "s4": (16, 4, 0),
            "c5": (32, 4, 0),
        }.items()
    ],
    ("resnet50 paper", "layer4.2.relu", 483, 32, 241),
    ("resnet101 paper", "layer4.2.relu", 1027, 32, 513),
    ("resnet152 paper", "layer4.2.relu", 1507, 32, 753),
    ("resnet50", "layer4.2.relu", 427, 32, 213),
    ("resnet101", "layer4.2.relu", 971, 32, 485),
    ("resnet152", "layer4.2.relu", 1451, 32, 725),
    ("inception_v3", "Mixed_7c.concat", 1311, 32, 618),
    ("siamfc branch", "conv5", 87, 8, 0),
]


@pytest.mark.parametrize(("name", "row", "size", "stride", "padding"), FIELDS)
def test_receptive_fields(summaries, name, row, size, stride, padding):
    field = field_of(summaries[name].layer(row))
    assert (field.size_hw, field.stride_hw, field.padding_hw) == ((size,) * 2, (stride,) * 2, (padding,) * 2)
    assert field.center_hw(1, 2)[1] == -padding + 2 * stride + (size - 1) / 2


def test_googlenet_sees_907_at_its_average(summaries):
    """FCN, Long et al., CVPR 2015, table 1, counts the 7x7 average as a window."""
    assert field_of(summaries["googlenet"].layer("avgpool")).size_hw == (907, 907)
    assert field_of(summaries["googlenet"].layer("avgpool")).stride_hw == (32, 32)


@pytest.mark.parametrize(
    ("name", "row", "size", "padding"),
    [("MobileNet", "conv_pw_13_relu", 315, 126), ("ResNet50", "conv5_block3_out", 483, 241)],
)
def test_receptive_fields_of_keras_applications(name, row, size, padding):
    field = field_of(summarize(getattr(keras.applications, name)(weights=None)).layer(row))
    assert (field.size_hw, field.stride_hw, field.padding_hw) == ((size,) * 2, (32, 32), (padding,) * 2)


@pytest.mark.slow  # Inception-ResNet-v2 takes ten seconds to build
def test_receptive_field_of_inception_resnet_v2():
    field = field_of(summarize(keras.applications.InceptionResNetV2(weights=None)).layer("conv_7b_ac"))
    assert (field.size_hw, field.stride_hw, field.padding_hw) == ((3039, 3039), (32, 32), (1482, 1482))


def sizes_by(summary, choose):
    """Receptive field of each row, where `choose` says which of several inputs counts: a check and known errors."""
    seen = {}
    for row in summary.layers:
        size, stride = choose([seen[name] for name in row.inputs]) if row.inputs else (1, 1)
        if row.window is not None:
            window = row.window
            size += window.dilation_hw[0] * (window.kernel_hw[0] - 1) * stride
            stride *= window.stride_hw[0]
        seen[row.name] = (size, stride)
    return {name: size for name, (size, _) in seen.items()}


@pytest.mark.parametrize(
    ("name", "row", "right"),
    [
        ("resnet50", "layer4.2.relu", 427),
        ("resnet50 paper", "layer4.2.relu", 483),
        ("googlenet", "inception5b.concat", 715),
    ],
)
def test_a_walk_that_is_no_maximum_over_paths_is_wrong(summaries, name, row, right):
    summary = summaries[name]
    assert sizes_by(summary, max)[row] == right == field_of(summary.layer(row)).size_hw[0]
    assert sizes_by(summary, min)[row] < right  # the branch minimum
    by_line = {sizes_by(summary, lambda seen, end=end: seen[end])[row] for end in (0, -1)}  # one branch only
    assert min(by_line) < right


def test_the_layouts_of_resnet_differ(summaries):
    """The stride in the first 1x1 or in the 3x3: the same parameters, other fields and other costs."""
    paper, torch = summaries["resnet50 paper"], summaries["resnet50"]
    assert paper.parameters == torch.parameters
    assert (paper.macs, torch.macs) == (3_857_973_248, 4_089_184_256)


# INS-4


def test_macs_of_vgg16(summaries):
    rows = summaries["vgg16"].layers
    assert sum(row.macs for row in rows if row.kind == "Conv2D") == 15_346_630_656
    assert sum(row.macs for row in rows if row.kind == "Dense") == 123_633_664
    assert summaries["vgg16"].macs == 15_470_264_320
    assert summaries["vgg16"].training_macs == 3 * 15_470_264_320


def test_macs_of_the_seed_have_the_square():
    """000 s48: M maps of D x D, N filters of K x K: M K^2 N (D - K + 1)^2; the slide's text lost the square."""
    maps, size, filters, kernel = 3, 32, 8, 5
    image = keras.Input((size, size, maps), name="image")
    row = summarize(keras.Model(image, keras.layers.Conv2D(filters, kernel, name="conv")(image))).layer("conv")
    side = size - kernel + 1
    assert (
        row.macs == maps * kernel**2 * filters * side**2 == convolution_macs((side,) * 2, (kernel,) * 2, maps, filters)
    )
    assert row.macs != maps * kernel**2 * filters * side


@pytest.mark.parametrize(("name", "macs"), [("mobilenet_v2", 300_774_272), ("resnet18", 1_814_073_344)])
def test_macs_of_torchvision(summaries, name, macs):
    """As torchvision's tables have them, in units of 1e9: 0.30 and 1.81."""
    assert summaries[name].macs == macs


# INS-5


def test_500_pixels_through_alexnet_by_both_rules():
    """002 L143: 10 x 10 places for the 6x6 fc6 by ceil pooling, 9 x 9 by floor."""
    sizes = {}
    for ceil_mode in (True, False):
        trunk = nets.alexnet_2012(classes=None, size_hw=None, ceil_mode=ceil_mode)
        fc6 = keras.layers.Conv2D(4, 6, name="fc6")(trunk.output)
        summary = summarize(keras.Model(trunk.input, fc6), (500, 454))
        sizes[ceil_mode] = summary.layer("fc6").output_shape
        assert summary.layer("conv1.pool").window.rounding == ("ceil" if ceil_mode else "floor")
    assert sizes == {True: (10, 8, 4), False: (9, 8, 4)}
