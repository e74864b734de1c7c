"""SEG-4 and CRF-5: finer skips segment better, and a dense CRF sharpens each network; minutes of learning."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers

from tests.train.rendered_masks import scene
from visionkit.crf import CRFParams, mean_field, unary_from_probs
from visionkit.evaluate.boundaries import trimap_counts
from visionkit.evaluate.segment_metrics import score_segmentation
from visionkit.nets.blocks import conv_norm
from visionkit.nets.fcn import fcn
from visionkit.train.segment_goal import PixelLoss

# Three networks learn for 12 epochs each, about 100 seconds of a core apiece. Seen: mean IU .582, .700 and .761, with
# the CRF .770, .811 and .836; accuracy within 3 pixels of an edge .543, .682, .772, with the CRF .861, .890, .903.
pytestmark = pytest.mark.slow

SIZE = (96, 96)
LEARNT, HELD, EPOCHS = 1600, 80, 12
WIDTHS = (16, 24, 40, 64, 96)
BAND = 3
Maps = npt.NDArray[np.uint8]


def pictures(count: int, seed: int) -> tuple[Maps, Maps]:
    pairs = [scene(np.random.default_rng((seed, k)), SIZE, count=3, telling=False) for k in range(count)]
    return np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


def inputs(images: Maps) -> npt.NDArray[np.float32]:
    return (images.astype(np.float32) - 100) / 60


def backbone(image: Any) -> list[Any]:
    """Maps at strides 8, 16 and 32."""
    x, maps = image, []
    for stage, width in enumerate(WIDTHS):
        for part in range(1 if stage < 2 else 2):
            x = conv_norm(x, width, 3, names=(f"stage{stage}.{part}.conv", f"stage{stage}.{part}.norm"), padding=1)
        x = layers.MaxPooling2D(2, name=f"stage{stage}.pool")(x)
        maps.append(x)
    return maps[2:]


def learn(skips: int) -> keras.Model:
    keras.utils.set_random_seed(skips)
    network = fcn(backbone, skips=skips, classes=4, size_hw=SIZE, name=f"fcn{32 >> skips}s")
    images, masks = pictures(LEARNT, 0)
    rate = keras.optimizers.schedules.PolynomialDecay(4e-3, EPOCHS * LEARNT // 8, 1e-5, power=0.9)
    network.compile(optimizer=keras.optimizers.Adam(rate), loss=PixelLoss(np.ones(4)))
    network.fit(inputs(images), masks.astype(np.int32), batch_size=8, epochs=EPOCHS, verbose=0)
    return network


def probabilities(network: keras.Model, images: Maps) -> npt.NDArray[np.float32]:
    rows = [np.asarray(network.predict_on_batch(inputs(images[k : k + 8]))) for k in range(0, len(images), 8)]
    logits = np.concatenate(rows)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def band_accuracy(truth: Maps, answer: npt.NDArray[np.integer[Any]]) -> float:
    counts = sum(trimap_counts(t, a, 4, widths=(BAND,))[0] for t, a in zip(truth, answer, strict=True))
    return float(np.trace(counts) / np.sum(counts))


@pytest.fixture(scope="module")
def learnt() -> dict[int, npt.NDArray[np.float32]]:
    """Probabilities of the held pictures by stride: FCN-32s, 16s, 8s."""
    images, _ = pictures(HELD, 1)
    return {32 >> skips: probabilities(learn(skips), images) for skips in (0, 1, 2)}


def test_finer_skips_segment_better(learnt: dict[int, npt.NDArray[np.float32]]) -> None:
    """SEG-4: 32s < 16s < 8s, 8s at least 0.70."""
    _, truth = pictures(HELD, 1)
    scores = {stride: score_segmentation(truth, probs.argmax(-1), 4).mean_iu for stride, probs in learnt.items()}
    assert scores[32] < scores[16] < scores[8], scores
    assert scores[8] >= 0.70, scores


def test_a_crf_sharpens_each_network(learnt: dict[int, npt.NDArray[np.float32]]) -> None:
    """CRF-5: 10 iterations add 0.05 of mean IU, and 0.10 of accuracy within 3 pixels of an edge."""
    images, truth = pictures(HELD, 1)
    params = CRFParams(iterations=10)
    for stride, probs in learnt.items():
        pairs = zip(probs, images, strict=True)
        refined = np.stack([mean_field(unary_from_probs(p), image, params).argmax(-1) for p, image in pairs])
        before, after = (score_segmentation(truth, a, 4).mean_iu for a in (probs.argmax(-1), refined))
        edges = [band_accuracy(truth, answer) for answer in (probs.argmax(-1), refined)]
        assert after >= before + 0.05, (stride, before, after)
        assert edges[1] >= edges[0] + 0.10, (stride, edges)
