"""Objects cut out of photos with a plain background: the outline is found, and where nothing stands out, nothing is."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from visionkit.train.composites import Compositor
from visionkit.train.cutouts import Cutout, cut_out
from visionkit.train.heads import random_head, skin_tone
from visionkit.train.shapes import Textures


def photo(*, at_edge: bool) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """A skin-coloured blob on paper with light from one side and noise, and its true mask."""
    rng = np.random.default_rng(0)
    paper = np.full((90, 110, 3), 200.0) - np.linspace(0, 50, 110)[None, :, None]
    mask = np.zeros((90, 110), np.uint8)
    cv2.ellipse(mask, (50, 80 if at_edge else 45), (22, 30), 20, 0, 360, 1, -1)
    paper[mask == 1] = (110, 140, 190)
    return np.clip(paper + rng.normal(0, 3, paper.shape), 0, 255).astype(np.uint8), mask


@pytest.mark.parametrize("at_edge", [False, True])
def test_the_outline_is_found_under_uneven_light(at_edge: bool) -> None:
    image, truth = photo(at_edge=at_edge)
    found = cut_out(image)
    assert found is not None
    answer = found.alpha > 127
    iou = (answer & (truth == 1)).sum() / (answer | (truth == 1)).sum()
    assert iou > 0.95
    # a threshold on brightness alone, which the falling light defeats
    dark = image.mean(axis=2) < 165
    assert (dark & (truth == 1)).sum() / (dark | (truth == 1)).sum() < 0.9


def test_where_nothing_stands_out_there_is_no_object() -> None:
    rng = np.random.default_rng(0)
    plain = np.clip(180 + rng.normal(0, 2, (60, 70, 3)), 0, 255).astype(np.uint8)
    assert cut_out(plain) is None
    assert cut_out(np.full((60, 70, 3), 128, np.uint8)) is None


def test_a_composites_mask_is_where_the_object_shows() -> None:
    # a pure green object on grey: after pasting, green pixels and mask must be the same places
    image, truth = photo(at_edge=False)
    green = np.zeros_like(image)
    green[..., 1] = 255
    compositor = Compositor([[Cutout(green, truth * 255)]], [[np.full((50, 60, 3), 90, np.uint8)]], (48, 64), empty=0.0)
    agreeing = []
    for seed in range(12):
        picture, mask = compositor(np.random.default_rng(seed))
        assert picture.shape == (48, 64, 3)
        assert set(np.unique(mask)) <= {0, 1}
        if mask.any() and (mask == 0).any():
            # green recoloured stays far greener than red and blue inside of the mask
            greenness = picture[..., 1].astype(float) - np.maximum(picture[..., 0], picture[..., 2])
            agreeing.append(greenness[mask == 1].mean() - greenness[mask == 0].mean())
    assert np.median(agreeing) > 60
    empty = Compositor([[Cutout(green, truth * 255)]], [], (48, 64), empty=1.0)
    assert not empty(np.random.default_rng(0))[1].any()


def green_hand() -> Cutout:
    """A pure green object, so that whatever is green in a picture is its skin."""
    image, truth = photo(at_edge=False)
    green = np.zeros_like(image)
    green[..., 1] = 200
    return Cutout(green, truth * 255)


def test_the_bare_part_of_a_head_has_the_skin_of_the_photo_and_the_rest_has_not() -> None:
    skin = []
    for seed in range(8):
        head = random_head(green_hand(), Textures([]), np.random.default_rng(seed))
        assert head.part is not None
        bare, covered = head.part > 127, head.alpha > 127
        assert covered[bare].all()
        assert 0.08 < bare.sum() / covered.sum() < 0.9
        blue, green, red = (head.image[bare][:, k].astype(int) for k in range(3))
        skin.append(float(((green > blue + 20) & (green > red + 20)).mean()))
    # eyes, lips, brows and beards are not green, and count as skin
    assert min(skin) > 0.5
    assert np.median(skin) > 0.8


def test_heads_are_of_the_class_of_skin_and_hair_and_clothes_are_not() -> None:
    grey = [[np.full((50, 60, 3), 90, np.uint8)]]
    compositor = Compositor([[green_hand()]], grey, (96, 128), empty=0.0, skin=0)
    head = random_head(green_hand(), Textures([]), np.random.default_rng(3))
    assert head.part is not None
    image, mask = np.full((96, 128, 3), 90, np.uint8), np.zeros((96, 128), np.uint8)
    before = image.copy()
    compositor._paste(image, mask, head, 1, np.random.default_rng(0))
    drawn = (image.astype(int) - before).__abs__().max(axis=2) > 25
    assert mask.any()
    assert (drawn & (mask == 0)).sum() > 0.1 * drawn.sum()  # clothes and hair


def test_a_photo_as_it_was_taken_comes_with_its_own_mask() -> None:
    image, truth = photo(at_edge=True)
    compositor = Compositor([[Cutout(image, truth * 255)]], [], (80, 90), plain=1.0)
    for seed in range(6):
        picture, mask = compositor(np.random.default_rng(seed))
        assert picture.shape == (80, 90, 3)
        assert 0.02 < (mask == 1).mean() < 0.9
        # the blob is redder than blue against its paper, which is grey
        warmth = picture[..., 2].astype(int) - picture[..., 0]
        assert warmth[mask == 1].mean() > warmth[mask == 0].mean() + 20


def test_skin_gets_darker_and_paler_but_never_bluer_than_red() -> None:
    skin = np.full((4, 5, 3), (120, 150, 190), np.uint8)
    tones = np.array([skin_tone(skin, np.random.default_rng(seed))[0, 0] for seed in range(60)], int)
    assert (tones[:, 2] >= tones[:, 0]).all()
    assert tones.mean(axis=1).min() < 110
    assert np.ptp(tones.mean(axis=1)) > 50


def test_more_variety_reaches_dark_skin_and_keeps_masks_true() -> None:
    skin = np.full((4, 5, 3), (120, 150, 190), np.uint8)
    usual, wide = (
        [int(skin_tone(skin, np.random.default_rng(seed), vary).mean()) for seed in range(60)] for vary in (1.0, 2.0)
    )
    assert min(wide) < 75 < min(usual)
    compositor = Compositor([[green_hand()]], [[np.full((50, 60, 3), 90, np.uint8)]], (48, 64), empty=0.0, vary=2.0)
    greener = []
    for seed in range(12):
        picture, mask = compositor(np.random.default_rng(seed))
        if mask.any() and (mask == 0).any():
            greenness = picture[..., 1].astype(float) - np.maximum(picture[..., 0], picture[..., 2])
            greener.append(greenness[mask == 1].mean() - greenness[mask == 0].mean())
    assert np.median(greener) > 30
