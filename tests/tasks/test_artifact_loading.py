"""Exported models loaded by what they say of themselves: the answers of the card they were made from."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import visionkit as vk
from tests.tasks.cards import COLORS, write_card
from tests.tasks.made_artifacts import int8_artifact, made_artifact
from tests.tasks.made_detect import write_detect_card
from tests.tasks.made_segment import write_segment_card
from visionkit.errors import ModelError, UsageError
from visionkit.runtime import load_tflite
from visionkit.runtime.base import Runner, Signature, TensorSpec
from visionkit.runtime.steps import float_face, to_steps
from visionkit.tasks import load_dense_classifier, load_detector
from visionkit.weights import load_card
from visionkit.weights.artifact import attach, describe_artifact, read_artifact

ROOT = Path(__file__).resolve().parents[2]
FORMATS = ("litert", "savedmodel", "keras", "onnx", "openvino")


def photo(size_hw, seed):
    """Soft coloured clouds."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    return cv2.resize(small, size_hw[::-1], interpolation=cv2.INTER_CUBIC)


IMAGES = [photo((70, 90), 1), photo((131, 77), 2), photo((40, 56), 3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def tiny(folder):
    return write_card(folder / "tiny", gain=0.2)


@pytest.fixture(scope="module")
def tiny_litert(tiny):
    return made_artifact(tiny, "litert")


@pytest.fixture(scope="module")
def answers(tiny):
    """What the classifier's card says of the images, run by Keras itself."""
    found = vk.load(f"{tiny}/", runtime="keras")(IMAGES)
    assert 0.3 < probabilities(found).max() < 0.99
    return found


def probabilities(found):
    return np.array([one.confidence[np.argsort(one.class_id)] for one in found])


@pytest.mark.parametrize("kind", FORMATS)
def test_a_classifier_answers_as_its_card(kind, tiny, answers):
    path = made_artifact(tiny, kind)
    with vk_task(path, trust=True) as task:
        found = task(IMAGES)
        assert task.labels == COLORS
        assert task.describe()["name"] == "tiny"
        assert task.describe()["sha256"] == read_artifact(path).sha256
        assert task.describe()["precision"] == "float32"
    assert probabilities(found) == pytest.approx(probabilities(answers), abs=1e-5)


def test_a_classifier_of_several_heads_keeps_their_names(folder):
    heads = {"colour": COLORS, "place": ("in", "out")}
    card = write_card(folder / "heads", heads=heads, gain=0.2)
    expected = vk.load(f"{card}/", runtime="keras")(IMAGES[0])
    for kind in ("litert", "onnx"):
        with vk_task(made_artifact(card, kind)) as task:
            found = task(IMAGES[0])
        assert list(found.heads) == ["colour", "place"]
        for head in heads:
            assert found.heads[head].class_id.tolist() == expected.heads[head].class_id.tolist()
            assert found.heads[head].confidence == pytest.approx(expected.heads[head].confidence, abs=1e-5)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_segmenter_answers_as_its_card_at_that_size(kind, folder):
    card = folder / "segment"
    if not card.is_dir():
        write_segment_card(card)
    path = made_artifact(card, kind)
    size_hw = tuple(read_artifact(path).card.input["size_hw"])
    expected = vk.load(f"{card}/", runtime="keras", size_hw=size_hw)
    served = kind in ("onnx", "openvino")  # its maps are of the input's size: images of another are enlarged twice
    with vk_task(path, trust=True) as task:
        for image in [photo(size_hw, 7), *IMAGES]:
            off = np.abs(task.probs(image) - expected.probs(image))
            assert off.mean() < 0.03 if served and image.shape[:2] != size_hw else off.max() < 1e-4
        assert task.settings(IMAGES[0].shape[:2])["input_hw"] == list(size_hw)
        assert task.labels == load_card(f"{card}/").labels


@pytest.mark.parametrize(
    "kind", ["litert", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("savedmodel", "keras"))]
)
def test_a_detector_answers_as_its_card(kind, folder):
    card = folder / "detect"
    if not card.is_dir():
        write_detect_card(card)
    path = made_artifact(card, kind)
    expected = vk.load(f"{card}/", runtime="keras", conf=0.05)(IMAGES)
    with vk_task(path, trust=True, conf=0.05) as task:
        found = task(IMAGES)
        assert task.labels == ("car", "bus", "dog")
        assert task.describe()["runtime"]
    for one, other in zip(found, expected, strict=True):
        assert len(other) > 3
        assert one.class_id.tolist() == other.class_id.tolist()
        assert one.xyxy == pytest.approx(other.xyxy, abs=1e-2)
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)


def test_a_tflite_is_run_without_tensorflow(tiny_litert):
    code = (
        "import sys, numpy as np, visionkit as vk\n"
        f"found = vk.load({str(tiny_litert)!r})(np.zeros((50, 60, 3), np.uint8))\n"
        "assert len(found) == 5\n"
        "heavy = {'tensorflow', 'keras', 'onnxruntime', 'openvino', 'scipy', 'numba', 'av', 'supervision'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stdout == "[]\n", done.stderr


def test_integers_are_looked_up_in_a_table(tiny, folder):
    images = [photo((60, 80), seed) for seed in range(12)]
    path = int8_artifact(tiny, folder / "tiny_int8.tflite", images)
    with vk_task(path) as task, vk.load(f"{tiny}/", runtime="litert").runner as exact:
        assert task.describe()["precision"] == "int8-io"
        spec = task.runner.native["image"]
        assert spec.dtype == np.int8
        rule = task.rule
        assert rule.dtype == np.int8
        for image in IMAGES:
            floats = dataclasses.replace(rule, steps=None)(image)
            expected = np.clip(np.rint(floats / np.float32(spec.quantization[0]) + spec.quantization[1]), -128, 127)
            steps = rule(image)
            assert steps.dtype == np.int8
            assert np.array_equal(steps, expected)
            with load_tflite(path, signature="raw") as plain:
                values = plain(image=steps[None])["logits"][0]
            scale, zero = plain.outputs["logits"].quantization
            assert task.logits(image) == pytest.approx((values.astype(np.float32) - zero) * scale)
            assert task.runner(image=floats[None])["logits"][0] == pytest.approx(task.logits(image))
            assert task.logits(image) == pytest.approx(exact(image=floats[None])["logits"][0], abs=6 * scale)


def test_integers_behind_floats_need_no_table(tiny, folder):
    path = int8_artifact(tiny, folder / "tiny_float_io.tflite", IMAGES, floats=True)
    with vk_task(path) as task:
        assert (task.rule.dtype, task.describe()["precision"]) == (np.float32, "int8")
        assert len(task(IMAGES[0])) == 5


def test_numbers_between_steps_go_to_the_nearest():
    """0.5 to the even one, as NumPy rounds; what is beyond the type, to its end."""
    values = np.float32([-100, -1.0, 0.0, 0.24, 0.26, 0.75, 100])
    assert to_steps(values, np.dtype(np.int8), (0.5, 3)).tolist() == [-128, 1, 3, 3, 4, 4, 127]


def test_options_of_a_task_go_before_the_description(tiny_litert):
    with vk_task(tiny_litert, topk=2, classes=(1, 3)) as task:
        assert set(task(IMAGES[0]).class_id.tolist()) == {1, 3}
    with vk_task(tiny_litert, size_hw=(40, 56)) as task:
        assert task.rule.size_hw == (40, 56)


def test_several_threads_share_several_instances(tiny_litert, answers):
    with vk_task(tiny_litert, instances=2, threads=1) as task:
        assert task.instances == 2
        assert probabilities(task(IMAGES)) == pytest.approx(probabilities(answers), abs=1e-5)


def test_what_a_file_does_not_have_is_refused(tiny, tiny_litert):
    for options, slug in (
        ({"size_hw": (48, 48)}, "size-fixed"),
        ({"weights": "other.h5"}, "option-unfit"),
        ({"runtime": "onnxruntime"}, "runtime-impossible"),
        ({"precision": "float16"}, "runtime-impossible"),
    ):
        with pytest.raises(UsageError) as told:
            vk.load(tiny_litert, **options)
        assert told.value.slug == slug
    for load, slug in (
        (lambda: vk.load(tiny_litert, task="detect"), "task-unsupported"),
        (lambda: load_detector(tiny_litert), "model-unfit"),
        (lambda: vk.load(tiny_litert, transform=True), "artifact-unfit"),
        (lambda: load_dense_classifier(tiny_litert), "model-not-dense"),
    ):
        with pytest.raises(ModelError) as told_model:
            load()
        assert told_model.value.slug == slug
    saved = made_artifact(tiny, "savedmodel")
    with pytest.raises(ModelError) as told_model:
        vk.load(saved)
    assert told_model.value.slug == "model-unsafe"


def test_a_keras_artifact_can_look_at_every_window(tiny):
    """What a card's network can: its layers are there."""
    path = made_artifact(tiny, "keras")
    image = photo((80, 112), 4)
    found, expected = load_dense_classifier(path)(image), load_dense_classifier(f"{tiny}/")(image)
    assert np.allclose(found.probs, expected.probs, atol=1e-5)


def test_a_segmenter_of_one_size_takes_no_other(folder):
    path = folder / "segment_litert.tflite"
    for options in ({"native": True}, {"tta": True, "scales": (0.5, 1.0)}, {"tile": 64}, {"size_hw": (32, 32)}):
        with pytest.raises(UsageError) as told:
            vk.load(path, **options)
        assert told.value.slug in ("option-unfit", "size-fixed")
    with vk_task(path, tta=True) as task:  # the mirrored image is of that size
        assert task.settings((50, 60))["flip"]


LIES = {
    "another size": {"input": {"size_hw": [48, 56], "resize": "stretch", "preset": "torch"}},
    "a size beyond memory": {"input": {"size_hw": [1 << 30, 1 << 30], "resize": "stretch", "preset": "torch"}},
    "more labels": {"labels": tuple("abcdefgh")},
    "no deviation": {"input": {"size_hw": [40, 56], "resize": "stretch", "mean": [1, 1, 1], "std": [1e-320] * 3}},
    "unknown options": {"options": {"speed": 3}},
    "options of another type": {"options": {"topk": "x"}},
    "heads that are not there": {"labels": (), "heads": {"a": ("b", "c")}},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_descriptions_that_do_not_fit_their_network_are_refused(lie, tiny_litert, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(tiny_litert.read_bytes())
    attach(path, describe_artifact(dataclasses.replace(read_artifact(tiny_litert).card, **lie)), {})
    with pytest.raises(ModelError) as told:
        vk.load(path)
    assert told.value.slug in ("artifact-corrupt", "labels-unfit")


def test_parts_that_are_not_there_are_told(tiny_litert, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(tiny_litert.read_bytes())
    card = read_artifact(tiny_litert).card
    for parts, slug in (({"low": "raw"}, "artifact-unfit"), ({"": "elsewhere"}, "model-signature")):
        attach(path, describe_artifact(card, parts=parts), {})
        with pytest.raises(ModelError) as told:
            vk.load(path)
        assert told.value.slug == slug


def vk_task(path, **options):
    """The task in a file, closed behind the block."""
    import contextlib

    return contextlib.closing(vk.load(path, **options))


DETECT_LIES = {
    "arguments of another type": {"args": {"backbone": 3, "extras": "x", "anchor_sizes": 1}},
    "a score that is none": {"options": {"conf": "x"}},
    "another network": {"network": "fasterrcnn_resnet50_fpn"},
    "no network": {"network": "resnet"},
    "another grid": {"args": {"backbone": "small", "width_multiplier": 0.25, "extras": [32]}},
}


@pytest.mark.parametrize("lie", DETECT_LIES.values(), ids=DETECT_LIES)
def test_a_detector_that_is_described_wrongly_is_refused(lie, folder, tmp_path):
    made = folder / "detect_litert.tflite"
    path = tmp_path / "m.tflite"
    path.write_bytes(made.read_bytes())
    attach(path, describe_artifact(dataclasses.replace(read_artifact(made).card, **lie)), {})
    with pytest.raises(ModelError) as told:
        vk.load(path)(IMAGES[0])
    assert told.value.slug in ("artifact-corrupt", "artifact-unfit", "network-unfit", "model-unfit")


class Integers(Runner):
    """A network of uint8 or int8 inputs that gives its input back, as the numbers that it stands for."""

    def __init__(self, scale, zero):
        spec = TensorSpec("exemplar", (1, 4, 4, 3), np.dtype(np.int8), (scale, zero))
        answer = TensorSpec("exemplar_features", (1, 4, 4, 3), np.dtype(np.int8), (scale, zero))
        super().__init__("made", Signature((spec,), (answer,)), threads=1)

    def _run(self, feed):
        return [feed[0].copy()]


def test_a_tracker_looks_its_integers_up():
    from visionkit.tasks.matchers import CorrelationMatcher

    runner = float_face(Integers(1.1, -128))
    search = SearchOnly()
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    found = CorrelationMatcher(runner, search).encode(image)
    steps = np.clip(np.rint(image / np.float32(1.1) - 128), -128, 127)
    assert found[0] == pytest.approx((steps + 128) * 1.1, abs=1e-4)
    assert np.array_equal(found, runner(exemplar=image[None].astype(np.float32))["exemplar_features"])


class SearchOnly(Runner):
    """The other half, which is not asked."""

    def __init__(self):
        spec = TensorSpec("search", (1, 8, 8, 3), np.dtype(np.float32))
        super().__init__("made", Signature((spec,), ()), threads=1)
