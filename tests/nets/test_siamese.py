"""The Siamese networks: sizes of the papers, equivariance (TRK-7), and the two halves of SiamBox."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from visionkit.nets.siambox import cell_centers, siambox, siambox_exemplar, siambox_search
from visionkit.nets.siamfc import siamfc, siamfc_branch


def image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (1, height, width, 3)).astype(np.float32)


def test_siamfc_has_the_papers_sizes() -> None:
    branch = siamfc_branch()
    assert branch.compute_output_shape((2, 127, 127, 3)) == (2, 6, 6, 256)
    assert branch.compute_output_shape((2, 255, 255, 3)) == (2, 22, 22, 256)
    assert siamfc().output["response"].shape == (None, 17, 17, 1)
    # 11*11*3*96 + 5*5*48*256 + 3*3*256*384 + 3*3*192*384 + 3*3*192*256, their biases, 4 numbers a BN channel
    kernels = 34_848 + 307_200 + 884_736 + 663_552 + 442_368
    biases, norms = 96 + 256 + 384 + 384 + 256, 4 * (96 + 256 + 384 + 384)
    assert branch.count_params() == kernels + biases + norms


def shifted(branch: keras.Model, pixels: int, cells: int) -> float:
    """Largest difference between features of a shifted image and shifted features, relative to their range."""
    whole = image(160, 200)
    a = np.asarray(branch(whole[:, :135, :135], training=False))
    b = np.asarray(branch(whole[:, :135, pixels : 135 + pixels], training=False))
    width = a.shape[2] - cells
    return float(np.abs(b[:, :, :width] - a[:, :, cells:]).max() / np.abs(a).max())


def test_trk7_a_shift_by_8k_pixels_shifts_features_by_k() -> None:
    keras.utils.set_random_seed(0)
    branch = siamfc_branch()
    assert shifted(branch, 8, 1) < 1e-5
    assert shifted(branch, 16, 2) < 1e-5


def test_trk7_other_shifts_and_padding_would_be_found() -> None:
    keras.utils.set_random_seed(0)
    branch = siamfc_branch()
    assert shifted(branch, 5, 1) > 0.05
    padded_input = keras.Input((None, None, 3))
    x = padded_input
    for layer in branch.layers[1:]:
        config = layer.get_config()
        if isinstance(layer, layers.Conv2D | layers.MaxPooling2D):
            config["padding"] = "same"
        x = type(layer).from_config(config)(x)
    padded = keras.Model(padded_input, x)
    assert shifted(padded, 8, 1) > 0.05


@pytest.fixture(scope="module")
def box_net() -> keras.Model:
    keras.utils.set_random_seed(1)
    return siambox(stem=4, features=8, width=8, depth=1)


COVER = np.pad(np.ones((1, 4, 6, 1), np.float32), ((0, 0), (2, 2), (1, 1), (0, 0)))


def test_siambox_outputs_a_score_and_a_box_per_cell(box_net: keras.Model) -> None:
    out = box_net({"exemplar": image(96, 96), "exemplar_cover": COVER, "search": image(192, 192, 1)}, training=False)
    assert out["logits"].shape == (1, 24, 24, 1)
    assert out["ltrb"].shape == (1, 24, 24, 4)
    assert (np.asarray(out["ltrb"]) > 0).all()


def test_siambox_halves_equal_the_whole(box_net: keras.Model) -> None:
    exemplar, search = image(96, 96), image(192, 192, 1)
    whole = box_net({"exemplar": exemplar, "exemplar_cover": COVER, "search": search}, training=False)
    z = siambox_exemplar(box_net)({"exemplar": exemplar}, training=False)
    feed = {"exemplar_features": np.asarray(z["exemplar_features"]), "exemplar_cover": COVER, "search": search}
    half = siambox_search(box_net)(feed, training=False)
    assert np.allclose(half["ltrb"], whole["ltrb"], rtol=1e-5)
    assert np.allclose(half["scores"], keras.ops.sigmoid(whole["logits"]), atol=1e-6)


def test_siambox_sees_the_shape_of_the_exemplars_box(box_net: keras.Model) -> None:
    feed = {"exemplar": image(96, 96), "exemplar_cover": COVER, "search": image(192, 192, 1)}
    wide = np.asarray(box_net(feed, training=False)["ltrb"])
    tall = np.asarray(box_net({**feed, "exemplar_cover": COVER.transpose(0, 2, 1, 3)}, training=False)["ltrb"])
    assert np.abs(wide - tall).max() > 1e-3


def test_siambox_weights_survive_a_file(box_net: keras.Model, tmp_path: object) -> None:
    path = f"{tmp_path}/w.weights.h5"
    box_net.save_weights(path)
    again = siambox(stem=4, features=8, width=8, depth=1)
    again.load_weights(path)
    feed = {"exemplar": image(96, 96), "exemplar_cover": COVER, "search": image(192, 192, 1)}
    assert np.array_equal(again(feed, training=False)["logits"], box_net(feed, training=False)["logits"])


def test_cell_centers_lie_in_the_middle_of_their_stride() -> None:
    centers = cell_centers(24)
    assert centers[0, 0].tolist() == [4, 4]
    assert centers[2, 5].tolist() == [44, 20]  # x from the column, y from the row
    assert (centers.min() + centers.max()) == 192


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"exemplar_size": 100}, "exemplar_size"),
        ({"search_size": 56}, "search_size"),
        ({"layers": 3}, "Unknown sizes: layers"),
    ],
)
def test_siambox_names_a_bad_size(arguments: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        siambox(**arguments)


def test_siamfc_names_a_bad_size() -> None:
    with pytest.raises(ValueError, match="exemplar_size=300"):
        siamfc(exemplar_size=300)
