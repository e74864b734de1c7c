"""Exported models for tests of what loads them: as `visionkit export` writes them, without trying each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

SUFFIXES = {"litert": ".tflite", "savedmodel": "", "keras": ".keras", "onnx": ".onnx", "openvino": ".xml"}


def made_artifact(folder: Path, kind: str, **options) -> Path:
    """The card in `folder` as a file of this format beside it; `options` are of `ExportOptions`."""
    from visionkit.export.formats import find_format
    from visionkit.export.plan import ExportOptions, make_plan
    from visionkit.export.signatures import Signatures
    from visionkit.weights import load_card
    from visionkit.weights.artifact import attach, describe_artifact

    path = folder.parent / f"{folder.name}_{kind}{SUFFIXES[kind]}"
    asked = ExportOptions(kind, **options)
    plan = make_plan(load_card(f"{folder}/"), asked)
    size_hw = plan.fit(np.zeros((90, 120, 3), np.uint8)).shape[:2]
    find_format(kind).write(Signatures(plan, asked, size_hw), path, False)
    parts = {} if kind in ("onnx", "openvino") else plan.parts
    attach(path, describe_artifact(plan.card, parts=parts), {})
    return path


def int8_artifact(folder: Path, path: Path, images: Sequence[np.ndarray], *, floats: bool = False) -> Path:
    """The card of a classifier in `folder` as a `.tflite` of integers, calibrated on images; with floats in and out."""
    import tensorflow as tf

    from visionkit.export.plan import ExportOptions, make_plan
    from visionkit.runtime.quiet import quiet
    from visionkit.weights import load_card
    from visionkit.weights.artifact import attach, describe_artifact

    plan = make_plan(load_card(f"{folder}/"), ExportOptions("litert"))
    model = plan.raw["raw"]
    spec = tf.TensorSpec((1, *model.inputs[0].shape[1:]), tf.float32, name="image")
    with quiet():
        module = tf.Module()
        module.kept = [variable._value for variable in model.variables]
        module.raw = tf.function(lambda image: {"logits": model(image, training=False)}).get_concrete_function(spec)
        tf.saved_model.save(module, str(path.with_suffix("")), signatures={"raw": module.raw})
        converter = tf.lite.TFLiteConverter.from_saved_model(str(path.with_suffix("")), signature_keys=["raw"])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        fed = [plan.raw_inputs(image)["raw"] for image in images]
        converter.representative_dataset = lambda: iter(fed)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if not floats:
            converter.inference_input_type = converter.inference_output_type = tf.int8
        path.write_bytes(converter.convert())
    kind = "int8" if floats else "int8-io"
    attach(path, describe_artifact(plan.card, kind=kind, parts=plan.parts), {})
    return path
