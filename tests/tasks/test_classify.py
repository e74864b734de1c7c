"""The classifier over runners made by hand: softmax, top-k, batches, several heads, what is not finite, model files."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from visionkit.errors import ModelError, UsageError
from visionkit.runtime.base import Runner, Signature, TensorSpec
from visionkit.runtime.steps import to_steps
from visionkit.structures import Classification, MultiClassification
from visionkit.tasks import Classifier, ClassifyOptions, InputRule
from visionkit.tasks.classify import probabilities, ranked

SIZE_HW = (6, 8)
RULE = InputRule.preset("raw", SIZE_HW)
F32 = np.dtype(np.float32)


class Made(Runner):
    """A network of one function of the batch; remembers the batches it was given."""

    def __init__(self, function, outputs, *, batch=1, dtype=F32, shape=None, quantization=None):
        spec = TensorSpec("image", (batch, *(shape or (*SIZE_HW, 3))), dtype, quantization)
        super().__init__("made", Signature((spec,), tuple(outputs)), threads=1)
        self.function, self.batches = function, []

    def _run(self, feed):
        self.batches.append(feed[0].copy())
        return [np.asarray(values) for values in self.function(feed[0])]


def logits_spec(batch=1, count=4, name="logits", **options):
    return TensorSpec(name, (batch, count), F32, **options)


def by_level(levels):
    """Logits of images of one level: class 0 likes dark ones, class 3 bright ones."""
    mean = levels.mean(axis=(1, 2, 3))[:, None]
    return [(-np.abs(mean - np.array([[0, 80, 160, 240]])) / 10).astype(np.float32)]


def classifier(batch=1, **options):
    return Classifier(Made(by_level, [logits_spec(batch)], batch=batch), RULE, **options)


def grey(level, size_hw=(9, 7)):
    return np.full((*size_hw, 3), level, np.uint8)


def softmax(values):
    values = np.asarray(values, np.float64)
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def test_one_image_gives_its_classes_most_likely_first():
    found = classifier()(grey(90))
    assert isinstance(found, Classification)
    expected = softmax([-9, -1, -7, -15])
    assert found.class_id.tolist() == [1, 2, 0, 3]
    assert found.confidence.tolist() == pytest.approx(expected[[1, 2, 0, 3]].tolist(), rel=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_lists_of_any_length_and_sizes_are_batched_and_padded(batch):
    task = classifier(batch)
    levels = [0, 80, 160, 240, 81, 159, 5]
    images = [grey(level, (5 + place, 30 - place)) for place, level in enumerate(levels)]
    found = task(images)
    assert [f.class_id[0] for f in found] == [0, 1, 2, 3, 1, 2, 0]
    assert [b.shape[0] for b in task.runner.batches] == [batch] * -(-7 // batch)
    alone = [classifier()(image) for image in images]
    for a, b in zip(found, alone, strict=True):
        assert np.array_equal(a.confidence, b.confidence)
    assert task([]) == []


def test_images_are_left_alone_and_bad_ones_refused():
    task, image = classifier(), grey(7)
    task(image)
    assert (image == 7).all()
    with pytest.raises(ValueError, match="uint8"):
        task(np.zeros((4, 4, 3), np.float32))


def test_logits_are_the_networks_own():
    task = classifier(2)
    assert task.logits(grey(80)).tolist() == [-8, 0, -8, -16]
    assert task.logits([grey(80)] * 3).shape == (3, 4)
    assert task.logits([]).shape == (0, 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_an_error(bad):
    task = Classifier(Made(lambda x: [np.array([[0.0, bad]], np.float32)], [logits_spec(count=2)]), RULE)
    with pytest.raises(ModelError) as caught:
        task(grey(1))
    assert caught.value.slug == "model-not-finite"
    assert not np.isfinite(task.logits(grey(1))).all()


def test_softmax_survives_large_logits_and_sums_to_one():
    values = np.array([[1e4, 1e4 - 1, -1e30, 0], [-3e38, -3e38, -3e38, -3e38]], np.float32)
    found = probabilities(values)
    assert found.dtype == np.float32
    assert found[0].tolist() == pytest.approx([0.7310586, 0.2689414, 0, 0])
    assert found[1].tolist() == [0.25] * 4
    with np.errstate(over="ignore"):
        naive = np.exp(values[0])
    assert np.isinf(naive).any(), "the control overflows"


def test_a_softmax_twice_would_be_found():
    values = np.array([[0.0, 4.0]], np.float32)
    assert probabilities(probabilities(values))[0, 1] < 0.75 < probabilities(values)[0, 1]
    assert probabilities(values, "none") is values


def test_one_output_stands_for_two_classes():
    assert probabilities(np.array([[0.0], [2.0]], np.float32))[:, 1].tolist() == pytest.approx([0.5, 0.8807971])
    assert probabilities(np.array([[0.25]], np.float32), "none").tolist() == [[0.75, 0.25]]
    task = Classifier(Made(lambda x: [x[:, 0, 0, :1] / 255], [logits_spec(count=1)]), RULE, activation="none")
    assert task(grey(255)).class_id.tolist() == [1, 0]
    assert task.class_count == {"logits": 2}


PROBS = np.array([0.1, 0.3, 0.1, 0.3, 0.2], np.float32)


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ({}, [1, 3, 4, 0, 2]),
        ({"topk": 1}, [1]),
        ({"topk": 4}, [1, 3, 4, 0]),
        ({"topk": 99}, [1, 3, 4, 0, 2]),
        ({"conf": 0.2}, [1, 3, 4]),
        ({"conf": 0.9}, []),
        ({"classes": (2, 4, 3, 77)}, [3, 4, 2]),
        ({"classes": (77,)}, []),
        ({"classes": (0, 2), "topk": 1}, [0]),
    ],
)
def test_ranking_by_hand(options, ids):
    found = ranked(PROBS, ClassifyOptions(**options))
    assert found.class_id.tolist() == ids
    assert found.confidence.tolist() == PROBS[ids].tolist()


def test_ranking_against_a_sort():
    generator = np.random.default_rng(0)
    for count in (1, 2, 5, 1000):
        probs = np.round(generator.random(count), 2).astype(np.float32)  # with ties
        slow = sorted(range(count), key=lambda i: (-probs[i], i))[:5]
        assert ranked(probs, ClassifyOptions()).class_id.tolist() == slow


@pytest.mark.parametrize("bad", [{"topk": 0}, {"conf": -0.1}, {"conf": 1.5}, {"classes": ()}, {"classes": (-1,)}])
def test_bad_options_are_told(bad):
    with pytest.raises(ValueError, match="Received"):
        ClassifyOptions(**bad)


def two_heads(levels):
    return [by_level(levels)[0], levels[:, 0, 0, :2]]


def test_several_heads_in_one_pass():
    runner = Made(two_heads, [logits_spec(name="place"), logits_spec(name="daytime", count=2)])
    labels = {"place": ("a", "b", "c", "d"), "daytime": ("day", "night")}
    task = Classifier(runner, RULE, labels=labels)
    found = task(np.full((4, 4, 3), (3, 10, 9), np.uint8))
    assert isinstance(found, MultiClassification)
    assert list(found.heads) == ["place", "daytime"]
    assert found["place"].class_id[0] == 0
    assert found["daytime"].class_id.tolist() == [1, 0]  # RGB: 9, 10
    assert len(runner.batches) == 1
    assert {head: values.shape for head, values in task.logits([grey(1)] * 2).items()} == {
        "place": (2, 4),
        "daytime": (2, 2),
    }
    only = Classifier(runner, RULE, heads=("daytime",))
    assert isinstance(only(grey(1)), Classification)


def test_quantized_networks_are_fed_and_read_in_their_steps():
    spec = TensorSpec("logits", (1, 2), np.dtype(np.int8), (0.5, -10))
    runner = Made(lambda x: [np.array([[-10, 10]], np.int8)], [spec], dtype=np.dtype(np.int8), quantization=(2.0, -128))
    task = Classifier(runner, RULE)
    assert task.logits(grey(100)).tolist() == [0.0, 10.0]
    assert set(runner.batches[0].ravel().tolist()) == {100 // 2 - 128}
    levels = np.array([-9.0, 3.4, 3.6, 300.0], np.float32)
    assert to_steps(levels, np.dtype(np.uint8), None).tolist() == [0, 3, 4, 255]


def test_channels_first_networks_get_their_order():
    runner = Made(lambda x: [x[:, :, 0, 0]], [logits_spec(count=3)], shape=(3, *SIZE_HW))
    task = Classifier(runner, RULE)
    assert task.logits(np.full((4, 4, 3), (1, 2, 3), np.uint8)).tolist() == [3, 2, 1]


def test_a_rule_of_another_size_is_refused():
    with pytest.raises(ValueError, match="must take"):
        Classifier(Made(by_level, [logits_spec()]), InputRule.preset("raw", (8, 6)))


def test_threads_may_share_a_classifier():
    task, wrong = classifier(2), []

    def work(level, expected):
        for _ in range(30):
            found = task([grey(level), grey(level)])
            wrong.extend(f for f in found if f.class_id[0] != expected)

    threads = [threading.Thread(target=work, args=(80 * i, i)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_several_instances_run_side_by_side():
    meeting = threading.Barrier(2, timeout=20)

    def meet(levels):
        meeting.wait()
        return by_level(levels)

    one, two = (Made(meet, [logits_spec()]) for _ in range(2))
    task = Classifier(one, RULE, others=[two])
    assert task.instances == 2
    threads = [threading.Thread(target=task, args=(grey(1),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(one.batches) == len(two.batches) == 1
    task.close()
    with pytest.raises(ValueError, match="closed"):
        task(grey(1))


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory):
    """A `.keras` that ends in a softmax, and sees the mean of each channel, 0 to 1."""
    from visionkit.runtime.quiet import import_keras

    keras = import_keras()
    image = keras.Input((*SIZE_HW, 3), name="picture")
    mean = keras.layers.GlobalAveragePooling2D()(image)
    dense = keras.layers.Dense(3, activation="softmax", name="answer")
    model = keras.Model(image, dense(mean))
    dense.set_weights([10 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)])
    path = tmp_path_factory.mktemp("files") / "mine.keras"
    model.save(path)
    return path


def test_a_keras_file_with_labels_and_a_preset(keras_file, tmp_path):
    import visionkit as vk

    names = tmp_path / "names.txt"
    names.write_text("red\ngreen\nblue\n")
    task = vk.load(keras_file, task="classify", labels=names, preset="unit", runtime="keras", batch=2)
    assert (task.labels, task.activation, task.batch) == (("red", "green", "blue"), "none", 2)
    found = task(np.full((30, 20, 3), (0, 51, 255), np.uint8))
    expected = softmax([10, 2, 0])
    assert found.class_id.tolist() == [0, 1, 2]
    assert found.confidence.tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    said = task.describe()
    assert (said["name"], said["runtime"], len(said["sha256"])) == ("mine.keras", "keras", 64)


@pytest.mark.parametrize(
    ("options", "kind", "slug"),
    [
        ({"preset": "torchvision"}, UsageError, "preset-unknown"),
        ({"activation": "relu"}, UsageError, "activation-unknown"),
        ({"output": "logits"}, UsageError, "output-unknown"),
        ({"labels": ["a", "b"]}, ModelError, "labels-unfit"),
        ({"size_hw": (3, 3)}, UsageError, "option-unfit"),
    ],
)
def test_what_does_not_fit_a_model_file_is_told(keras_file, options, kind, slug):
    from visionkit.tasks import load_classifier

    with pytest.raises(kind) as caught:
        load_classifier(keras_file, runtime="keras", **options)
    assert caught.value.slug == slug


def test_a_file_that_is_no_classifier_is_refused():
    from visionkit.tasks.load_classify import _heads_of, _rule_of

    runner = Made(by_level, [TensorSpec("map", (1, 4, 4, 7), F32)])
    with pytest.raises(ModelError, match="no list of classes"):
        _heads_of(runner, None, ())
    for shape in ((6, 8, 4), (None, 8, 3)):
        spec = TensorSpec("x", (1, *shape), F32)
        with pytest.raises(ModelError, match="classifier takes"):
            _rule_of(SimpleNamespace(inputs={"x": spec}), "raw", "stretch", None)
