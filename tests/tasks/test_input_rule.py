"""Images into network inputs: CLS-2's closed forms, torchvision's geometry, odd shapes, and the wrong ways."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from visionkit.tasks.input_rule import PRESETS, InputRule
from visionkit.tasks.resample import Span, resample

SIZE_HW = (24, 36)
TORCH_MEAN, TORCH_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def photo(size_hw=(97, 161), seed=0):
    """A smooth picture with edges and grain, uint8 BGR, its channels far apart."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 13, 3), np.uint8)
    image = cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC).astype(int)
    image[size_hw[0] // 3 :, size_hw[1] // 2 :] //= 2
    return np.clip(image + rng.integers(-20, 21, image.shape), 0, 255).astype(np.uint8)


def closed_form(name, bgr):
    """The three presets as their authors define them, on uint8 BGR."""
    rgb = bgr[..., ::-1].astype(np.float64)
    if name == "torch":
        return ((rgb / 255 - TORCH_MEAN) / TORCH_STD).astype(np.float32)
    if name == "tf":
        return (rgb / 127.5 - 1).astype(np.float32)
    return (bgr.astype(np.float64) - [103.939, 116.779, 123.68]).astype(np.float32)


@pytest.mark.parametrize("name", ["torch", "tf", "caffe"])
def test_cls2_presets_are_their_closed_forms(name):
    image = photo(SIZE_HW)
    image[0, :4] = [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255]]
    out = InputRule.preset(name, SIZE_HW)(image)
    assert out.dtype == np.float32
    assert out.shape == (*SIZE_HW, 3)
    np.testing.assert_allclose(out, closed_form(name, image), rtol=0, atol=1e-6 if name != "caffe" else 1e-5)
    np.testing.assert_array_max_ulp(out, closed_form(name, image), 1)


@pytest.mark.parametrize("name", ["torch", "tf", "caffe"])
def test_cls2_swapped_channels_and_wrong_scale_are_found(name):
    image = photo(SIZE_HW)
    out = InputRule.preset(name, SIZE_HW)(image)
    assert np.abs(out - closed_form(name, image[..., ::-1])).max() > 0.5
    wrong = InputRule(SIZE_HW, mean=PRESETS[name].mean, std=(1.0, 1.0, 1.0) if name != "caffe" else (57.4,) * 3)
    assert np.abs(out - wrong(image)).max() > 0.5


def test_a_known_pixel():
    """BGR (10, 20, 30): torch (30 / 255 - 0.485) / 0.229 = -1.6042 for red, tf 30 / 127.5 - 1, caffe 10 - 103.939."""
    pixel = np.array([[[10, 20, 30]]], np.uint8)
    assert InputRule.preset("torch", (1, 1))(pixel)[0, 0, 0] == pytest.approx(-1.6041614, abs=1e-6)
    assert InputRule.preset("tf", (1, 1))(pixel)[0, 0, 0] == pytest.approx(30 / 127.5 - 1, abs=1e-7)
    assert InputRule.preset("caffe", (1, 1))(pixel)[0, 0].tolist() == pytest.approx([-93.939, -96.779, -93.68])


def pillow(image, resized_hw):
    pil = pytest.importorskip("PIL.Image", reason="Pillow is what the resizing is compared with")
    return np.asarray(pil.fromarray(image).resize(resized_hw[::-1], pil.Resampling.BILINEAR)).astype(int)


@pytest.mark.parametrize("resized_hw", [(60, 99), (24, 31), (97, 40), (150, 161), (300, 500)])
def test_resizing_is_pillows_within_one_level(resized_hw):
    image = photo()
    spans = [Span(n, m, 0, m) for n, m in zip(image.shape[:2], resized_hw, strict=True)]
    ours, theirs = resample(image, *spans).astype(int), pillow(image, resized_hw)
    difference = np.abs(ours - theirs)
    reduced_first = max(image.shape[0] / resized_hw[0], image.shape[1] / resized_hw[1]) >= 4
    assert difference.max() <= (5 if reduced_first else 1)
    assert difference.mean() < (1.0 if reduced_first else 0.3)


def test_plain_interpolation_would_be_found():
    image = photo()
    wrong = cv2.resize(image, (31, 24), interpolation=cv2.INTER_LINEAR).astype(int)
    assert np.abs(wrong - pillow(image, (24, 31))).mean() > 1.0


@pytest.mark.parametrize("reference", ["cat_720p.jpg", "pets.jpg"])
def test_photographs_are_resized_as_torchvision_does(shared, reference):
    image = cv2.imread(str(shared / "data" / "images" / "coral_photos" / reference))
    height, width = image.shape[:2]
    resized = (256, int(256 * width / height))
    top, left = round((256 - 224) / 2), round((resized[1] - 224) / 2)
    theirs = pillow(image, resized)[top : top + 224, left : left + 224]
    rule = InputRule.preset("torch", (224, 224), resize="shortest_side", resize_size=256)
    assert np.abs(rule.pixels(image).astype(int) - theirs).max() <= 1


@pytest.mark.parametrize(("size_hw", "crop"), [((97, 161), (24, 36)), ((161, 97), (36, 24)), ((40, 50), (48, 30))])
def test_shortest_side_crops_and_pads_as_torchvision(size_hw, crop):
    """torchvision: int(size * long / short), round half to even for the offset, black where the crop is larger."""
    image, size = photo(size_hw), 41
    height, width = size_hw
    resized = (size, int(size * width / height)) if height <= width else (int(size * height / width), size)
    full = pillow(image, resized)
    pad = [max(0, c - n) for n, c in zip(resized, crop, strict=True)]
    full = np.pad(full, [(p // 2, (p + 1) // 2) for p in pad] + [(0, 0)])
    top, left = (round((n - c) / 2) for n, c in zip(full.shape[:2], crop, strict=True))
    expected = full[top : top + crop[0], left : left + crop[1]]
    ours = InputRule(crop, "shortest_side", resize_size=size).pixels(image).astype(int)
    assert np.abs(ours - expected).max() <= 1


def test_shortest_side_without_a_size_covers_the_crop():
    rule = InputRule((40, 64), "shortest_side")
    for size_hw in ((97, 161), (161, 97), (40, 64), (64, 40), (3, 5)):
        x1, y1, x2, y2 = rule.window(size_hw)
        assert min(x1, y1) >= -1e-9
        assert x2 <= size_hw[1] + 1e-9
        assert y2 <= size_hw[0] + 1e-9


def test_letterbox_keeps_the_aspect_and_fills_with_the_mean():
    image = np.full((50, 100, 3), 200, np.uint8)
    rule = InputRule.preset("torch", (64, 64), resize="letterbox")
    pixels = rule.pixels(image)
    assert (pixels[16:48] == 200).all()
    assert (pixels[:16] == [104, 116, 124]).all()
    assert (pixels[48:] == [104, 116, 124]).all()
    assert np.abs(rule(image)[:16]).max() < 0.01
    assert rule.window((50, 100)) == (0.0, -25.0, 100.0, 75.0)


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "shortest_side"])
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 40_000), (40_000, 1), (2, 3), (3000, 7), (25, 35)])
def test_any_size_of_image_fits(resize, size_hw):
    image = np.full((*size_hw, 3), 90, np.uint8)
    rule = InputRule.preset("raw", SIZE_HW, resize=resize)
    out = rule(image)
    assert out.shape == (*SIZE_HW, 3)
    x1, y1, x2, y2 = rule.window(size_hw)
    assert x1 < size_hw[1] / 2 < x2
    assert y1 < size_hw[0] / 2 < y2
    assert (out == 90).any()


def test_the_window_is_where_the_input_looks():
    """A bright dot in the image appears at the input's pixel that `window` maps to it."""
    for resize, size in (("stretch", None), ("letterbox", None), ("shortest_side", 50)):
        rule = InputRule.preset("raw", (40, 48), resize=resize, resize_size=size)
        image = np.zeros((120, 210, 3), np.uint8)
        image[58:62, 98:102] = 255
        y, x = np.unravel_index(rule(image)[..., 0].argmax(), (40, 48))
        x1, y1, x2, y2 = rule.window((120, 210))
        assert x1 + (x + 0.5) * (x2 - x1) / 48 == pytest.approx(100, abs=(x2 - x1) / 48)
        assert y1 + (y + 0.5) * (y2 - y1) / 40 == pytest.approx(60, abs=(y2 - y1) / 40)


def test_batches_are_written_in_place_and_images_left_alone():
    rule = InputRule(SIZE_HW, "letterbox")
    images = [photo((50, 31), 1), photo((20, 90), 2), photo(SIZE_HW, 3)]
    before = [image.copy() for image in images]
    out = np.full((4, *SIZE_HW, 3), 7, np.float32)
    assert rule.batch(images, out) is out
    for image, row in zip(images, out, strict=False):
        assert np.array_equal(row, rule(image))
    assert (out[3] == 7).all()
    assert np.array_equal(rule.batch(images), out[:3])
    assert all(np.array_equal(a, b) for a, b in zip(images, before, strict=True))


def test_strided_and_read_only_images_are_read():
    wide = photo((60, 120))
    wide.setflags(write=False)
    rule = InputRule(SIZE_HW)
    for view in (wide[:, ::2], wide[::-1], wide[5:40, 10:70]):
        assert np.array_equal(rule(view), rule(np.ascontiguousarray(view)))


def test_gray_has_one_channel():
    rule = InputRule(SIZE_HW, mean=(127.5,) * 3, std=(127.5,) * 3, channel_order="gray")
    assert rule(np.full((9, 9, 3), 255, np.uint8)).shape == (*SIZE_HW, 1)
    assert rule(np.full((9, 9, 3), 255, np.uint8)).max() == 1.0


def test_another_size_keeps_the_share_of_the_crop():
    rule = InputRule((224, 224), "shortest_side", resize_size=256).at((320, 320))
    assert (rule.size_hw, rule.resize_size) == ((320, 320), round(256 * 320 / 224))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size_hw": (0, 5)}, "two positive integers"),
        ({"size_hw": (5, 5), "resize": "squash"}, "stretch, letterbox, shortest_side"),
        ({"size_hw": (5, 5), "resize_size": 9}, "needs `resize='shortest_side'`"),
        ({"size_hw": (5, 5), "mean": (1, 2)}, "three finite numbers"),
        ({"size_hw": (5, 5), "std": (1, 0, 1)}, "above 0"),
        ({"size_hw": (5, 5), "channel_order": "grb"}, "rgb, bgr, gray"),
    ],
)
def test_bad_arguments_are_told(arguments, words):
    with pytest.raises(ValueError, match=words):
        InputRule(**arguments)


def test_bad_presets_images_and_buffers_are_told():
    with pytest.raises(ValueError, match="torch, tf, caffe"):
        InputRule.preset("pytorch", (5, 5))
    rule = InputRule((5, 5))
    for image in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="`image` must"):
            rule(image)
    with pytest.raises(ValueError, match="`out` must be float32"):
        rule(np.zeros((4, 4, 3), np.uint8), np.zeros((5, 6, 3), np.float32))


def test_levels_of_a_framed_image_keep_its_frame():
    """What a network that normalises itself is given: normalised by hand, it is what the rule gives."""
    rule = InputRule.preset("torch", (40, 40), resize="letterbox")
    image = np.full((20, 40, 3), 7, np.uint8)
    levels = rule.levels()
    pixels = levels(image)
    assert pixels[0, 0].tolist() == [round(0.485 * 255), round(0.456 * 255), round(0.406 * 255)]
    assert levels.frame.tolist() == pixels[0, 0].tolist()
    assert rule.frame.tolist() == [0.0, 0.0, 0.0]
    by_hand = (pixels - np.float32(rule.mean)) / np.float32(rule.std)
    assert np.abs(by_hand - rule(image)).max() < 1e-5
    assert np.array_equal(levels.at((80, 80))(image)[0, 0], pixels[0, 0])


@pytest.mark.parametrize(("scale", "zero"), [(0.02, -3), (1.0, 0), (3.7, 120)])
def test_a_table_of_steps_is_the_nearest_step_of_every_level(scale, zero):
    from visionkit.runtime.base import TensorSpec

    rule = InputRule.preset("torch", (16, 16))
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    steps = rule.encoded(TensorSpec("image", (1, 16, 16, 3), np.dtype(np.int8), (scale, zero)))(image)
    wanted = np.clip(rule(image).astype(np.float64) / scale + zero, -128, 127)
    assert steps.dtype == np.int8
    assert np.abs(steps - wanted).max() <= 0.5 + 1e-3
