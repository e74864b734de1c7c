"""A loop, as suppression asks one, in an `.onnx`."""

from __future__ import annotations

import numpy as np
import onnxruntime
import tensorflow as tf

from visionkit.layers.rows import kept_greedily
from visionkit.runtime.base import TensorSpec
from visionkit.runtime.convert import NamedCall, convert_named_onnx
from visionkit.runtime.tensorflow_runtime import traced_function


def test_a_loop_is_in_an_onnx_and_takes_as_many_rounds_as_it_needs():
    left = np.arange(9, dtype=np.float32)  # each overlaps the next by half: the chain of suppressions is nine long
    boxes = np.stack([left, 0 * left, left + 2, 0 * left + 3], axis=-1)[None]
    call = NamedCall(
        lambda boxes: {"kept": tf.cast(kept_greedily(boxes, boxes[..., 0] > -1, 0.3), tf.float32)},
        (TensorSpec("boxes", boxes.shape, np.dtype(np.float32)),),
    )
    session = onnxruntime.InferenceSession(convert_named_onnx(call), providers=["CPUExecutionProvider"])
    kept = session.run(["kept"], {"boxes": boxes})[0]
    np.testing.assert_array_equal(kept, [[1, 0, 1, 0, 1, 0, 1, 0, 1]])


def test_a_condition_in_python_is_traced_too():
    def call(x):
        return -x if tf.reduce_sum(x) < 0 else x

    traced = traced_function(call, tf.TensorSpec((2,), tf.float32))
    for given in ([1.0, 2.0], [-3.0, 1.0]):
        assert traced(tf.constant(given)).numpy().tolist() == (given if sum(given) > 0 else [-x for x in given])
