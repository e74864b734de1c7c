"""Rectifying: corners to corners, equal to OpenCV, averaged where it shrinks, what transformers look at."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from tests.tasks.made_transform import SIZE_HW, VIEW_HW, write_transformer_card
from visionkit.errors import ModelError, UsageError
from visionkit.geometry.homography import apply_homography, size_corners
from visionkit.geometry.transformer import identity_theta
from visionkit.pipeline.rectify import box_around
from visionkit.runtime.quiet import import_keras
from visionkit.tasks import BoxRectifier, CornerRectifier, load_classifier, load_rectifier
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.transform import TransformRule, with_theta
from visionkit.tasks.warp import homography_map, warp, warp_along

IMAGE_HW = (150, 220)
CORNERS = [(40.0, 20.0), (180.0, 35.0), (205.0, 130.0), (15.0, 118.0)]


def picture(size_hw=IMAGE_HW, seed=0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (size_hw[0] // 10, size_hw[1] // 10, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_CUBIC))


def by_opencv(image: np.ndarray, corners, size_hw) -> np.ndarray:
    """What a user writes with OpenCV, whose pixels are points: half a pixel less than ours on both sides."""
    height, width = size_hw
    square = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32) - 0.5
    matrix = cv2.getPerspectiveTransform(np.asarray(corners, np.float32) - 0.5, square)
    return cv2.warpPerspective(image, matrix, (width, height))


def test_the_crop_equals_warp_perspective():
    image = picture()
    for size_hw in ((60, 90), (150, 40), (1, 7)):
        found = CornerRectifier(CORNERS, size_hw)(image)
        assert found.size_hw == size_hw
        assert np.abs(found.image.astype(int) - by_opencv(image, CORNERS, size_hw)).max() <= 1
    shifted = by_opencv(image, np.add(CORNERS, 0.5), (60, 90))  # half a pixel off is seen
    assert np.abs(CornerRectifier(CORNERS, (60, 90))(image).image.astype(int) - shifted).max() > 2


def test_the_homography_takes_corners_to_corners_and_an_upright_box_is_a_slice():
    image = picture()
    found = CornerRectifier(CORNERS, (60, 90))(image)
    np.testing.assert_allclose(apply_homography(found.homography, size_corners((60, 90))), CORNERS, atol=1e-9)
    np.testing.assert_allclose(found.outline, CORNERS)
    upright = CornerRectifier([(30, 20), (70, 20), (70, 45), (30, 45)])
    assert upright.size_hw == (25, 40)
    np.testing.assert_array_equal(upright(image).image, image[20:45, 30:70])
    turned = CornerRectifier([(70, 20), (70, 45), (30, 45), (30, 20)])(image)  # its top is the right side
    np.testing.assert_array_equal(turned.image, np.rot90(image[20:45, 30:70]))


def test_the_default_size_is_that_of_the_longer_sides():
    rectifier = CornerRectifier([(0, 0), (30, 0), (30, 10), (0, 40)])  # 30 and 42.4 across, 10 and 40 down
    assert rectifier.size_hw == (40, 42)


def test_outside_of_the_image_it_is_black():
    image = np.full((*IMAGE_HW, 3), 200, np.uint8)
    rectifier = CornerRectifier([(-40, 10), (40, 10), (40, 50), (-40, 50)])
    assert rectifier.outside(IMAGE_HW) == pytest.approx(0.5)
    crop = rectifier(image).image
    assert crop[:, :39].max() == 0
    assert crop[:, 41:].min() == 200
    with pytest.raises(UsageError, match="enclose nothing of the first frame, which is 220 wide and 150 high") as told:
        CornerRectifier([(300, 10), (340, 10), (340, 50), (300, 50)])(image)
    assert told.value.slug == "corners-outside"


@pytest.mark.parametrize(
    ("corners", "words"),
    [
        ([(0, 0), (10, 10), (20, 20), (30, 30)], "no three of them on a line"),
        ([(0, 0), (0, 0), (20, 20), (0, 30)], "no three of them on a line"),
        ([(0, 0), (50, 0), (100, 0), (50, 50)], "no three of them on a line"),
        ([(0, 0), (0, 40), (40, 40), (40, 0)], "the other way, and the crop would be mirrored"),
        ([(0, 0), (40, 40), (40, 0), (0, 40)], "convex region one after the other"),
        ([(0, 0), (40, 0), (10, 10), (0, 40)], "convex region one after the other"),
        ([(0, 0), (0.5, 0), (0.5, 0.5), (0, 0.5)], "at least one pixel"),
        ([(0, 0), (40, 0), (40, 40)], "four points"),
        ([(0, 0), (float("nan"), 0), (40, 40), (0, 40)], "four points"),
        ([(0, 0), (1e9, 0), (1e9, 1e9), (0, 1e9)], "none further away than a million pixels"),
    ],
)
def test_corners_that_enclose_no_region_are_refused(corners, words):
    with pytest.raises(UsageError, match=words) as told:
        CornerRectifier(corners, (10, 10))
    assert told.value.slug == "bad-corners"


def test_sizes_and_images_are_checked():
    with pytest.raises(ValueError, match=r"size_hw=\(0, 10\)"):
        CornerRectifier(CORNERS, (0, 10))
    with pytest.raises(UsageError, match=r"up to 32,766 and 100 million pixels. Received: 40000 wide and 10 high"):
        CornerRectifier(CORNERS, (10, 40_000))
    with pytest.raises(ValueError, match=r"must be uint8 \(H, W, 3\)"):
        CornerRectifier(CORNERS, (10, 20))(picture()[..., 0])


def test_a_frame_of_another_size_is_the_same_view_and_of_another_shape_none():
    image = picture()
    rectifier = CornerRectifier(CORNERS, (60, 90))
    first = rectifier(image)
    double = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    found = rectifier(double)
    np.testing.assert_allclose(found.outline, 2 * np.array(CORNERS))
    np.testing.assert_allclose(apply_homography(found.homography, size_corners((60, 90))), found.outline, atol=1e-9)
    assert np.abs(found.image.astype(int) - first.image).mean() < 2
    with pytest.raises(ModelError, match="the corners are for frames of 220 x 150; this one, 150 x 220"):
        rectifier(np.ascontiguousarray(image.transpose(1, 0, 2)))


def test_averaging_keeps_fine_stripes_grey():
    stripes = np.zeros((240, 320, 3), np.uint8)
    stripes[:, ::2] = 255
    corners = [(10, 5), (310, 5), (310, 235), (10, 235)]
    plain, averaged = (CornerRectifier(corners, (23, 43), antialias=a)(stripes).image for a in (False, True))
    assert plain.std() > 60
    assert averaged.std() < 19  # of 7 pixels 3 or 4 are white: 109 or 146
    assert averaged.mean() == pytest.approx(127.5, abs=2)


def test_averaging_by_whole_factors_is_the_mean_of_the_pixels():
    image = picture((120, 160))
    found = CornerRectifier([(0, 0), (160, 0), (160, 120), (0, 120)], (30, 32), antialias=True)(image).image
    mean = image.reshape(30, 4, 32, 5, 3).mean(axis=(1, 3))
    assert np.abs(found - mean).max() <= 0.51


def test_a_map_given_as_a_function_is_the_matrix():
    image = picture()
    matrix = np.array([[1.2, 0.3, 10], [-0.1, 0.9, 30], [0.0005, -0.0002, 1]])
    for antialias in (False, True):
        by_matrix = warp(image, matrix, (70, 95), antialias=antialias)
        along = warp_along(image, homography_map(matrix), (70, 95), antialias=antialias)
        assert np.abs(by_matrix.astype(int) - along).max() <= 2


def test_a_bent_map_is_followed_across_a_large_crop():
    """A spline asked at each pixel, and between 128 x 128 of its places: a third of a pixel apart at most."""
    from visionkit.tasks import warp as warping

    rule = TransformRule(InputRule.preset("torch", (1080, 1920)), "tps")
    theta = identity_theta("tps") + 0.2 * np.sin(np.arange(32))

    def places(points):
        return rule.places(theta, points, (1080, 1920), (300, 540))

    found = warping._places(places, (300, 540), (300, 540))
    y, x = np.arange(0, 300, 13), np.arange(0, 540, 7)
    exact = places(np.stack(np.meshgrid(x + 0.5, y + 0.5), axis=-1).reshape(-1, 2)).reshape(len(y), len(x), 2)
    apart = np.abs(found[np.ix_(y, x)] - exact)
    assert apart.max() < 0.4
    assert apart.mean() < 0.03


# Of a network's input that an image is stretched, letterboxed or cropped to, the whole is read.
@pytest.mark.parametrize(
    ("resize", "box"),
    [
        ("stretch", (0, 0, 220, 150)),
        ("letterbox", (0, -3.5714, 220, 153.5714)),  # 56 x 40 to 220 wide: 157.14 high
        ("shortest_side", (5, 0, 215, 150)),  # to 150 high: 210 wide
    ],
)
@pytest.mark.parametrize("transform", ["affine", "projective", "attention", "tps"])
def test_the_identity_looks_at_the_networks_window(resize, box, transform):
    rule = TransformRule(InputRule.preset("torch", SIZE_HW, resize=resize), transform, output_hw=VIEW_HW)
    found = rule.rectified(picture(), identity_theta(transform))
    x1, y1, x2, y2 = box
    assert found.size_hw == VIEW_HW
    corners = found.outline[:: len(found.outline) // 4]
    np.testing.assert_allclose(corners, [[x1, y1], [x2, y1], [x2, y2], [x1, y2]], atol=1.6)  # whole pixels of resizing
    assert (found.homography is None) == (transform == "tps")


def test_what_a_transformer_shows_is_what_its_layer_gives():
    """The crop of the input by theta equals the layer's output, within a level of rounding."""
    import keras

    from visionkit.layers import SpatialTransformer

    image = picture()
    rule = InputRule.preset("raw", SIZE_HW)
    thetas = {
        "affine": [0.6, -0.2, 0.1, 0.15, 0.5, -0.1],
        "projective": [0.6, 0.05, 0.1, 0, 0.6, 0, 0.1, 0.2],
        "attention": [0.5, 0.1, -0.2],
        "tps": (0.7 * identity_theta("tps") + 0.05 * np.sin(np.arange(32))).tolist(),
    }
    for (transform, theta), align in itertools.product(thetas.items(), (False, True)):
        layer = SpatialTransformer(VIEW_HW, transform, align_corners=align)
        inputs = [rule(image)[None], np.array([theta], np.float32)]
        expected = keras.ops.convert_to_numpy(layer(inputs))[0, ..., ::-1]
        seen = TransformRule(rule, transform, align, output_hw=VIEW_HW).look(image, theta).image
        assert np.abs(seen - expected).max() < 1.1, (transform, align)


def test_a_region_over_the_horizon_is_no_crop():
    rule = TransformRule(InputRule.preset("torch", SIZE_HW), "projective")
    with pytest.raises(ModelError, match="over the horizon"):
        rule.rectified(picture(), [1, 0, 0, 0, 1, 0, 1.5, 0])
    with pytest.raises(ModelError, match="not finite"):
        rule.thetas([1, 0, 0, 0, np.nan, 0, 0, 0])


def test_theta_says_its_transform_by_the_card_or_by_its_size():
    rule = InputRule.preset("torch", SIZE_HW)
    assert TransformRule.of_network(rule, {}, 6).transform == "affine"
    assert TransformRule.of_network(rule, {}, 32).transform == "tps"
    two = TransformRule.of_network(rule, {"transform": "attention", "view_hw": 20}, 6)
    assert (two.transform, two.size_hw, two.thetas(np.arange(6)).shape) == ("attention", (20, 20), (2, 3))
    with pytest.raises(ModelError, match="theta has 7 numbers"):
        TransformRule.of_network(rule, {}, 7)


def test_a_card_with_a_transformer_rectifies_and_tells_what_it_looks_at(tmp_path):
    theta = [0.5, -0.1, 0.2, 0.1, 0.4, -0.1]
    card = write_transformer_card(tmp_path / "card", theta)
    image = picture()
    rule = TransformRule(InputRule.preset("torch", SIZE_HW), "affine", output_hw=VIEW_HW)
    rectifier = load_rectifier(card, runtime="litert", threads=1, size_hw=(50, 70))
    try:
        found, expected = rectifier(image), rule.rectified(image, theta, (50, 70))
        np.testing.assert_allclose(found.homography, expected.homography, rtol=1e-5, atol=1e-5)
        assert np.abs(found.image.astype(int) - expected.image).max() <= 1
        inside = rectifier.inside(image, np.array([100, 20, 180, 120], np.float32))
        part = rule.rectified(np.ascontiguousarray(image[20:120, 100:180]), theta, (50, 70))
        np.testing.assert_allclose(inside.outline, part.outline + np.array([100, 20]), atol=1e-3)
        np.testing.assert_allclose(
            apply_homography(inside.homography, size_corners((50, 70))), inside.outline, atol=1e-3
        )
        assert rectifier.describe()["name"] == "card"
    finally:
        rectifier.close()
    plain = load_classifier(card, runtime="litert", threads=1)
    looking = load_classifier(card, runtime="litert", threads=1, transform=True)
    try:
        assert looking.heads == ("logits",)
        np.testing.assert_allclose(looking(image).confidence, plain(image).confidence, atol=1e-6)
        with looking.inputs() as inputs:
            _, thetas = looking.infer_looking(looking.fill(inputs, [image]), 1)
        np.testing.assert_allclose(looking.transform.thetas(thetas[0]), [theta], atol=1e-6)
    finally:
        plain.close()
        looking.close()


def test_cards_without_a_transformer_say_so():
    with pytest.raises(ModelError, match="sign_digits has no layer called 'theta'") as told:
        load_rectifier("sign_digits", runtime="keras")
    assert told.value.slug == "no-transformer"
    with pytest.raises(ModelError, match="skin is a model to segment"):
        load_rectifier("skin")
    with pytest.raises(UsageError, match="is a model file"):
        load_rectifier("model.tflite")


def test_boxes_are_crops():
    image = picture()
    found = BoxRectifier((25, 40)).inside(image, np.array([30, 20, 70, 45], np.float32))
    np.testing.assert_array_equal(found.image, image[20:45, 30:70])
    assert BoxRectifier((5, 6))(image).size_hw == (5, 6)


def test_outside_of_the_image_a_crop_is_black_or_goes_on():
    image = np.full((30, 40, 3), 90, np.uint8)
    image[:, -1] = (10, 20, 30)
    corners = [(30, 5), (50, 5), (50, 25), (30, 25)]  # its right half lies outside
    black, on = (CornerRectifier(corners, (20, 20), border=border)(image).image for border in ("zero", "clamp"))
    assert (black[:, 12:] == 0).all()
    assert (on[:, 12:] == (10, 20, 30)).all()
    np.testing.assert_array_equal(black[:, :9], on[:, :9])
    with pytest.raises(ValueError, match=r"`border` must be one of zero, clamp\. Received: border='mirror'\."):
        CornerRectifier(corners, border="mirror")


@pytest.mark.parametrize(
    ("box", "how", "expected"),
    [
        ([10, 20, 30, 30], {}, [10, 20, 30, 30]),
        ([10, 20, 30, 30], {"margin": 0.1}, [8, 18, 32, 32]),  # a tenth of 20
        ([10, 20, 30, 30], {"square": True}, [10, 15, 30, 35]),
        ([10, 20, 30, 30], {"square": True, "margin": 0.5}, [0, 5, 40, 45]),
        ([2, 20, 6, 40], {"square": True}, [0, 20, 20, 40]),  # moved into the image
        ([94, 70, 98, 78], {"square": True, "margin": 0.5}, [84, 64, 100, 80]),
        ([0, 0, 100, 20], {"square": True}, [0, -40, 100, 60]),  # does not fit: cut later
    ],
)
def test_a_box_with_room_around(box, how, expected):
    assert box_around(np.array(box, np.float32), (80, 100), **how).tolist() == expected


def test_a_transformer_inside_of_a_network_is_refused_with_the_reason():
    keras = import_keras()
    given = keras.Input((6, 7, 3))
    x = keras.layers.Flatten()(given)
    model = keras.Model(given, keras.layers.Dense(3)(keras.layers.Dense(6, name="theta_inside")(x)))
    with pytest.raises(ModelError, match="its only spatial transformer is inside of the network and looks at feature"):
        with_theta(model, "mine")
