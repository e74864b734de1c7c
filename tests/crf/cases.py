"""Rendered problems for the dense CRF: an image of flat regions, its labels, and an annotation with mistakes."""

from __future__ import annotations

from functools import cache

import numpy as np

from visionkit.crf import CRFParams, mean_field_exact, unary_from_labels

# pydensecrf's example, DeepLab v1 and v2, the VOC settings of a well known port, and narrow kernels
SETTINGS = [
    {},
    {"theta_alpha": 50, "theta_beta": 3, "bilateral_weight": 5},
    {"theta_alpha": 67, "theta_beta": 3, "bilateral_weight": 4, "theta_gamma": 1},
    {"theta_alpha": 30, "theta_beta": 6, "bilateral_weight": 4},
    {"theta_alpha": 10, "theta_beta": 20, "theta_gamma": 1, "gaussian_weight": 1},
]
ITERATIONS = (1, 5, 10)


def settings() -> list[CRFParams]:
    return [CRFParams(iterations=n, **kernels) for kernels in SETTINGS for n in ITERATIONS]


def three_regions(size_hw=(32, 32), seed=0, noise=2.0, channels=3):
    """Unary (H, W, 3) that is wrong at a sixth of the pixels, uint8 image (H, W, C), true labels (H, W)."""
    height, width = size_hw
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    labels = np.zeros(size_hw, int)
    labels[(x - 0.65 * width) ** 2 + (y - 0.35 * height) ** 2 < (0.27 * width) ** 2] = 1
    labels[(y > 0.6 * height) & (x < 0.55 * width)] = 2
    colours = rng.integers(30, 226, (3, channels))
    image = np.clip(colours[labels] + rng.normal(0, noise, (*size_hw, channels)), 0, 255).astype(np.uint8)
    noisy = np.where(rng.random(size_hw) < 0.25, rng.integers(0, 3, size_hw), labels)
    return unary_from_labels(noisy, 3, 0.7), image, labels


@cache
def right_of_three_regions(params, noise=2.0):
    """The exact marginals of `three_regions`, which several tests want."""
    unary, image, _ = three_regions(noise=noise)
    return mean_field_exact(unary, image, params)


def two_regions(size_hw=(48, 64), seed=0):
    """CRF-3: two flat halves with a toothed border, a quarter of the annotation flipped."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    labels = (x > 0.5 * size_hw[1] + 20 * np.sin(y / 2)).astype(int)
    image = np.clip(np.where(labels, 170, 70)[..., None] + rng.normal(0, 8, (*size_hw, 3)), 0, 255).astype(np.uint8)
    noisy = np.where(rng.random(size_hw) < 0.25, 1 - labels, labels)
    return unary_from_labels(noisy, 2, 0.7), image, labels, noisy


def same_labels(a, b) -> float:
    return float((a.argmax(-1) == b.argmax(-1)).mean())
