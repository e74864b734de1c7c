"""A classifier with its fully connected layers cut, as a file: as good as its card where the kernel allows it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.compress import planted
from visionkit.compress.truncate import ranks_for, truncate_classifier
from visionkit.compress.variants import KINDS, Workshop, build_variant
from visionkit.errors import ModelError
from visionkit.export.verify import check_probes
from visionkit.runtime.quiet import import_keras
from visionkit.tasks import load_classifier

LARGE = 120 * 84  # of the layer f6
RANK = 12  # a quarter of its weights: 12 * (120 + 84) of 10,080 are 24 %


def card_of_rank(root, rank: int):
    """A card whose layer f6 has a kernel of that rank; its answers are spread."""
    import_keras().utils.set_random_seed(3)
    from visionkit import nets

    model = nets.lenet5(classes=len(planted.LABELS), channels=3, activation="relu")
    layer = model.get_layer("f6")
    kernel, bias = (np.array(value) for value in layer.get_weights())
    left, values, right = np.linalg.svd(kernel, full_matrices=False)
    layer.set_weights([(left[:, :rank] * values[:rank]) @ right[:rank], bias])
    last = model.get_layer("logits")
    last.kernel.assign(last.kernel * 40)
    return planted.write_card(root, model)


def probabilities(model, images) -> np.ndarray:
    task = load_classifier(model, runtime="keras" if model.is_dir() else "litert", topk=6)
    found = [task(image) for image in images]
    task.close()
    return np.array([one.confidence[np.argsort(one.class_id)] for one in found])


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(2)
    return [planted.made_image(rng, label) for label in planted.LABELS]


@pytest.mark.parametrize("rank", [RANK, 84])
def test_answers_stay_where_the_kernel_has_no_more_than_the_rank(tmp_path, images, rank) -> None:
    card = card_of_rank(tmp_path / "card", rank)
    made, spared = truncate_classifier(str(card), tmp_path / "net.tflite", large=LARGE)
    told = spared["f6"]
    assert (told.rank, told.before, told.after) == (RANK, 10080, 2448)
    assert made.kind == "svd"
    assert made.made["truncated"]["f6"]["rank"] == RANK
    assert all(row.ok for row in check_probes(made))
    before, after = probabilities(card, images), probabilities(made.path, images)
    assert before.std(axis=0).max() > 0.05
    apart = float(np.abs(before - after).max())
    if rank == RANK:
        assert told.error < 1e-5
        assert apart < 1e-4
    else:  # the control: what is cut off from a kernel of full rank is missed
        assert told.error > 0.3
        assert apart > 1e-2


def test_small_layers_and_answers_are_left_whole(tmp_path) -> None:
    keras = import_keras()
    image = keras.Input((8, 8, 2))
    x = keras.layers.Dense(64, name="fc6")(keras.layers.Flatten()(image))
    x = keras.layers.Dense(8, name="fc7")(x)
    model = keras.Model(image, keras.layers.Dense(512, name="logits")(x))
    assert ranks_for(model, large=4000) == {"fc6": 10}  # 0.25 * 128 * 64 / 192
    variant = build_variant(
        KINDS["svd"],
        Workshop(tmp_path, str(card_of_rank(tmp_path / "card", 84)), data=None, calibration=list),
        tmp_path / "none.tflite",
    )
    assert variant.path is None
    assert "no fully connected layer of 1,000,000 weights" in str(variant.failed)
    assert not (tmp_path / "none.tflite").exists()


def test_other_tasks_are_refused(tmp_path) -> None:
    with pytest.raises(ModelError, match="truncated are classifiers"):
        truncate_classifier("skin", tmp_path / "skin.tflite")
    with pytest.raises(ValueError, match=r"above 0 and below 1\. Received: share=1"):
        truncate_classifier("sign_digits", tmp_path / "x.tflite", share=1)
