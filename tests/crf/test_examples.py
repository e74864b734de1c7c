"""The published examples: annotations with unsure places, and the label maps that pydensecrf's own script stored."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from visionkit.crf import CRFParams, mean_field, unary_from_labels


def packed(image):
    """Colours (H, W, 3) as one integer each."""
    return (image.astype(np.int64) << np.array([16, 8, 0])).sum(-1)


@pytest.mark.parametrize(
    ("picture", "annotation", "stored"),
    [("im1", "anno1", "out1"), ("im1", "anno1-b", "out1-b"), ("im2", "anno2", "out2")],
)
def test_stored_outputs_come_out(shared, picture, annotation, stored):
    folder = shared / "data" / "segmentation" / "densecrf"
    image, colours, expected = (cv2.imread(str(folder / f"{n}.png")) for n in (picture, annotation, stored))
    marks = packed(colours)
    known = [colour for colour in np.unique(marks) if colour]
    labels = np.searchsorted(known, marks)
    labels[marks == 0] = 255
    unary = unary_from_labels(labels, len(known), 0.7, unsure=255)
    q = mean_field(unary, image, CRFParams(iterations=5))
    assert (np.array(known)[q.argmax(-1)] == packed(expected)).mean() >= 0.995
    blurred = mean_field(unary, image, CRFParams(bilateral_weight=0))
    assert (np.array(known)[blurred.argmax(-1)] == packed(expected)).mean() < 0.995
