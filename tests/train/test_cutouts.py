"""Objects cut out of photos with a plain background: the outline is found, and where nothing stands out, nothing is."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from visionkit.train.composites import Compositor
from visionkit.train.cutouts import Cutout, cut_out


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
