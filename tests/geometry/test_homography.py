"""Homographies in pixels, against arithmetic by hand, OpenCV, and there-and-back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from visionkit.geometry.homography import (
    apply_homography,
    corner_homography,
    homography,
    homography_to_theta,
    index_homography,
    size_corners,
    theta_matrix,
    theta_to_homography,
)

REGION = np.array([[30.0, 10.0], [200.0, 40.0], [180.0, 220.0], [20.0, 190.0]])
INPUT, OUTPUT = (240, 320), (50, 80)
THETAS = {
    "attention": [0.7, 0.2, -0.1],
    "affine": [0.8, 0.3, 0.1, -0.2, 0.6, -0.05],
    "projective": [0.8, 0.3, 0.1, -0.2, 0.6, -0.05, 0.1, -0.2],
}


def test_a_crop_of_twice_the_size_is_a_scale_and_a_shift():
    # the region from (10, 20) to (40, 60) as a crop of 60 x 80: each pixel of the crop is half a pixel of the image
    matrix = corner_homography([[10, 20], [40, 20], [40, 60], [10, 60]], (80, 60))
    np.testing.assert_allclose(matrix, [[0.5, 0, 10], [0, 0.5, 20], [0, 0, 1]], atol=1e-12)


def test_four_points_go_where_they_shall_as_with_opencv():
    matrix = homography(size_corners(OUTPUT), REGION)
    np.testing.assert_allclose(apply_homography(matrix, size_corners(OUTPUT)), REGION, atol=1e-10)
    theirs = cv2.getPerspectiveTransform(size_corners(OUTPUT).astype(np.float32), REGION.astype(np.float32))
    np.testing.assert_allclose(matrix, theirs, atol=1e-9)


def test_tiny_and_far_regions_are_as_exact_as_others():
    far = REGION * 1e-4 + 1e5
    np.testing.assert_allclose(apply_homography(homography(REGION, far), REGION), far, rtol=1e-12)


def test_index_homography_is_what_opencv_samples_with():
    """A ramp holds its own continuous coordinates, so the warped ramp tells where each pixel came from."""
    matrix = corner_homography(REGION, OUTPUT)
    y, x = np.mgrid[: INPUT[0], : INPUT[1]]
    ramp = np.dstack([x + 0.5, y + 0.5]).astype(np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(ramp, index_homography(matrix), OUTPUT[::-1], flags=flags)
    rows, columns = np.mgrid[: OUTPUT[0], : OUTPUT[1]]
    wanted = apply_homography(matrix, np.dstack([columns, rows]) + 0.5)
    np.testing.assert_allclose(warped, wanted, atol=1 / 32)  # OpenCV rounds places to 32nds of a pixel here
    wrong = cv2.warpPerspective(ramp, matrix, OUTPUT[::-1], flags=flags)
    assert np.abs(wrong - wanted).max() > 0.3


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("transform", THETAS)
def test_theta_to_pixels_and_back(transform, align_corners):
    theta = np.array(THETAS[transform])
    matrix = theta_to_homography(theta, INPUT, OUTPUT, align_corners=align_corners)
    back = homography_to_theta(matrix, INPUT, OUTPUT, align_corners=align_corners, transform=transform)
    np.testing.assert_allclose(back, theta, atol=1e-12)


def test_the_corners_of_minus_one_to_one():
    theta = [0.5, 0, 0, 0, 0.5, 0]  # the middle half
    edges = apply_homography(theta_to_homography(theta, (40, 80), (10, 20)), size_corners((10, 20)))
    np.testing.assert_allclose(edges, [[20, 10], [60, 10], [60, 30], [20, 30]], atol=1e-12)
    # with corners aligned, the centres of the corner pixels lie halfway from the middle: 40 -/+ 79 / 4 in x
    matrix = theta_to_homography(theta, (40, 80), (10, 20), align_corners=True)
    np.testing.assert_allclose(apply_homography(matrix, [0.5, 0.5]), [40 - 79 / 4, 20 - 39 / 4], atol=1e-12)


def test_many_thetas_at_once():
    thetas = np.array([THETAS["affine"], [1, 0, 0, 0, 1, 0]])
    matrices = theta_to_homography(thetas, INPUT, OUTPUT)
    assert matrices.shape == (2, 3, 3)
    np.testing.assert_allclose(matrices[0], theta_to_homography(thetas[0], INPUT, OUTPUT))


def test_a_point_on_the_horizon_is_nan():
    assert np.isnan(apply_homography([[1, 0, 0], [0, 1, 0], [1, 0, 0]], [0.0, 2.0])).all()


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ([[0, 0], [1, 0], [2, 0], [0, 1]], "convex"),
        ([[0, 0], [1, 1], [1, 0], [0, 1]], "convex"),
        ([[0, 0], [4, 0], [1, 1], [0, 4]], "convex"),
        ([[5, 5]] * 4, "convex"),
        ([[0, 0], [1, 0], [np.nan, 1], [0, 1]], "finite"),
        ([[0, 0], [1, 0], [1, 1]], "four"),
    ],
)
def test_corners_that_are_no_region_are_refused(corners, message):
    with pytest.raises(ValueError, match=message):
        corner_homography(corners, (5, 5))


def test_a_mirrored_region_is_a_region():
    mirrored = REGION[[1, 0, 3, 2]]
    np.testing.assert_allclose(
        apply_homography(corner_homography(mirrored, OUTPUT), size_corners(OUTPUT)), mirrored, atol=1e-10
    )


def test_bad_arguments():
    with pytest.raises(ValueError, match="must hold 3"):
        theta_matrix(np.zeros(32))
    with pytest.raises(ValueError, match="of at least 2"):
        theta_to_homography(THETAS["affine"], (1, 5), (5, 5), align_corners=True)
    with pytest.raises(ValueError, match="no affine transform"):
        homography_to_theta(corner_homography(REGION, OUTPUT), INPUT, OUTPUT, transform="affine")
    with pytest.raises(ValueError, match="one of"):
        homography_to_theta(np.eye(3), INPUT, OUTPUT, transform="tps")
    with pytest.raises(ValueError, match="infinity"):
        homography_to_theta([[1, 0, 0], [0, 1, 0], [1 / 40, 0, -1]], INPUT, OUTPUT)
