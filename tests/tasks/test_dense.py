"""Dense classification: every window met once, equal to its crop (REFERENCE CNV-1, CNV-2, CNV-3), within bounds."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from tests.nets.test_convolutionize import net, randomized
from visionkit.errors import ModelError, UsageError
from visionkit.tasks.classify import ClassifyOptions, probabilities
from visionkit.tasks.dense import DenseClassifier, DenseNetwork, DenseOptions
from visionkit.tasks.dense_plan import DensePlan, check_stride, possible_strides, window_counts
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.load_dense import dense_network

WINDOW = 188


def picture(size_hw, seed=0):
    """Noise on patches: uint8 (H, W, 3) whose windows look different."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (-(-size_hw[0] // 48), -(-size_hw[1] // 48), 3))
    patches = np.repeat(np.repeat(coarse, 48, axis=0), 48, axis=1)[: size_hw[0], : size_hw[1]]
    return (patches + rng.integers(0, 56, (*size_hw, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def pad_free():
    model = randomized(net())
    network = dense_network(model, runtime="litert", threads=1)
    yield model, network
    network.close()


@pytest.fixture(scope="module")
def small():
    """A pad-free network of a small window, H != W, stride 8, and its runners."""
    image = keras.Input((32, 48, 3), name="image")
    x = image
    for number in range(3):
        x = layers.Conv2D(6, 2, strides=2, activation="relu", name=f"conv{number}")(x)
    model = randomized(keras.Model(image, layers.Dense(4, name="logits")(layers.Flatten()(x))))
    network = dense_network(model, runtime="litert", threads=1)
    yield model, network
    network.close()


def crops_of(model, rule, image, stride):
    """(h, w, L): probabilities of each crop by the Keras model itself."""
    height, width = model.input_shape[1:3]
    rows, columns = window_counts(image.shape[:2], (height, width), stride)
    crops = [
        rule.normalize(image[r * stride : r * stride + height, c * stride : c * stride + width].copy())
        for r in range(rows)
        for c in range(columns)
    ]
    logits = np.concatenate([model.predict_on_batch(np.stack(crops[i : i + 11])) for i in range(0, len(crops), 11)])
    return probabilities(logits.astype(np.float32)).reshape(rows, columns, -1)


def rule_of(model):
    return InputRule.preset("torch", model.input_shape[1:3])


@pytest.mark.parametrize(("stride", "counts"), [(None, (6, 6)), (16, (11, 11))])
def test_all_windows_equal_their_crops(pad_free, stride, counts):
    model, network = pad_free
    image = picture((WINDOW + 160, WINDOW + 160))
    dense = DenseClassifier(network, rule_of(model), DenseOptions(stride=stride))
    assert dense.exact
    found = dense(image)
    assert found.probs.shape == (*counts, 7)  # 36 windows at stride 32, 121 at stride 16
    expected = crops_of(model, rule_of(model), image, dense.stride)
    assert expected.std(axis=(0, 1)).max() > 0.02  # else anything would agree
    assert np.abs(found.probs - expected).max() < 1e-5


def test_two_passes_would_meet_61_of_121_windows():
    plan = DensePlan((WINDOW + 160,) * 2, (WINDOW,) * 2, (32, 32), 16, 1 << 20)
    met = np.zeros(plan.counts_hw, int)
    twice = met.copy()
    for run in plan.passes():
        met[run.rows, run.columns] += 1
        if run.corner_yx in ((0, 0), (16, 16)):  # "applying twice"
            twice[run.rows, run.columns] += 1
    assert (met == 1).all()
    assert met.size == 121
    assert twice.sum() == 61
    assert len(list(plan.passes())) == 4


def test_a_pass_with_the_wrong_shift_is_seen(pad_free):
    model, network = pad_free
    image = picture((WINDOW + 64, WINDOW + 96))
    found = DenseClassifier(network, rule_of(model), DenseOptions(stride=16))(image).probs
    expected = crops_of(model, rule_of(model), image, 16)
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(found[1:] - expected[:-1]).max() > 1e-3  # one stride off is another window


def brute_force(plan):
    """How often each window is met, and whether the pixels of each are inside its tile."""
    met = np.zeros(plan.counts_hw, int)
    for run in plan.passes():
        rows, columns = range(plan.counts_hw[0])[run.rows], range(plan.counts_hw[1])[run.columns]
        assert (len(rows), len(columns)) == run.cells_hw
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                met[row, column] += 1
                assert (row * plan.stride, column * plan.stride) == (
                    run.corner_yx[0] + i * plan.stride_hw[0],
                    run.corner_yx[1] + j * plan.stride_hw[1],
                )
    return met


@pytest.mark.parametrize("max_pixels", [1, 90 * 90, 130 * 200, 1 << 20])
@pytest.mark.parametrize("size_hw", [(32, 48), (33, 49), (95, 210), (151, 48), (640, 411)])
@pytest.mark.parametrize("stride", [8, 4, 1])
def test_every_window_is_met_at_its_place(size_hw, max_pixels, stride):
    plan = DensePlan(size_hw, (32, 48), (8, 8), stride, max_pixels)
    if stride == 1 and max_pixels < 90 * 90:
        return  # a run for every window: nothing new, and slow
    assert brute_force(plan).min() >= 1
    height, width = plan.tile_hw
    assert height * width <= max(max_pixels, 32 * 48)
    assert (height - 32) % 8 == (width - 48) % 8 == 0


def test_tiles_of_videos_are_few():
    plan = DensePlan((720, 1280), (224, 224), (32, 32), 32, 1 << 20)
    assert len(list(plan.passes())) == 1
    hd = DensePlan((1080, 1920), (224, 224), (32, 32), 32, 1 << 20)
    assert len(list(hd.passes())) <= 3
    assert hd.tile_hw[0] * hd.tile_hw[1] <= 1 << 20


def test_sizes_share_tiles():
    sizes = {(h, w) for h in range(480, 720, 8) for w in range(480, 1300, 8)}
    tiles = {DensePlan(size, (224, 224), (32, 32), 32, 1 << 20).tile_hw for size in sizes}
    assert len(tiles) < len(sizes) / 25


def test_tiled_and_shifted_answers_are_the_crops(small):
    model, network = small
    image = picture((97, 150))
    for options in (
        DenseOptions(stride=4, max_tile_pixels=60 * 60),
        DenseOptions(stride=8, max_tile_pixels=1),
        DenseOptions(stride=2, short_side=97),
        DenseOptions(stride=1),
    ):
        dense = DenseClassifier(network, rule_of(model), options)
        expected = crops_of(model, rule_of(model), image, dense.stride)
        found = dense(image)
        assert found.probs.shape == expected.shape
        assert np.abs(found.probs - expected).max() < 1e-5


def test_the_centres_of_windows_and_the_average_of_the_map(small):
    model, network = small
    image = picture((80, 120))
    found = DenseClassifier(network, rule_of(model), kept=ClassifyOptions(topk=2))(image)
    assert found.x.tolist() == [24.0 + 8 * c for c in range(10)]
    assert found.y.tolist() == [16.0 + 8 * r for r in range(7)]
    assert found.window_hw == (32.0, 48.0)
    mean = found.probs.mean(axis=(0, 1))
    assert found.overall.class_id.tolist() == np.argsort(-mean)[:2].tolist()
    assert np.allclose(found.overall.confidence, np.sort(mean)[::-1][:2], atol=1e-6)


def test_sizes_are_made_to_hold_a_window_and_bounded_by_720():
    grid = dense_grid((64, 100))
    dense = DenseClassifier(grid, InputRule.preset("raw", (64, 100)))
    assert dense.resized((64, 100)) == (64, 100)
    assert dense.resized((480, 640)) == (480, 640)
    assert dense.resized((1080, 1920)) == (720, 1280)
    assert dense.resized((1920, 1080)) == (1280, 720)
    assert dense.resized((32, 200)) == (64, 400)  # too low for a window: enlarged
    assert dense.resized((300, 20)) == (1500, 100)
    smaller = DenseClassifier(grid, InputRule.preset("raw", (64, 100)), DenseOptions(short_side=240))
    assert smaller.resized((480, 640)) == (240, 320)
    with pytest.raises(ModelError, match="more than 67,108,864 pixels") as caught:
        dense.resized((1, 100_000))
    assert caught.value.slug == "frame-too-large"


def dense_grid(window_hw=(32, 48), stride_hw=(8, 8), edge=None):
    """Windows of a network that is never run."""
    from visionkit.geometry.window_grid import WindowGrid

    def never(*_):
        raise AssertionError("nothing was to be compiled")

    return DenseNetwork(WindowGrid(window_hw, stride_hw, edge), never, never)


def test_enlarged_images_give_centres_in_their_own_pixels(small):
    model, network = small
    found = DenseClassifier(network, rule_of(model))(picture((20, 60)))
    assert found.probs.shape[:2] == (1, 7)  # 32 x 96
    assert found.window_hw == pytest.approx((20.0, 30.0))
    assert found.x[:2].tolist() == pytest.approx([15.0, 20.0])


def test_a_padded_net_is_told_and_its_crops_are_exact():
    model = randomized(net("same", size_hw=(96, 96)))
    rule = rule_of(model)
    image = picture((96 + 70, 96 + 100))
    network = dense_network(model, runtime="litert", threads=1)
    expected = crops_of(model, rule, image, 32)
    fast = DenseClassifier(network, rule)
    assert not fast.exact
    assert "'conv0' (Conv2D) pads its map by 1 on each side" in fast.reason
    assert np.abs(fast(image).probs - expected).max() > 0.02
    crops = DenseClassifier(network, rule, DenseOptions(exact=True))
    assert crops.exact
    assert crops.settings()["mode"] == "crops"
    assert np.abs(crops(image).probs - expected).max() < 1e-5
    finer = DenseClassifier(network, rule, DenseOptions(exact=True, stride=16))
    assert np.abs(finer(image).probs[::2, ::2] - expected).max() < 1e-5
    network.close()


def test_several_heads_give_a_map_each():
    image = keras.Input((24, 24, 3), name="image")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 4, strides=4, activation="relu")(image))
    heads = {"kind": layers.Dense(3, name="logits_kind")(x), "colour": layers.Dense(1, name="logits_colour")(x)}
    model = randomized(keras.Model(image, heads))
    network = dense_network(model, runtime="litert", threads=1)
    dense = DenseClassifier(network, rule_of(model), heads=["colour", "kind"])
    found = dense([picture((40, 56)), picture((24, 60))])
    assert [list(answer) for answer in found] == [["colour", "kind"]] * 2
    assert found[0]["kind"].probs.shape == (5, 9, 3)
    assert found[0]["colour"].probs.shape == (5, 9, 2)  # one logit is two classes
    assert np.allclose(found[1]["colour"].probs.sum(axis=-1), 1)
    network.close()


def test_networks_are_compiled_once_a_size_in_the_first_ones_runtime():
    asked, closed = [], []

    class Runner:
        name, precision = "litert", "float32"

        def __init__(self, size):
            self.size = size

        def close(self):
            closed.append(self.size)

    def tile(size_hw, runtime):
        asked.append((size_hw, runtime))
        return Runner(size_hw)

    network = DenseNetwork(dense_grid().grid, tile, Runner)
    for side in (1, 2, 1, 3, 4, 5, 1):
        network.tile((side, side))
    assert [size for size, _ in asked] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]
    assert [runtime for _, runtime in asked] == [None, *["litert"] * 4]
    assert closed == [(2, 2)]  # the one that was not used for longest
    network.close()
    assert sorted(closed) == [(n, n) for n in range(1, 6)]


@pytest.mark.parametrize("stride", [0, 3, 5, 16, 64])
def test_strides_that_do_not_divide_are_refused_with_those_that_do(stride):
    with pytest.raises(UsageError) as caught:
        check_stride(stride, (8, 8))
    assert caught.value.slug == "stride-impossible"
    assert f"Received: stride {stride}. Possible: 8, 4, 2, 1." in caught.value.message


def test_strides_of_uneven_networks():
    assert possible_strides((8, 12)) == [4, 2, 1]
    assert check_stride(None, (8, 12)) == 4


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: DenseOptions(stride=0), ValueError, "stride=0"),
        (lambda: DenseClassifier(dense_grid(), None, DenseOptions(short_side=20)), UsageError, "Received: 20"),
        (lambda: DenseClassifier(dense_grid(), None)(np.zeros((40, 50), np.uint8)), ValueError, r"uint8 \(H, W, 3\)"),
    ],
)
def test_bad_arguments_are_told_by_value(make, error, words):
    with pytest.raises(error, match=words):
        make()
