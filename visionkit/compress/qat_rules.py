"""What eight-bit arithmetic can do of each kind of layer, as LiteRT and its converter have it."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import keras

from visionkit.compress.fold import activation_name
from visionkit.compress.graph import Step
from visionkit.compress.quant_layers import TWINS
from visionkit.layers import AdaptiveAveragePooling2D, CeilMaxPooling2D

__all__ = ["FLOAT", "NORM", "OWN", "RECTIFIER", "SAME", "WEIGHTS", "Role", "role_of"]

WEIGHTS = "weights"  # calculates with weights; its output has a scale of its own
OWN = "own"  # its output has a scale of its own, but no weights
SAME = "same"  # moves or picks numbers: all it takes and gives has one scale
RECTIFIER = "rectifier"  # part of the operation before it, if that is used for nothing else
NORM = "norm"  # goes into the weights before it when the training is over
FLOAT = "float"  # stays as it is

Range = tuple[float, float]


class Role(NamedTuple):
    """What becomes of a step.

    Args:
        kind: one of the words above.
        reason: why it stays in float.
        fixed: the range that LiteRT prescribes for its output, or that clips it.
        middle: it keeps the scale, but makes numbers between the levels, and rounds those in the middle thus.
    """

    kind: str
    reason: str = ""
    fixed: Range | None = None
    middle: str = ""


ACTIVATIONS = {
    "linear": Role(SAME),
    "relu": Role(RECTIFIER),
    "relu6": Role(RECTIFIER),
    "relu1": Role(RECTIFIER, fixed=(0.0, 1.0)),
    "hard_silu": Role(OWN),
    "leaky_relu": Role(OWN),
    # LiteRT's kernels look these up in tables of these very steps
    "sigmoid": Role(OWN, fixed=(0.0, 255 / 256)),
    "softmax": Role(OWN, fixed=(0.0, 255 / 256)),
    "tanh": Role(OWN, fixed=(-1.0, 127 / 128)),
}
SAME_SCALE = (
    "AveragePooling2D",
    "Concatenate",
    "Cropping2D",
    "Dropout",
    "Flatten",
    "GaussianDropout",
    "GlobalMaxPooling2D",
    "Identity",
    "MaxPooling2D",
    "Permute",
    "Reshape",
    "SpatialDropout2D",
    "UpSampling2D",
    "ZeroPadding2D",
)
OWN_SCALE = ("Add", "GlobalAveragePooling2D", "Multiply", "Subtract")


def role_of(step: Step, keep_float: Sequence[str] = ()) -> Role:
    """What becomes of a step, judged by itself; `keep_float` holds patterns of names that stay as they are."""
    part = step.part
    if any(fnmatchcase(part.name, pattern) for pattern in keep_float):
        return Role(FLOAT, "kept in float as asked")
    if not issubclass(part.kind, keras.layers.Layer):
        return Role(FLOAT, f"{part.kind.__name__} is a raw operation, no layer")
    if part.config.get("data_format") == "channels_first":
        return Role(FLOAT, "channels come first")
    if any(not value.dtype.startswith("float") for value in (*step.inputs, *step.outputs)):
        return Role(FLOAT, "takes or gives numbers that are not floating")
    if part.kind in TWINS:
        return Role(WEIGHTS)
    name = part.kind.__name__
    if name in ("ReLU", "LeakyReLU", "Softmax", "Activation"):
        activation = activation_name(part)
        return ACTIVATIONS.get(activation or "", Role(FLOAT, f"no eight-bit form of {_told(activation, name)}"))
    if name in SAME_SCALE:
        return Role(SAME, middle="away" if name == "AveragePooling2D" else _resized(part.config))
    if name in OWN_SCALE:
        count = len(step.inputs)
        return Role(OWN) if count <= 2 else Role(FLOAT, f"{name} of {count} tensors")
    return _special(step, name)


def _resized(config: dict[str, Any]) -> str:
    return "up" if config.get("interpolation") == "bilinear" else ""


def _told(activation: str | None, layer: str) -> str:
    return f"{layer} with these arguments" if activation is None else activation


def _special(step: Step, name: str) -> Role:
    """Layers whose arguments or sizes decide."""
    config, shape = step.part.config, step.inputs[0].shape if step.inputs else ()
    if name == "Resizing":
        plain = config["interpolation"] in ("bilinear", "nearest") and not (
            config["crop_to_aspect_ratio"] or config["pad_to_aspect_ratio"] or config["antialias"]
        )
        return (
            Role(SAME, middle=_resized(config))
            if plain
            else Role(FLOAT, "a resizing other than plain bilinear or nearest")
        )
    if step.part.kind is CeilMaxPooling2D:
        exact = _without_padding(step)
        return Role(SAME) if exact else Role(FLOAT, "pads with minus infinity, which has no level")
    if step.part.kind is AdaptiveAveragePooling2D:
        same = tuple(shape[1:3]) == tuple(step.output.shape[1:3])
        return Role(SAME) if same else Role(FLOAT, "means over windows of unequal sizes")
    if name == "BatchNormalization":
        return Role(FLOAT, "a normalisation that no layer with weights precedes by itself")
    return Role(FLOAT, f"no eight-bit form of {name}")


def _without_padding(step: Step) -> bool:
    layer: Any = step.part.made()
    sizes = step.inputs[0].shape[1:3]
    if None in sizes:
        return False
    return layer._is_same(step.inputs[0].shape) or not any(n for pair in layer._margins(sizes) for n in pair)
