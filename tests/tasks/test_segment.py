"""The segmenter over networks made by hand: sizes, looks, the CRF, what is not finite."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests.tasks.made_segment import Made, by_color, halves, made_segmenter
from visionkit.crf import CRFParams
from visionkit.errors import ModelError
from visionkit.structures import Segmentation
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.refine import Refiner, scaled
from visionkit.tasks.score_maps import Scores, best_labels, candidates, normalized_entropy, spread
from visionkit.tasks.segment_fit import SizeOptions, fit_of

SIZES = [(90, 61), (33, 140), (64, 65), (7, 5), (1, 1), (1, 300), (300, 1)]


def random_scores(shape, smooth=0.0, seed=0):
    scores = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return np.stack([cv2.GaussianBlur(plane, (0, 0), smooth) for plane in scores]) if smooth else scores


@pytest.mark.parametrize("size_hw", [(43, 77), (9, 14), (5, 6), (1, 1), (300, 4)])
@pytest.mark.parametrize("shape", [(5, 9, 14), (3, 1, 7), (2, 6, 1), (21, 1, 1)])
def test_labels_are_the_greatest_of_the_enlarged_logits(shape, size_hw):
    scores = random_scores(shape)
    whole = np.dstack([cv2.resize(plane, size_hw[::-1], interpolation=cv2.INTER_LINEAR) for plane in scores])
    np.testing.assert_allclose(spread(scores, size_hw).transpose(1, 2, 0), whole, atol=1e-5)
    best = whole.max(axis=2)
    found = np.take_along_axis(whole, best_labels(scores, size_hw)[..., None].astype(int), axis=2)[..., 0]
    assert np.allclose(found, best, atol=1e-5)
    bands = np.concatenate([spread(scores, size_hw, slice(r, r + 1)) for r in range(size_hw[0])], axis=1)
    np.testing.assert_allclose(bands, spread(scores, size_hw), atol=1e-5)


def test_leaving_hopeless_classes_out_changes_nothing():
    for seed, smooth in ((0, 0.0), (1, 1.5), (2, 4.0)):
        scores = random_scores((21, 20, 31), smooth, seed)
        every = spread(scores, (150, 233)).argmax(axis=0)
        assert np.array_equal(best_labels(scores, (150, 233)), every)
    assert len(candidates(random_scores((21, 20, 31), 4.0, 2))) < 21


def test_a_class_that_wins_only_between_the_places_is_kept():
    scores = np.float32([[[10, 0]], [[9, 9]], [[0, 10]]])  # in the middle: 5, 9, 5
    assert candidates(scores) == [0, 1, 2]
    assert best_labels(scores, (1, 8))[0].tolist() == [0, 0, 1, 1, 1, 1, 2, 2]  # at 1/8: 8.75, 9
    assert set(scores.argmax(axis=0).ravel().tolist()) == {0, 2}, "the control: winners at the places alone"
    assert candidates(np.float32([[[10, 9]], [[8, 8]], [[0, 1]]])) == [0]


def test_of_equal_scores_the_first_class_wins():
    assert (best_labels(np.ones((3, 4, 5), np.float32), (9, 11)) == 0).all()


def test_more_than_256_classes_need_wider_labels():
    scores = np.zeros((300, 2, 3), np.float32)
    scores[299] = 1
    found = best_labels(scores, (4, 6))
    assert found.dtype == np.uint16
    assert (found == 299).all()


@pytest.mark.parametrize("resize", ["shortest_side", "stretch", "letterbox"])
@pytest.mark.parametrize("size_hw", [(90, 122), (122, 90), (64, 64), (203, 60)])
def test_classes_end_where_colours_do(resize, size_hw):
    image = halves(size_hw)
    found = made_segmenter(resize=resize)(image)
    assert isinstance(found, Segmentation)
    assert found.class_map.shape == size_hw
    expected = np.where(np.arange(size_hw[1]) < size_hw[1] // 2, 1, 2)
    wrong = (found.class_map != expected).nonzero()[1]
    cell = 8 * max(size_hw) / 64
    assert np.abs(wrong + 0.5 - size_hw[1] / 2).max(initial=0) <= 0.5 * cell
    assert (found.class_map[:, [0, -1]] == [1, 2]).all()


def test_a_letterbox_that_is_not_cut_off_shifts_the_answer():
    """The control: the map of the whole input over the image is off by the frame around it."""
    image = halves((60, 240), at=60)
    task = made_segmenter(resize="letterbox")
    good = task(image).class_map
    fit = task.fit(image.shape[:2])
    assert fit.content == (24, 40, 0, 64)
    assert np.abs(np.flatnonzero(np.diff(good[30].astype(int))) - 60).max() <= 16
    whole = by_color(fit.rule(image)[None])[0].transpose(2, 0, 1)
    assert (best_labels(np.float32(whole), (60, 240)) == good).mean() < 0.8


@pytest.mark.parametrize("size_hw", SIZES)
@pytest.mark.parametrize("resize", ["shortest_side", "stretch", "letterbox"])
def test_images_of_any_size_are_answered_at_their_size(size_hw, resize):
    if resize == "letterbox" and 300 in size_hw:
        pytest.skip("of an image this thin the network sees mostly the frame around it")
    image = halves(size_hw, "blue", "blue")
    found = made_segmenter(resize=resize, confidence=True)(image)
    assert found.class_map.shape == size_hw
    assert found.class_map.dtype == np.uint8
    assert (found.class_map == 3).all()
    assert found.confidence.dtype == np.float32
    assert ((found.confidence > 0.5) & (found.confidence <= 1)).all()


def test_lists_are_answered_image_by_image_and_images_left_alone():
    task = made_segmenter()
    images = [halves(size) for size in SIZES[:3]]
    before = [image.copy() for image in images]
    assert [a.class_map.tolist() for a in task(images)] == [task(image).class_map.tolist() for image in images]
    assert all(np.array_equal(a, b) for a, b in zip(images, before, strict=True))
    assert task([]) == []
    with pytest.raises(ValueError, match="uint8"):
        task(np.zeros((4, 4, 3), np.float32))


def test_probabilities_sum_to_one_and_agree_with_the_labels():
    task, image = made_segmenter(confidence=True), halves((50, 71))
    probs, found = task.probs(image), task(image)
    assert probs.shape == (50, 71, 4)
    np.testing.assert_allclose(probs.sum(axis=2), 1, atol=1e-5)
    assert np.array_equal(probs.argmax(axis=2), found.class_map)
    np.testing.assert_allclose(probs.max(axis=2), found.confidence, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_an_error(bad):
    task = made_segmenter(lambda x: by_color(x) * np.where(np.arange(4) == 2, bad, 1))
    with pytest.raises(ModelError) as caught, np.errstate(invalid="ignore"):
        task(halves((64, 64)))
    assert caught.value.slug == "model-not-finite"


def test_an_answer_of_another_form_is_an_error():
    with pytest.raises(ModelError) as caught:
        made_segmenter(lambda x: np.zeros((1, 7)))(halves((64, 64)))
    assert caught.value.slug == "model-unfit"


def leaning(inputs):
    """Scores that depend on the place: the right half is class 1, whatever is there; grey levels decide how surely."""
    scores = np.zeros((1, 8, 8, 4))
    scores[:, :, 4:, 1] = inputs.mean() / 15
    return scores


def test_looking_at_the_mirrored_image_averages_probabilities():
    image = halves((64, 64), "grey", "grey")
    plain, both = made_segmenter(leaning).probs(image), made_segmenter(leaning, flip=True).probs(image)
    np.testing.assert_allclose(both, (plain + plain[:, ::-1]) / 2, atol=1e-6)
    logits = (
        made_segmenter(leaning).scores(image).maps[0] + made_segmenter(leaning).scores(image).maps[0][:, :, ::-1]
    ) / 2
    powers = np.exp(spread(logits, (64, 64)))
    assert np.abs(powers / powers.sum(axis=0) - both.transpose(2, 0, 1)).max() > 0.01, "means of logits differ"


def test_a_mirrored_look_is_turned_back():
    image = halves((64, 96), at=20)
    assert np.array_equal(made_segmenter(flip=True)(image).class_map, made_segmenter()(image).class_map)


def test_looks_at_several_sizes_compile_as_many_networks():
    task = made_segmenter(scales=(0.75, 1.0, 1.5), flip=True)
    image = halves((128, 128))
    assert len(task.scores(image).maps) == 6
    assert set(task.made) == {(64, 64), (96, 96)}  # 48 is rounded to 64, a multiple of 32
    assert (task(image).class_map[:, :60] == 1).all()


def test_entropy_is_one_for_all_alike_and_zero_for_certainty():
    assert normalized_entropy(np.full((4, 2, 3), 0.25, np.float32)).tolist() == [[1, 1, 1]] * 2
    sure = np.zeros((4, 2, 3), np.float32)
    sure[1] = 1
    assert normalized_entropy(sure).max() < 1e-6
    half = np.float32([0.5, 0.5, 0, 0])[:, None, None]
    assert normalized_entropy(half)[0, 0] == pytest.approx(0.5, abs=1e-5)  # log 2 / log 4
    scores = Scores((np.zeros((3, 4, 5), np.float32), np.zeros((3, 9, 7), np.float32)), (40, 50))
    np.testing.assert_allclose(scores.entropy(), np.ones((4, 5)), atol=1e-6)
    assert (scores.maps[0] == 0).all(), "the scores themselves are left alone"


def test_the_crf_moves_classes_onto_the_edges_of_colours():
    """A network of cells of 8 pixels over an image of 24 x 40 whose colours change at pixel 18."""
    image = halves((24, 40), at=18)
    params = CRFParams(theta_alpha=8, theta_beta=20, theta_gamma=1, bilateral_weight=8, gaussian_weight=1)
    expected = np.where(np.arange(40) < 18, 1, 2)
    blurred = lambda x: cv2.GaussianBlur(by_color(x)[0], (0, 0), 1.0)[None] / 3  # noqa: E731
    offset = lambda x: np.roll(blurred(x), 1, axis=2)  # noqa: E731 - a cell too far to the right
    plain, refined = (made_segmenter(offset, size_hw=(24, 40), resize="stretch", crf=crf) for crf in (None, params))
    before, after = ((task(image).class_map == expected)[:, 8:].mean() for task in (plain, refined))
    assert before < 0.9
    assert after > before + 0.05
    np.testing.assert_allclose(refined.probs(image).sum(axis=2), 1, atol=1e-4)


def test_large_images_are_refined_at_a_smaller_size():
    params = CRFParams(theta_alpha=40, theta_gamma=(4, 2), iterations=1)
    refiner = Refiner(params, max_pixels=600)
    image = halves((60, 80))
    assert refiner.size_of((60, 80)) == (21, 28)
    probs = np.zeros((60, 80, 2), np.float32)
    probs[:, :40, 0] = probs[:, 40:, 1] = 1
    found = refiner(probs, image)
    assert found.shape == probs.shape
    assert np.array_equal(found.argmax(axis=2)[:, [0, 30, 50, 79]], np.tile([0, 0, 1, 1], (60, 1)))
    small = scaled(params, 0.25)
    assert (small.theta_alpha, small.theta_gamma, small.theta_beta) == (10, (1, 0.5), 13)


TORCH = InputRule.preset("torch", (520, 520), resize="shortest_side")


@pytest.mark.parametrize(
    ("size_hw", "options", "expected"),
    [
        ((432, 768), {}, (520, 936)),  # 924.4, in steps of 32 from 520
        ((768, 432), {}, (936, 520)),
        ((500, 500), {}, (520, 520)),
        ((1, 1), {}, (520, 520)),
        ((432, 768), {"short_side": 256}, (256, 448)),
        ((432, 768), {"size_hw": (300, 500)}, (300, 500)),
        ((432, 768), {"native": True}, (448, 768)),
        ((640, 960), {"native": True}, (640, 960)),
    ],
)
def test_the_size_of_the_input(size_hw, options, expected):
    fit = fit_of(TORCH, size_hw, SizeOptions(**options))
    assert fit.plan is None
    assert fit.content is None
    assert (fit.rule.size_hw, fit.pass_hw) == (expected, expected)


@pytest.mark.parametrize("size_hw", [(1, 20_000), (3000, 4000), (20_000, 9), (2, 3)])
@pytest.mark.parametrize(
    "options", [{}, {"native": True}, {"short_side": 2000}, {"tile": 256}, {"size_hw": (900, 5000)}]
)
def test_no_pass_exceeds_the_budget(size_hw, options):
    for resize in ("shortest_side", "stretch", "letterbox"):
        fit = fit_of(InputRule.preset("torch", (520, 520), resize=resize), size_hw, SizeOptions(**options))
        assert fit.pass_hw[0] * fit.pass_hw[1] <= 1 << 20
        if "tile" in options:
            assert max(fit.pass_hw) <= 256


@pytest.mark.parametrize(
    "bad",
    [
        {"scales": ()},
        {"scales": (0.0,)},
        {"palette": ((1, 2),)},
        {"palette": ((1, 2, 300),)},
    ],
)
def test_options_without_meaning_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        made_segmenter(**bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"tile": 8},
        {"short_side": 3},
        {"max_pixels": 9},
        {"native": True, "short_side": 64},
        {"tile": 64, "overlap": 40},
    ],
)
def test_sizes_without_meaning_are_refused(bad):
    with pytest.raises(ValueError, match=r"must be|must leave|exclude"):
        SizeOptions(**bad)


def test_networks_used_last_are_kept_and_others_closed():
    task = made_segmenter()
    sizes = [(64, 64 + 32 * extra) for extra in range(9)]
    for size in sizes:
        task(halves(size))
    assert [task.made[size]._closed for size in sizes] == [True] * 3 + [False] * 6
    task.close()
    assert all(made._closed for made in task.made.values())
    assert isinstance(task.made[sizes[0]], Made)
