"""Runs an exported model in its plain runtime. A script: `python -I alone.py REQUEST.json`, without VisionKit.

The request is JSON: `format`, `model` (a path), `feeds` and `answers` (paths of `.npz`), `calls` (each a `signature`
and its `inputs`, from their names to keys of `feeds`); for Keras, `modules` to import that register layers, found on
`path`. Written are the answers, as `CALL/OUTPUT`, and `loaded`,
the names of the packages that are in memory.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Arrays = dict[str, Any]
Calls = Callable[[str, Arrays], Arrays]


def hide(package: str) -> None:
    """From here on nothing can import it, as if it were not installed."""
    sys.modules[package] = None  # type: ignore[assignment]


def savedmodel(request: dict[str, Any]) -> Calls:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    hide("keras")  # TensorFlow imports it where it is installed, which takes as long as TensorFlow itself
    import tensorflow as tf

    loaded = tf.saved_model.load(request["model"])

    def call(signature: str, feed: Arrays) -> Arrays:
        tensors = {name: tf.constant(array) for name, array in feed.items()}
        return {name: tensor.numpy() for name, tensor in loaded.signatures[signature](**tensors).items()}

    return call


def litert(request: dict[str, Any]) -> Calls:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        interpreter = Interpreter(request["model"])
        interpreter.allocate_tensors()
    except RuntimeError:  # XNNPACK raises on what it cannot take over
        plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = Interpreter(request["model"], experimental_op_resolver_type=plain)
        interpreter.allocate_tensors()
    return lambda signature, feed: interpreter.get_signature_runner(signature)(**feed)


def onnx(request: dict[str, Any]) -> Calls:
    import onnxruntime

    session = onnxruntime.InferenceSession(request["model"], providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_outputs()]
    return lambda _, feed: dict(zip(names, session.run(names, feed), strict=True))


def openvino(request: dict[str, Any]) -> Calls:
    import openvino as ov

    model = ov.Core().compile_model(request["model"], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def call(_: str, feed: Arrays) -> Arrays:
        found = model(feed)
        return {port.get_any_name(): np.array(found[port]) for port in model.outputs}

    return call


def keras(request: dict[str, Any]) -> Calls:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    hide("sklearn")  # Keras imports it where it is installed, for a second
    import keras as library

    sys.path += request.get("path", [])
    for module in request.get("modules", []):
        importlib.import_module(module)
    model = library.saving.load_model(request["model"], compile=False, safe_mode=True)

    def call(_: str, feed: Arrays) -> Arrays:
        tensors = [library.ops.convert_to_tensor(feed[tensor.name]) for tensor in model.inputs]
        found = model(library.tree.pack_sequence_as(model.input, tensors), training=False)
        flat = enumerate(library.tree.flatten(found))
        return {str(place): library.ops.convert_to_numpy(tensor) for place, tensor in flat}

    return call


RUNTIMES = {"savedmodel": savedmodel, "litert": litert, "onnx": onnx, "openvino": openvino, "keras": keras}


def main(path: str) -> None:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        request = json.load(file)
    call = RUNTIMES[request["format"]](request)
    answers: Arrays = {}
    with np.load(request["feeds"]) as feeds:
        for place, asked in enumerate(request["calls"]):
            feed = {name: feeds[key] for name, key in asked["inputs"].items()}
            answers |= {f"{place}/{name}": array for name, array in call(asked["signature"], feed).items()}
    packages = sorted({name.partition(".")[0] for name, module in sys.modules.items() if module is not None})
    np.savez(request["answers"], loaded=np.array(json.dumps(packages)), **answers)


if __name__ == "__main__":
    main(sys.argv[1])
