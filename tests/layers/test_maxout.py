"""Maxout units: the largest of several affine maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from visionkit.layers.maxout import Maxout
from visionkit.runtime import compile_model

RNG = np.random.default_rng(0)


def test_it_takes_the_largest_affine_map_of_each_unit() -> None:
    x = RNG.normal(size=(3, 4, 5, 6)).astype(np.float32)
    layer = Maxout(2, pieces=3)
    layer.build(x.shape)
    kernel, bias = RNG.normal(size=(6, 6)).astype(np.float32), RNG.normal(size=6).astype(np.float32)
    layer.set_weights([kernel, bias])
    want = np.stack(
        [np.max([x @ kernel[:, j] + bias[j] for j in range(3 * i, 3 * i + 3)], axis=0) for i in range(2)], axis=-1
    )
    assert np.allclose(layer(x), want, atol=1e-5)
    assert layer.compute_output_shape(x.shape) == want.shape


def test_two_pieces_make_the_absolute_value() -> None:
    layer = Maxout(1, pieces=2)
    layer.build((None, 1))
    layer.set_weights([np.float32([[1, -1]]), np.zeros(2, np.float32)])
    assert np.array_equal(layer(np.float32([[-2], [0], [3]])), np.float32([[2], [0], [3]]))


def test_it_runs_in_litert_and_survives_its_config(tmp_path: Path) -> None:
    x = RNG.normal(size=(1, 4, 5, 6)).astype(np.float32)
    image = keras.Input((4, 5, 6), name="image")
    model = keras.Model(image, Maxout(7, 3, name="maxout")(image))
    with compile_model(model, runtime="litert", cache_dir=tmp_path) as runner:
        assert np.allclose(runner(image=x)["maxout"], model(x), atol=1e-5)
    again = keras.Model.from_config(model.get_config())
    again.set_weights(model.get_weights())
    assert np.array_equal(again(x), model(x))


@pytest.mark.parametrize(
    ("arguments", "says"), [({"channels": 0}, "channels=0"), ({"channels": 2, "pieces": 1.5}, "pieces=1.5")]
)
def test_it_names_a_bad_argument(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Maxout(**arguments)
