"""DET-9: masks put back at pixel centres, against SciPy's interpolation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from visionkit.geometry.mask_paste import paste_masks, paste_probs

SIZE_HW = (90, 130)


def blob(count: int, seed: int) -> np.ndarray:
    """A smooth 28 x 28 grid of probabilities with a wavy edge."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(count, 28, 28)), (0, 4, 4))
    return (1 / (1 + np.exp(-60 * noise))).astype(np.float32)


def by_scipy(prob: np.ndarray, box: np.ndarray, shift: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]] + 0.5 + shift
    places = [(y - box[1]) * 28 / (box[3] - box[1]) - 0.5, (x - box[0]) * 28 / (box[2] - box[0]) - 0.5]
    return ndimage.map_coordinates(prob.astype(np.float64), places, order=1, mode="grid-constant")


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


BOXES = np.array([[10.3, 7.7, 80.9, 61.2], [-12.4, 40.1, 33.3, 97.6], [100.25, 3.5, 129.9, 88.8], [50.1, 50.2, 61, 58]])


def test_det9_as_scipy_at_pixel_centres() -> None:
    probs = blob(4, 0)
    masks = paste_masks(probs, BOXES, SIZE_HW)
    maps = paste_probs(probs, BOXES, SIZE_HW)
    for prob, box, mask, values in zip(probs, BOXES, masks, maps, strict=True):
        expected = by_scipy(prob, box)
        assert overlap(mask, expected > 0.5) >= 0.99
        np.testing.assert_allclose(values, expected, atol=2e-5)


def test_det9_a_shift_by_half_a_pixel_is_seen() -> None:
    probs = blob(4, 0)
    shifted = [
        overlap(m, by_scipy(p, b, 0.5) > 0.5)
        for p, b, m in zip(probs, BOXES, paste_masks(probs, BOXES, SIZE_HW), strict=True)
    ]
    assert max(shifted) < 0.99


def test_torchvisions_rule_gives_its_masks(shared: Path) -> None:
    with np.load(shared / "parity" / "maskrcnn_resnet50_fpn.npz") as file:
        logits, boxes, labels, expected = (file[k] for k in ("mask_logits", "boxes", "labels", "masks_first5"))
    stored = [k for k in range(5) if labels[k] % 7 == 0]  # every seventh class is stored
    assert stored
    for k in stored:
        prob = 1 / (1 + np.exp(-logits[k, labels[k] // 7]))
        values = paste_probs(prob[None], boxes[k : k + 1], expected.shape[1:], rule="torchvision")[0]
        assert np.abs(values * 255 - expected[k]).max() <= 1.01  # stored in whole numbers
        assert np.abs(paste_probs(prob[None], boxes[k : k + 1], expected.shape[1:])[0] * 255 - expected[k]).max() > 3


def test_torchvisions_rule_counts_both_edge_pixels() -> None:
    mask = paste_masks(np.ones((1, 28, 28)), [[10, 20, 38, 48]], SIZE_HW, rule="torchvision")[0]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (20, 48, 10, 38)  # 29 pixels
    mask = paste_masks(np.ones((1, 28, 28)), [[10, 20, 38, 48]], SIZE_HW)[0]
    assert mask.sum() == 28 * 28


@pytest.mark.parametrize("rule", ["centers", "torchvision"])
def test_boxes_outside_tiny_or_inverted(rule: str) -> None:
    boxes = [[-50, -50, -20, -10], [200, 10, 220, 20], [5, 5, 5, 5], [20, 20, 10, 10], [-20, -20, 300, 300]]
    masks = paste_masks(np.ones((5, 28, 28)), boxes, SIZE_HW, rule=rule)
    assert not masks[:2].any()
    assert masks[2:4].sum() <= 2
    assert masks[4].all()
    assert paste_masks(np.zeros((0, 28, 28)), [], SIZE_HW, rule=rule).shape == (0, *SIZE_HW)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="one for each box"):
        paste_masks(np.ones((2, 28, 28)), [[0, 0, 1, 1]], SIZE_HW)
    with pytest.raises(ValueError, match="rule='nearest'"):
        paste_masks(np.ones((1, 28, 28)), [[0, 0, 1, 1]], SIZE_HW, rule="nearest")
    with pytest.raises(ValueError, match="must be finite"):
        paste_masks(np.ones((1, 28, 28)), [[0, 0, np.nan, 1]], SIZE_HW)
