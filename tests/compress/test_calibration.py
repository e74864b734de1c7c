"""Calibration sets: which images are chosen, and which faults are found in them, none of them in sound ones."""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import numpy as np
import pytest

from visionkit.compress.calibration import Calibration, choose_calibration, describe, spread_out
from visionkit.compress.calibration_checks import check_calibration, confidence
from visionkit.errors import InputError, UsageError
from visionkit.runtime.keras_net import signature_of
from visionkit.tasks.input_rule import InputRule

RULE = InputRule.preset("torch", (40, 56))


def picture(seed: int, hue: int = 0) -> np.ndarray:
    """A picture uint8 (48, 64, 3) BGR of soft colours and noise; `hue` levels more red than blue in the mean."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 255, (4, 5, 3)).astype(np.float32)
    levels = cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_LINEAR) + random.normal(0, 12, (48, 64, 3))
    levels[..., 2] += hue
    return np.clip(levels, 0, 255).astype(np.uint8)


def pictures(count: int = 24, hue: int = 0) -> list[np.ndarray]:
    return [picture(seed, hue) for seed in range(count)]


def slugs(found) -> list[str]:
    return [finding.slug for finding in found]


# choosing


def test_the_farthest_is_chosen_next():
    """Four points on a line, 0 1 2 10: the mean is 3.25, so 2 is first, then 10, then 0, then 1."""
    points = np.array([[0.0], [1.0], [2.0], [10.0]], np.float32)
    assert spread_out(points, 4) == [2, 3, 0, 1]
    assert spread_out(points, 2) == [2, 3]
    assert spread_out(np.array([[1.0], [1.0]], np.float32), 2) == [0]


def test_copies_of_one_image_do_not_crowd_out_the_others():
    images = [picture(0)] * 20 + pictures(5)[1:]
    chosen = choose_calibration(images, count=5)
    assert len({image.tobytes() for image in chosen.images}) == 5


def test_a_folder_of_folders_is_read_the_same_way_twice(tmp_path):
    for i, image in enumerate(pictures(20)):
        place = tmp_path / f"class{i % 3}"
        place.mkdir(exist_ok=True)
        cv2.imwrite(str(place / f"{i}.png"), image)
    (tmp_path / "class0" / "broken.png").write_bytes(b"\x89PNG broken")
    first, again = (choose_calibration(tmp_path, count=8) for _ in range(2))
    assert first.names == again.names
    assert first.sha256 == again.sha256
    assert len(first) == 8
    assert first.facts["of"] == 20
    assert choose_calibration(tmp_path, count=2, seed=1).facts["of"] == 12  # candidates: six times two


def test_a_video_s_frames_are_chosen_over_its_length(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for seed in range(40):
        writer.write(picture(seed // 10))
    writer.release()
    chosen = choose_calibration(tmp_path / "clip.avi", count=4)
    frames = [int(name.rpartition("#")[2]) for name in chosen.names]
    assert {frame // 10 for frame in frames} == {0, 1, 2, 3}
    assert chosen.images[0].shape == (48, 64, 3)


def test_network_inputs_may_be_given(tmp_path):
    inputs = RULE.batch(pictures(6))
    np.save(tmp_path / "inputs.npy", inputs)
    chosen = choose_calibration(tmp_path / "inputs.npy", count=4)
    assert len(chosen) == 4
    assert chosen.network_inputs(RULE)[0].shape == (1, 40, 56, 3)
    with pytest.raises(UsageError, match=r"\(32, 32, 3\)") as caught:
        chosen.network_inputs(InputRule.preset("torch", (32, 32)))
    assert caught.value.slug == "calibration-shape"


def test_images_go_through_the_rule():
    image = picture(3)
    (found,) = choose_calibration([image], count=1).network_inputs(RULE)
    np.testing.assert_array_equal(found[0], RULE(image))


def test_a_description_tells_colours_and_edges():
    flat, red = np.full((48, 64, 3), 90, np.uint8), np.zeros((48, 64, 3), np.uint8)
    red[..., 2] = 200
    striped = flat.copy()
    striped[:, ::8] = 200
    apart = [np.linalg.norm(describe(flat) - describe(other)) for other in (flat, flat + 1, red, striped)]
    assert apart[0] == 0
    assert apart[1] < 0.02
    assert min(apart[2:]) > 0.1


@pytest.mark.parametrize(
    ("source", "error", "slug"),
    [
        ([], UsageError, "calibration-empty"),
        ([np.zeros((8, 8), np.uint8)], UsageError, "calibration-unfit"),
        ([1, 2], UsageError, "calibration-unfit"),
        (["/nowhere/a.png"], InputError, "calibration-empty"),
        ("/nowhere", InputError, "input-missing"),
    ],
)
def test_what_holds_no_images_is_told(source, error, slug):
    with pytest.raises(error) as caught:
        choose_calibration(source)
    assert caught.value.slug == slug


def test_images_and_inputs_exclude_each_other():
    with pytest.raises(ValueError, match="at least one"):
        Calibration()


# faults


def faulty(name: str, images: list[np.ndarray], rule: InputRule) -> list[np.ndarray]:
    """Inputs as a faulty preparation makes them."""
    levels = [rule.pixels(image)[..., ::-1].astype(np.float32) for image in images]
    mean, std = np.float32(rule.mean), np.float32(rule.std)
    made = {
        "sound": lambda x: (x - mean) / std,
        "twice": lambda x: ((x - mean) / std - mean) / std,
        "levels of 0 to 1": lambda x: (x / 255 - mean) / std,
        "raw": lambda x: x,
        "divided": lambda x: x / 255,
        "as tf": lambda x: x / 127.5 - 1,
        "reversed": lambda x: ((x - mean) / std)[..., ::-1],
    }
    return [made[name](x).astype(np.float32) for x in levels]


FAULTS = {
    "sound": [],
    "twice": ["normalised-twice"],
    "levels of 0 to 1": ["range"],
    "raw": ["range"],
    "divided": ["range"],
    "as tf": ["range"],
    "reversed": ["channel-order"],
}


@pytest.mark.parametrize("preset", ["torch", "tf", "caffe", "unit", "raw"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, preset):
    rule = InputRule.preset(preset, (40, 56))
    if (preset, fault) in {("tf", "as tf"), ("unit", "divided"), ("raw", "raw")}:
        pytest.skip("that is how this preset does it")
    if fault == "reversed" and len(set(rule.mean)) == 1:
        pytest.skip("channels that are treated alike do not tell their order")
    if preset == "raw" and fault == "twice":
        pytest.skip("normalising changes nothing")
    found = check_calibration(faulty(fault, pictures(), rule), rule)
    wanted = FAULTS[fault]
    if (preset, fault) == ("unit", "levels of 0 to 1"):
        wanted = ["normalised-twice"]  # the same arithmetic
    assert slugs(found) == wanted


def test_a_fault_is_told_with_what_came_and_what_was_expected():
    (found,) = check_calibration(faulty("twice", pictures(), RULE), RULE)
    assert "normalised twice" in found.message
    assert "-2.12…-1.8 to 2.25…2.64 (by channel) was expected" in found.message


def test_bytes_that_were_normalised_already_are_found():
    twice = [((image.astype(np.float32) / 255 - 0.45) / 0.22).astype(np.int64).astype(np.uint8) for image in pictures()]
    assert slugs(check_calibration(twice, RULE)) == ["normalised-twice"]
    dark = [(image // 255).astype(np.uint8) for image in pictures()]
    assert slugs(check_calibration(dark, RULE)) == ["range"]


def test_a_reference_tells_the_order():
    """The same kind of images is redder by 40 levels where it is known to be right."""
    right, given = pictures(16, hue=40), pictures(40, hue=40)[16:]
    assert check_calibration(given, RULE, reference=right) == []
    swapped = [np.ascontiguousarray(image[..., ::-1]) for image in given]
    assert slugs(check_calibration(swapped, RULE, reference=right)) == ["channel-order"]
    inputs = [RULE(image) for image in swapped]
    assert slugs(check_calibration(inputs, RULE, reference=right)) == ["channel-order"]
    assert check_calibration(pictures(16), RULE, reference=right) == []  # as blue as red: nothing to say


def test_the_network_tells_the_order():
    """A network that is the surer the redder an image is, and one that does not care."""

    def by_red(array):
        red = float((array[..., 0] - array[..., 2]).mean())
        return {"logits": np.array([[3.0 + red, 0.0]], np.float32)}

    def grey(array):
        return {"logits": np.array([[3.0 + float(array.mean()), 0.0]], np.float32)}

    red = pictures(24, hue=60)
    blue = [np.ascontiguousarray(image[..., ::-1]) for image in red]
    assert check_calibration(red, RULE, network=by_red) == []
    assert slugs(check_calibration(blue, RULE, network=by_red)) == ["channel-order"]
    assert check_calibration(blue, RULE, network=grey) == []


def test_confidence_is_of_classes():
    logits = np.log(np.array([[0.7, 0.2, 0.1]], np.float32))
    assert confidence({"logits": logits}) == pytest.approx(0.7, abs=1e-6)
    boxes = np.log(np.array([[[0.9, 0.05, 0.05], [0.1, 0.8, 0.1]]], np.float32))
    assert confidence({"class_logits": boxes}) == pytest.approx((0.8 + 0.05) / 2, abs=1e-6)
    assert confidence({"embedding": logits}) is None


# the material


@functools.cache
def networks(name: str):
    """The rule of a bundled card, and its float network."""
    from tests.compress.networks import as_tflite
    from visionkit.runtime.litert import open_litert
    from visionkit.weights import build_network, load_card, load_weights, obtain

    card = load_card(name)
    model = build_network(card)
    load_weights(model, card, obtain(card))
    names = {f"output_{i}": key for i, key in enumerate(signature_of(model, 1).outputs)}
    runner = open_litert(as_tflite(model), threads=2)

    def network(array):
        return {names[key].name: value for key, value in runner(input_0=array).items()}

    return InputRule.from_card(card), network


@pytest.mark.parametrize(
    ("card", "folder"),
    [("sign_digits", "classification/sign_digits"), ("bccd_cells", "detection/bccd/JPEGImages")],
)
def test_sound_sets_raise_no_alarm_and_planted_faults_do(card, folder, shared):
    rule, network = networks(card)
    chosen = choose_calibration(shared / "data" / folder, count=128 if card == "sign_digits" else 48)
    assert check_calibration(chosen.images, rule, network=network) == []
    assert check_calibration(chosen.network_inputs(rule), rule, network=network) == []
    swapped = [np.ascontiguousarray(image[..., ::-1]) for image in chosen.images]
    assert slugs(check_calibration(swapped, rule, network=network)) == ["channel-order"]
    assert slugs(check_calibration(swapped, rule, reference=chosen.images[::4])) == ["channel-order"]
    assert slugs(check_calibration(faulty("twice", chosen.images[:32], rule), rule)) == ["normalised-twice"]


@pytest.mark.parametrize("folder", ["coco128_train/images", "images/coral_photos", "classification/cifar10_jpg"])
def test_photographs_raise_no_alarm(folder, shared):
    rule, network = networks("sign_digits")
    chosen = choose_calibration(Path(shared) / "data" / folder, count=48)
    assert check_calibration(chosen.images, rule, network=network) == []
    for preset in ("torch", "tf", "caffe"):
        other = InputRule.preset(preset, (48, 64))
        assert check_calibration([other(image) for image in chosen.images], other) == []
