"""Inception-v3 as torchvision has it: Szegedy et al., Rethinking the inception architecture, CVPR 2016."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import layers

from visionkit.nets.blocks import Classes, Pair, check_aux, classifier_head, conv_norm, image_input, layer_name

__all__ = ["inception_v3"]


class _Conv(NamedTuple):
    """One convolution with batch normalisation and ReLU; without `valid` its padding keeps the size."""

    name: str
    channels: int
    kernel: Pair = 1
    stride: int = 1
    valid: bool = False


# A branch is a chain of steps: convolutions, a pooling, or two convolutions side by side, joined.
_Step = _Conv | str | tuple[_Conv, _Conv]
_Mixed = tuple[tuple[_Step, ...], ...]
AVERAGE, MAX = "average", "max"
ROW, COLUMN = (1, 7), (7, 1)

STEM: tuple[_Conv | str, ...] = (
    _Conv("Conv2d_1a_3x3", 32, 3, 2, valid=True),
    _Conv("Conv2d_2a_3x3", 32, 3, valid=True),
    _Conv("Conv2d_2b_3x3", 64, 3),
    "maxpool1",
    _Conv("Conv2d_3b_1x1", 80),
    _Conv("Conv2d_4a_3x3", 192, 3, valid=True),
    "maxpool2",
)


def _mixed_a(pool: int) -> _Mixed:
    """Figure 5."""
    return (
        (_Conv("branch1x1", 64),),
        (_Conv("branch5x5_1", 48), _Conv("branch5x5_2", 64, 5)),
        (_Conv("branch3x3dbl_1", 64), _Conv("branch3x3dbl_2", 96, 3), _Conv("branch3x3dbl_3", 96, 3)),
        (AVERAGE, _Conv("branch_pool", pool)),
    )


def _mixed_c(width: int) -> _Mixed:
    """Figure 6, n = 7."""
    return (
        (_Conv("branch1x1", 192),),
        (_Conv("branch7x7_1", width), _Conv("branch7x7_2", width, ROW), _Conv("branch7x7_3", 192, COLUMN)),
        (
            _Conv("branch7x7dbl_1", width),
            _Conv("branch7x7dbl_2", width, COLUMN),
            _Conv("branch7x7dbl_3", width, ROW),
            _Conv("branch7x7dbl_4", width, COLUMN),
            _Conv("branch7x7dbl_5", 192, ROW),
        ),
        (AVERAGE, _Conv("branch_pool", 192)),
    )


# figure 10: fewer positions
MIXED_B: _Mixed = (
    (_Conv("branch3x3", 384, 3, 2, valid=True),),
    (
        _Conv("branch3x3dbl_1", 64),
        _Conv("branch3x3dbl_2", 96, 3),
        _Conv("branch3x3dbl_3", 96, 3, 2, valid=True),
    ),
    (MAX,),
)
MIXED_D: _Mixed = (
    (_Conv("branch3x3_1", 192), _Conv("branch3x3_2", 320, 3, 2, valid=True)),
    (
        _Conv("branch7x7x3_1", 192),
        _Conv("branch7x7x3_2", 192, ROW),
        _Conv("branch7x7x3_3", 192, COLUMN),
        _Conv("branch7x7x3_4", 192, 3, 2, valid=True),
    ),
    (MAX,),
)
# figure 7
MIXED_E: _Mixed = (
    (_Conv("branch1x1", 320),),
    (
        _Conv("branch3x3_1", 384),
        (_Conv("branch3x3_2a", 384, (1, 3)), _Conv("branch3x3_2b", 384, (3, 1))),
    ),
    (
        _Conv("branch3x3dbl_1", 448),
        _Conv("branch3x3dbl_2", 384, 3),
        (_Conv("branch3x3dbl_3a", 384, (1, 3)), _Conv("branch3x3dbl_3b", 384, (3, 1))),
    ),
    (AVERAGE, _Conv("branch_pool", 192)),
)
MIXED: dict[str, _Mixed] = {
    "Mixed_5b": _mixed_a(32),
    "Mixed_5c": _mixed_a(64),
    "Mixed_5d": _mixed_a(64),
    "Mixed_6a": MIXED_B,
    "Mixed_6b": _mixed_c(128),
    "Mixed_6c": _mixed_c(160),
    "Mixed_6d": _mixed_c(160),
    "Mixed_6e": _mixed_c(192),
    "Mixed_7a": MIXED_D,
    "Mixed_7b": MIXED_E,
    "Mixed_7c": MIXED_E,
}
WATCHED = "Mixed_6e"  # by the auxiliary head


def inception_v3(
    *,
    classes: Classes = 1000,
    size_hw: tuple[int, int] | None = (299, 299),
    aux: bool = False,
    count_include_pad: bool = True,
    dropout: float = 0.5,
) -> keras.Model:
    """Inception-v3: `image` float32 (B, H, W, 3) RGB -> `logits` (B, classes); 23,834,568 parameters without `aux`.

    Args:
        classes: classes, or a mapping head -> classes, or None for the last feature map of 2048 channels.
        size_hw: height and width, at least 75 (299 with `aux`), or None for any.
        aux: with the head that helps training: the output is a dict of `logits` and `aux`.
        count_include_pad: the zeros around a map count in its average pooling (torchvision) or not (Keras
            applications); the weights of one are wrong in the other.
        dropout: share of features dropped before the last layer.

    Raises:
        ValueError: an argument is out of range.
    """
    check_aux(aux, classes)
    image = image_input("inception_v3", size_hw, minimum=299 if aux else 75)
    x, watched = _stem(image), None
    for name, branches in MIXED.items():
        ends = [_branch(x, branch, name, count_include_pad) for branch in branches]
        x = layers.Concatenate(name=f"{name}.concat")(ends)
        watched = x if name == WATCHED else watched
    if classes is None:
        return keras.Model(image, x, name="inception_v3")
    x = layers.GlobalAveragePooling2D(name="avgpool")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    logits = classifier_head(x, classes)
    if aux:
        logits = {"logits": logits, "aux": _aux(watched, classes)}
    return keras.Model(image, logits, name="inception_v3")


def _stem(x: Any) -> Any:
    for row in STEM:
        x = layers.MaxPooling2D(3, 2, name=row)(x) if isinstance(row, str) else _unit(x, row)
    return x


def _branch(x: Any, steps: tuple[_Step, ...], name: str, count_include_pad: bool) -> Any:
    for step in steps:
        if isinstance(step, str):
            x = _pool(x, step, f"{name}.{step}_pool", count_include_pad)
        elif isinstance(step, _Conv):
            x = _unit(x, step, f"{name}.")
        else:
            ends = [_unit(x, row, f"{name}.") for row in step]
            x = layers.Concatenate(name=f"{name}.{step[0].name[:-1]}.concat")(ends)
    return x


def _pool(x: Any, kind: str, name: str, count_include_pad: bool) -> Any:
    if kind == MAX:
        return layers.MaxPooling2D(3, 2, name=name)(x)
    if not count_include_pad:
        return layers.AveragePooling2D(3, 1, padding="same", name=name)(x)
    x = layers.ZeroPadding2D(1, name=f"{name}.pad")(x)
    return layers.AveragePooling2D(3, 1, name=name)(x)


def _unit(x: Any, row: _Conv, prefix: str = "") -> Any:
    kernel = row.kernel if isinstance(row.kernel, tuple) else (row.kernel, row.kernel)
    padding = (0, 0) if row.valid else (kernel[0] // 2, kernel[1] // 2)
    names = (f"{prefix}{row.name}.conv", f"{prefix}{row.name}.bn")
    return conv_norm(x, row.channels, kernel, names=names, epsilon=1e-3, stride=row.stride, padding=padding)


def _aux(x: Any, classes: Any) -> Any:
    x = layers.AveragePooling2D(5, 3, name="AuxLogits.avgpool")(x)
    x = _unit(x, _Conv("conv0", 128), "AuxLogits.")
    x = _unit(x, _Conv("conv1", 768, 5, valid=True), "AuxLogits.")
    x = layers.GlobalAveragePooling2D(name="AuxLogits.pool")(x)
    return layers.Dense(classes, name=layer_name("AuxLogits.fc"))(x)
