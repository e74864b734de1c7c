"""Detectors at random whose answers differ from place to place, as those of a trained one do."""

from __future__ import annotations

import keras
import numpy as np

from visionkit.nets.blocks import layer_name

# layers with weights, the layer where their answer is read, and how far it is to spread
SPREAD = (
    ("rpn.head.cls_logits", "rpn_objectness_0", 1.0),
    ("rpn.head.bbox_pred", "rpn_deltas_0", 0.15),
    ("roi_heads.box_predictor.cls_score", "", 1.0),
    ("roi_heads.box_predictor.bbox_pred", "", 0.5),
    ("roi_heads.mask_predictor.mask_fcn_logits", "", 0.3),
)

# of a detector of one stage, parts of the names of its last layers
LAST = (("classification_head", 3.0), ("regression_head", 0.3))


def spread(model: keras.Model, images: np.ndarray) -> None:
    """Give a fresh network of two stages, whose answers are all alike, statistics of images, and answers that differ.

    Args:
        images: float32 (B, H, W, 3), of the network's size and range.
    """
    inputs = [images, np.array([images.shape[1:3]] * len(images), np.float32)]
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0  # statistics become those of the next call
    model(inputs, training=True)
    for name, read, wanted in SPREAD:
        found = [layer for layer in model.layers if layer.name == layer_name(name)]
        for layer in found:
            out = model.get_layer(read).output if read else layer.output
            values = np.asarray(keras.Model(model.inputs, out)(inputs, training=False))
            kernel, *rest = layer.get_weights()
            layer.set_weights([kernel * wanted / values.std(), *rest])


def spread_levels(model: keras.Model, images: np.ndarray) -> None:
    """The same for one stage, of which each level answers by layers of its own; its statistics stay."""
    for head, wanted in LAST:
        found = [layer for layer in model.layers if head in layer.name and getattr(layer, "use_bias", False)]
        outputs = keras.Model(model.input, [layer.output for layer in found])(images, training=False)
        for layer, values in zip(found, outputs, strict=True):
            layer.kernel.assign(layer.kernel * wanted / np.std(np.asarray(values)))
