"""A segmenter measured on images and masks: every count through the task, the CRF step by step, what cannot be used."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.train.rendered_masks import COLOURS, NAMES, write_camvid
from visionkit.crf import CRFParams, mean_field, unary_from_probs
from visionkit.errors import InputError, ModelError
from visionkit.evaluate.boundaries import boundary_f_score, trimap_counts
from visionkit.evaluate.segment import crf_steps, evaluate_segmenter
from visionkit.evaluate.segment_charts import render_evaluation
from visionkit.evaluate.segment_metrics import confusion_counts
from visionkit.train.mask_folders import LabelSet, MaskFolders, read_mask_folders
from visionkit.train.mask_images import SegmentMaterial

SIZE = (26, 35)
LABELS = LabelSet(NAMES)
CRF = CRFParams(theta_alpha=12, theta_beta=20, theta_gamma=2, iterations=3)


def by_colour(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Probabilities (H, W, L) from how near each pixel is to the classes' colours."""
    apart = np.stack([np.square(image - np.float32(colour)).sum(axis=2) for colour in COLOURS], axis=-1)
    powers = np.exp(-apart / 4000)
    return (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)


def speckled(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The same with one pixel of five drawn at random."""
    rng = np.random.default_rng(int(image.sum()))
    random = rng.dirichlet(np.ones(4), image.shape[:2]).astype(np.float32)
    return np.where(rng.random(image.shape[:2])[..., None] < 0.2, random, by_colour(image)).astype(np.float32)


@pytest.fixture
def folders(tmp_path: Path) -> MaskFolders:
    return read_mask_folders(write_camvid(tmp_path, {"val": 3, "train": 1}, SIZE))


def test_counts_are_those_of_the_answers(folders: MaskFolders) -> None:
    material = SegmentMaterial(folders, LABELS)
    samples = folders.select("val")
    result = evaluate_segmenter(by_colour, material, samples, edges=True, widths=(2, 5))
    confusion = np.zeros((4, 4), np.int64)
    bands = np.zeros((2, 4, 4), np.int64)
    edges = []
    for sample in samples:
        image, truth = material(sample)
        answer = by_colour(image).argmax(-1)
        confusion += confusion_counts(truth, answer, 4)
        bands += trimap_counts(truth, answer, 4, widths=(2, 5))
        edges.append(boundary_f_score(answer, truth, 4))
    (measured,) = result.answers
    assert np.array_equal(measured.confusion, confusion)
    assert np.array_equal(measured.bands, bands)
    assert measured.boundary_f == pytest.approx(np.mean(edges))
    each = np.array(measured.boundary)
    assert each.shape == (3, 4)
    np.testing.assert_allclose(measured.class_boundary_f, np.nanmean(each, axis=0))
    assert len(measured.band_iou) == 2
    assert np.isnan(result.seconds[1])


def test_step_k_of_the_crf_is_the_crf_of_k_iterations(folders: MaskFolders) -> None:
    image = SegmentMaterial(folders, LABELS)(folders.samples[0])[0]
    steps = list(crf_steps(CRF)(by_colour(image), image))
    assert len(steps) == 3
    for number, marginals in enumerate(steps, 1):
        params = CRFParams(theta_alpha=12, theta_beta=20, theta_gamma=2, iterations=number)
        whole = mean_field(unary_from_probs(by_colour(image)), image, params)
        assert np.abs(marginals - whole).max() < 1e-4


def test_the_crf_removes_specks_and_the_page_shows_its_gain(folders: MaskFolders) -> None:
    result = evaluate_segmenter(
        speckled,
        SegmentMaterial(folders, LABELS),
        folders.select("val"),
        refine=crf_steps(CRF),
        iterations=3,
        edges=True,
    )
    gains = [answer.scores.mean_iu for answer in result.answers]
    assert len(gains) == 4
    assert gains[-1] > gains[0] + 0.02
    assert result.answers[-1].band_iou[0] > result.answers[0].band_iou[0]
    assert result.answers[1].bands.sum() == 0  # of the steps between, edges are not measured
    html = render_evaluation(result, ["<b>", *NAMES[1:]], "shapes", "visionkit eval segment")
    assert html.count("<svg") == 2
    first, last = result.answers[0], result.answers[-1]
    assert f'boundary F-score</td><td class="n">{first.boundary_f:.1%}</td><td class="n">{last.boundary_f:.1%}' in html
    assert last.boundary_f > first.boundary_f
    assert f">{last.class_boundary_f[1]:.1%}</td></tr><tr><td>{NAMES[2]}" in html
    assert "CRF iterations" in html
    assert "<b>" not in html


def test_pairs_that_cannot_be_used_are_told_and_not_counted(folders: MaskFolders) -> None:
    bad = folders.select("val")[1]
    cv2.imwrite(str(folders.path(bad.mask)), np.full(SIZE, 9, np.uint8))
    material = SegmentMaterial(folders, LABELS)
    result = evaluate_segmenter(by_colour, material, folders.select("val"))
    assert "boundary" not in render_evaluation(result, NAMES, "shapes", "visionkit eval segment")
    assert [problem.name for problem in result.problems] == [bad.name]
    assert len(result.samples) == 2
    assert int(result.answers[0].confusion.sum()) == 2 * SIZE[0] * SIZE[1]
    with pytest.raises(InputError, match="no pair to measure"):
        evaluate_segmenter(by_colour, material, [bad])
    with pytest.raises(InputError):
        evaluate_segmenter(by_colour, material, [])


def test_a_model_with_other_classes_is_refused(folders: MaskFolders) -> None:
    with pytest.raises(ModelError) as caught:
        evaluate_segmenter(lambda image: by_colour(image)[..., :3], SegmentMaterial(folders, LABELS), folders.samples)
    assert caught.value.slug == "model-unfit"
