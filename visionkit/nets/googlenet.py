"""GoogLeNet: Szegedy et al., Going deeper with convolutions, CVPR 2015, table 1, and torchvision's variant of it.

Torchvision's has batch normalisation, no local response normalisation, a 3x3 where the paper has a 5x5 (as its
checkpoint was trained) and a last pooling of 2 in the place of 3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import layers

from visionkit.layers.normalization import LocalResponseNormalization
from visionkit.layers.pooling import AdaptiveAveragePooling2D, CeilMaxPooling2D
from visionkit.nets.blocks import Classes, check_aux, classifier_head, conv, conv_norm, dense, image_input, layer_name

__all__ = ["googlenet"]


class _Block(NamedTuple):
    """Channels of an inception block: 1x1; reduction and 3x3; reduction and 5x5; behind the pooling."""

    name: str
    one: int
    reduce_three: int
    three: int
    reduce_five: int
    five: int
    pool: int
    aux: str = ""  # the auxiliary head that looks at its output


class _Variant(NamedTuple):
    """Where the two variants differ."""

    normalize: bool  # batch normalisation, else biases and local response normalisation
    five: int  # kernel of the third branch
    pools: dict[str, int]  # windows
    dropout: float
    minimum_with_aux: int


VARIANTS = {
    "torchvision": _Variant(True, 3, {"maxpool3": 3, "maxpool4": 2}, 0.2, 15),
    "paper": _Variant(False, 5, {"maxpool3": 3, "maxpool4": 3}, 0.4, 79),
}
# inception blocks, and the names of the poolings between them
BODY: tuple[_Block | str, ...] = (
    _Block("inception3a", 64, 96, 128, 16, 32, 32),
    _Block("inception3b", 128, 128, 192, 32, 96, 64),
    "maxpool3",
    _Block("inception4a", 192, 96, 208, 16, 48, 64, aux="aux1"),
    _Block("inception4b", 160, 112, 224, 24, 64, 64),
    _Block("inception4c", 128, 128, 256, 24, 64, 64),
    _Block("inception4d", 112, 144, 288, 32, 64, 64, aux="aux2"),
    _Block("inception4e", 256, 160, 320, 32, 128, 128),
    "maxpool4",
    _Block("inception5a", 256, 160, 320, 32, 128, 128),
    _Block("inception5b", 384, 192, 384, 48, 128, 128),
)


def googlenet(
    *,
    classes: Classes = 1000,
    size_hw: tuple[int, int] | None = (224, 224),
    variant: str = "torchvision",
    aux: bool = False,
) -> keras.Model:
    """GoogLeNet: `image` float32 (B, H, W, 3) RGB -> `logits` (B, classes).

    Args:
        classes: classes, or a mapping head -> classes, or None for the last feature map of 1024 channels.
        size_hw: height and width, at least 15, or None for any.
        variant: `torchvision` (6,624,904 parameters) or `paper` (6,998,552), both without the auxiliary heads. The
            paper does not say how it normalises locally: Caffe's n = 5, alpha = 1e-4 / 5, beta = 0.75, k = 1.
        aux: with the two heads that help training: the output is a dict of `logits`, `aux1` and `aux2`. Those of the
            paper flatten a map, so that they need a fixed size of at least 79.

    Raises:
        ValueError: an argument is out of range.
    """
    if variant not in VARIANTS:
        raise ValueError(f"`variant` must be one of {', '.join(VARIANTS)}. Received: variant={variant!r}.")
    check_aux(aux, classes)
    rules = VARIANTS[variant]
    minimum = rules.minimum_with_aux if aux else 15
    image = image_input("googlenet", size_hw, minimum=minimum, fixed=aux and variant == "paper")
    x, watched = _body(_stem(image, rules), rules)
    if classes is None:
        return keras.Model(image, x, name="googlenet")
    x = layers.GlobalAveragePooling2D(name="avgpool")(x)
    x = layers.Dropout(rules.dropout, name="dropout")(x)
    logits = classifier_head(x, classes)
    if aux:
        logits = {"logits": logits, **{name: _aux(maps, name, classes, rules) for name, maps in watched.items()}}
    return keras.Model(image, logits, name="googlenet")


def _stem(x: Any, rules: _Variant) -> Any:
    x = _unit(x, 64, 7, rules, name="conv1", stride=2, padding=3)
    x = CeilMaxPooling2D(3, 2, name="maxpool1")(x)
    x = x if rules.normalize else _local_norm(x, "norm1")
    x = _unit(x, 64, 1, rules, name="conv2")
    x = _unit(x, 192, 3, rules, name="conv3", padding=1)
    x = x if rules.normalize else _local_norm(x, "norm2")
    return CeilMaxPooling2D(3, 2, name="maxpool2")(x)


def _body(x: Any, rules: _Variant) -> tuple[Any, dict[str, Any]]:
    """The last feature map, and the maps that the auxiliary heads look at."""
    watched = {}
    for row in BODY:
        if isinstance(row, str):
            x = CeilMaxPooling2D(rules.pools[row], 2, name=row)(x)
            continue
        x = _inception(x, row, rules)
        if row.aux:
            watched[row.aux] = x
    return x, watched


def _inception(x: Any, row: _Block, rules: _Variant) -> Any:
    one = _unit(x, row.one, 1, rules, name=f"{row.name}.branch1")
    three = _unit(x, row.reduce_three, 1, rules, name=f"{row.name}.branch2.0")
    three = _unit(three, row.three, 3, rules, name=f"{row.name}.branch2.1", padding=1)
    five = _unit(x, row.reduce_five, 1, rules, name=f"{row.name}.branch3.0")
    five = _unit(five, row.five, rules.five, rules, name=f"{row.name}.branch3.1", padding=rules.five // 2)
    pool = layers.MaxPooling2D(3, 1, padding="same", name=f"{row.name}.branch4.0")(x)
    pool = _unit(pool, row.pool, 1, rules, name=f"{row.name}.branch4.1")
    return layers.Concatenate(name=f"{row.name}.concat")([one, three, five, pool])


def _aux(x: Any, name: str, classes: Any, rules: _Variant) -> Any:
    if rules.normalize:
        x = AdaptiveAveragePooling2D(4, name=f"{name}.avgpool")(x)
    else:
        x = layers.AveragePooling2D(5, 3, name=f"{name}.avgpool")(x)
    x = _unit(x, 128, 1, rules, name=f"{name}.conv")
    x = layers.Flatten(name=f"{name}.flatten")(x)
    x = dense(x, 1024, name=f"{name}.fc1")
    x = layers.Dropout(0.7, name=layer_name(f"{name}.dropout"))(x)
    return layers.Dense(classes, name=layer_name(f"{name}.fc2"))(x)


def _unit(x: Any, filters: int, kernel: int, rules: _Variant, *, name: str, **options: Any) -> Any:
    if rules.normalize:
        names = (f"{name}.conv", f"{name}.bn")
        return conv_norm(x, filters, kernel, names=names, epsilon=1e-3, **options)
    x = conv(x, filters, kernel, name=f"{name}.conv", bias=True, **options)
    return layers.ReLU(name=f"{name}.relu")(x)


def _local_norm(x: Any, name: str) -> Any:
    return LocalResponseNormalization(5, 1e-4, 0.75, 1.0, divide_by_size=True, name=name)(x)
