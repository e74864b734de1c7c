"""A network replaced inside other signatures, and files taken apart and put together."""

from __future__ import annotations

import numpy as np
import pytest

from tests.compress.networks import INPUT, SIZE_HW, answers, as_tflite, fed, inputs_for, residual_net
from visionkit.compress.graft import GraftError, found_inputs, graft, integer_ends
from visionkit.compress.operations import float_operations, list_operations
from visionkit.compress.ptq import rebuild
from visionkit.compress.quantize_network import quantize_network
from visionkit.errors import ModelError
from visionkit.runtime.quiet import import_keras
from visionkit.runtime.tflite_file import merge_signatures, read_model, split_signatures, write_model

LEVELS = 255.0


def around(model):
    """Levels made the network's input before it, probabilities after it."""
    keras = import_keras()
    image = keras.Input((*SIZE_HW, 3), name="levels")
    x = keras.layers.Rescaling(2 / LEVELS, -1.0, name="prepare")(image)
    return keras.Model(image, keras.layers.Softmax(name="probabilities")(model(x)))


def before(model):
    """The network's pooled features."""
    keras = import_keras()
    return keras.Model(model.input, model.get_layer("pool").output)


@pytest.fixture(scope="module")
def parts() -> dict[str, bytes]:
    model = residual_net()
    return {"raw": as_tflite(model), "serving_default": as_tflite(around(model)), "embed": as_tflite(before(model))}


@pytest.fixture(scope="module")
def network(parts) -> bytes:
    return quantize_network(parts["raw"], fed(inputs_for(24)), kind="int8", engine="tensorflow").content


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def test_serving_answers_as_the_new_network_does(parts, network):
    made = graft(parts["serving_default"], parts["raw"], network)
    inputs = inputs_for(8, seed=1)
    levels = [(array + 1) * LEVELS / 2 for array in inputs]
    wanted = softmax(answers(network, inputs))
    np.testing.assert_allclose(answers(made, levels), wanted, atol=1e-6)
    assert np.abs(answers(parts["serving_default"], levels) - wanted).max() > 1e-4  # the float network is another one
    kinds = {row.kind for row in float_operations(list_operations(made))}
    assert kinds == {"MUL", "ADD", "SOFTMAX"}


def test_a_part_of_the_network_is_taken_out_of_it(parts, network):
    made = graft(parts["embed"], parts["raw"], network)
    inputs = inputs_for(8, seed=1)
    expected, found = answers(parts["embed"], inputs), answers(made, inputs)
    assert 1e-5 < np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    assert not float_operations(list_operations(made))
    assert "FULLY_CONNECTED" not in {row.kind for row in list_operations(made)}


def test_every_weight_lies_in_the_file_once(parts, network):
    rebuilt = rebuild(parts, {"raw": network})
    assert rebuilt.dropped == {}
    alone = len(write_model(read_model(network)))
    weights = 16 * 27 + 16 * 9 + 16 * 16 + 32 * 9 * 16 + 32 * 5
    assert len(rebuilt.content) < 3 * alone - 2 * weights
    assert set(split_signatures(rebuilt.content)) == set(parts)


def test_a_signature_without_the_network_is_dropped(parts, network):
    others = {**parts, "embed": as_tflite(before(residual_net(seed=7)))}
    rebuilt = rebuild(others, {"raw": network})
    assert set(split_signatures(rebuilt.content)) == {"raw", "serving_default"}
    assert "in common" in rebuilt.dropped["embed"]


def test_another_way_to_compute_the_middle_is_refused(parts, network):
    """A host with the same ends and another layer between them has not the same network."""
    model = residual_net()
    point = model.get_layer("block.point")
    point.kernel.assign(point.kernel.numpy() * 1.5)
    with pytest.raises(GraftError, match="another way"):
        graft(as_tflite(around(model)), parts["raw"], network)


def test_where_the_network_begins_is_found(parts):
    places = found_inputs(parts["serving_default"], parts["raw"])
    assert places is not None
    assert list(places) == [INPUT]
    assert found_inputs(as_tflite(around(residual_net(seed=7))), parts["raw"]) is None


def test_ends_become_integers(parts, network):
    made = integer_ends(network)
    rows = list_operations(made)
    assert {kind for row in rows for kind in row.outputs} == {"int8"}
    inputs = inputs_for(8, seed=1)
    np.testing.assert_allclose(answers(made, inputs), answers(network, inputs), atol=1e-6)


def test_signatures_are_parted_and_joined_again(parts):
    whole = merge_signatures(parts)
    assert len(whole) < sum(map(len, parts.values())) - 2 * 4 * 4_600  # the large convolution's weights, twice
    inputs = inputs_for(3)
    for name, part in split_signatures(whole).items():
        np.testing.assert_array_equal(answers(part, inputs), answers(parts[name], inputs))


def test_written_twice_it_is_the_same(parts):
    model = read_model(parts["raw"])
    assert write_model(model) == write_model(model)


def test_scales_are_shared_between_signatures(network):
    """Two signatures of one network cost little more than one: weights, scales and zero points are written once."""
    one, two = (len(merge_signatures(dict.fromkeys(names, network))) for names in (("a",), ("a", "b")))
    assert two - one < 0.45 * one


def test_no_flatbuffer_is_told():
    with pytest.raises(ModelError) as caught:
        read_model(b"\0" * 64)
    assert caught.value.slug == "model-corrupt"
