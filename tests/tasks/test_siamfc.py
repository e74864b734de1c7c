"""TRK-10: SiamFC with random weights on a rendered sequence, and the mistakes that ruin it."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest

from visionkit.geometry.boxes import iou_aligned
from visionkit.nets.siamfc import siamfc_branch
from visionkit.tasks.siamfc import SiamFCOptions, SiamFCTracker
from visionkit.train.sequence import rendered_sequence


class RandomNet:
    """SiamFC's branch with random weights; the correlation is computed here, by an einsum over windows."""

    exemplar_size, search_size, stride = 127, 255, 8

    def __init__(self) -> None:
        keras.utils.set_random_seed(0)
        self.branch = siamfc_branch()

    def features(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self.branch(images.astype(np.float32), training=False))

    def encode(self, exemplar: np.ndarray) -> np.ndarray:
        return self.features(exemplar[None])[0]

    def respond(self, target: np.ndarray, searches: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(self.features(searches), (6, 6), axis=(1, 2))
        return np.einsum("syxcij,ijc->syx", windows, target, optimize=True).astype(np.float32)


def overlaps(tracker: SiamFCTracker, frames: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    tracks = [tracker.init(*frames[0])] + [tracker.update(image) for image, _ in frames[1:]]
    return iou_aligned([t.xyxy for t in tracks], [box for _, box in frames])


@pytest.fixture(scope="module")
def net() -> RandomNet:
    return RandomNet()


@pytest.fixture(scope="module")
def frames() -> list[tuple[np.ndarray, np.ndarray]]:
    return list(rendered_sequence(60, (240, 320), seed=0))


def test_trk10_random_weights_follow_a_textured_target(
    net: RandomNet, frames: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    found = overlaps(SiamFCTracker(net), frames)
    assert found.mean() >= 0.65
    assert found.min() >= 0.4


def test_trk10_forgetting_the_stride_would_be_found(
    net: RandomNet, frames: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    class Wrong(SiamFCTracker):
        def _peak(self, response: np.ndarray) -> np.ndarray:
            middle = self.matcher.search_size / 2
            return ((super()._peak(response) - middle) / self.matcher.stride + middle).astype(np.float32)

    assert overlaps(Wrong(net), frames[:20]).mean() < 0.4


def test_trk10_swapping_x_and_y_would_be_found(net: RandomNet, frames: list[tuple[np.ndarray, np.ndarray]]) -> None:
    class Wrong(SiamFCTracker):
        def _peak(self, response: np.ndarray) -> np.ndarray:
            return super()._peak(response)[::-1]

    assert overlaps(Wrong(net), frames[:20]).mean() < 0.4


def test_the_size_follows_only_with_scales(net: RandomNet, frames: list[tuple[np.ndarray, np.ndarray]]) -> None:
    rigid = SiamFCTracker(net, replace(SiamFCOptions(), scales=1))
    rigid.init(*frames[0])
    width = frames[0][1][2] - frames[0][1][0]
    for image, _ in frames[1:4]:
        box = rigid.update(image).xyxy
        assert box[2] - box[0] == pytest.approx(width, rel=1e-5)


def test_update_needs_init(net: RandomNet, frames: list[tuple[np.ndarray, np.ndarray]]) -> None:
    with pytest.raises(RuntimeError, match="call `init"):
        SiamFCTracker(net).update(frames[0][0])


@pytest.mark.parametrize(
    ("box", "says"),
    [((400, 10, 420, 30), "320 x 240"), ((10, 10, 10, 40), "area"), ((1, 2, 3), "four"), ((0, 0, np.nan, 9), "finite")],
)
def test_bad_boxes_are_named(net: RandomNet, box: tuple[float, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SiamFCTracker(net).init(np.zeros((240, 320, 3), np.uint8), box)
