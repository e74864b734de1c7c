"""TRK-6: the cross-correlation layer against loops, and the mistakes it must not make."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from visionkit.layers.correlation import CrossCorrelation


def features(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def by_loops(exemplar: np.ndarray, search: np.ndarray) -> np.ndarray:
    batch, h, w, channels = exemplar.shape
    out = np.zeros((batch, search.shape[1] - h + 1, search.shape[2] - w + 1, channels))
    for b in range(batch):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                out[b, y, x] = (search[b, y : y + h, x : x + w].astype(np.float64) * exemplar[b]).sum((0, 1))
    return out


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.fixture(scope="module")
def maps() -> tuple[np.ndarray, np.ndarray]:
    return features(3, 6, 6, 16), features(3, 22, 22, 16, seed=1)


def test_trk6_full_equals_loops_at_the_papers_size(maps: tuple[np.ndarray, np.ndarray]) -> None:
    response = np.asarray(CrossCorrelation("full")(list(maps)))
    assert response.shape == (3, 17, 17, 1)
    assert relative(response[..., 0], by_loops(*maps).sum(-1)) < 1e-4


def test_trk6_depthwise_equals_loops_on_unequal_sides() -> None:
    exemplar, search = features(2, 3, 4, 5), features(2, 7, 9, 5, seed=1)
    response = np.asarray(CrossCorrelation("depthwise")([exemplar, search]))
    assert response.shape == (2, 5, 6, 5)
    assert relative(response, by_loops(exemplar, search)) < 1e-4


def test_full_equals_loops_on_unequal_sides() -> None:
    exemplar, search = features(2, 3, 4, 5), features(2, 7, 9, 5, seed=1)
    response = np.asarray(CrossCorrelation("full")([exemplar, search]))
    assert relative(response[..., 0], by_loops(exemplar, search).sum(-1)) < 1e-4


def test_pixelwise_channel_is_the_similarity_to_one_exemplar_position() -> None:
    exemplar, search = features(2, 3, 4, 5), features(2, 7, 9, 5, seed=1)
    response = np.asarray(CrossCorrelation("pixelwise")([exemplar, search]))
    assert response.shape == (2, 7, 9, 12)
    assert np.isclose(response[1, 2, 6, 1 * 4 + 3], (search[1, 2, 6] * exemplar[1, 1, 3]).sum(), rtol=1e-4)


def test_trk6_a_flipped_kernel_would_be_found(maps: tuple[np.ndarray, np.ndarray]) -> None:
    exemplar, search = maps
    flipped = np.asarray(CrossCorrelation("full")([exemplar[:, ::-1, ::-1], search]))
    assert relative(flipped[..., 0], by_loops(exemplar, search).sum(-1)) > 0.5


@pytest.mark.parametrize("mode", ["full", "depthwise", "pixelwise"])
def test_trk6_no_sample_meets_anothers_exemplar(mode: str, maps: tuple[np.ndarray, np.ndarray]) -> None:
    exemplar, search = maps
    layer = CrossCorrelation(mode)
    together = np.asarray(layer([exemplar, search]))
    for b in range(3):
        alone = np.asarray(layer([exemplar[b : b + 1], search[b : b + 1]]))
        assert relative(together[b : b + 1], alone) < 1e-5
    mixed = np.asarray(layer([exemplar[[1, 2, 0]], search]))
    assert relative(mixed, together) > 0.1


@pytest.mark.parametrize("mode", ["full", "depthwise", "pixelwise"])
def test_shape_and_config_round_trip(mode: str) -> None:
    layer = CrossCorrelation(mode, name="x")
    again = CrossCorrelation.from_config(layer.get_config())
    assert again.mode == mode
    shapes = [(None, 3, 4, 5), (None, 7, 9, 5)]
    said = layer.compute_output_shape(shapes)
    z, x = keras.Input(shapes[0][1:]), keras.Input(shapes[1][1:])
    assert again([z, x]).shape == said


@pytest.mark.parametrize(
    ("mode", "z", "x", "says"),
    [
        ("mean", (1, 3, 3, 2), (1, 5, 5, 2), "mode='mean'"),
        ("full", (1, 3, 3, 2), (1, 5, 5, 4), "same number of channels"),
        ("full", (1, 6, 3, 2), (1, 5, 5, 2), "must not be larger"),
        ("depthwise", (1, 3, 2), (1, 5, 5, 2), r"two maps \(B, H, W, C\)"),
    ],
)
def test_bad_arguments_are_named(mode: str, z: tuple[int, ...], x: tuple[int, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        CrossCorrelation(mode).build([z, x])
