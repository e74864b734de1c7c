"""Building blocks that all classification networks share: input, convolution with its norm and activation, heads.

Padding is torch's: explicit, symmetric, in pixels. A layer with weights carries the name that torchvision's module has,
dots kept ("layer1.0.conv1"), so that its checkpoints find their place; see `layer_name` for the one exception.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers

__all__ = [
    "Classes",
    "Pair",
    "activate",
    "check_aux",
    "classifier_head",
    "conv",
    "conv_norm",
    "dense",
    "image_input",
    "layer_name",
    "norm",
]

Classes = int | Mapping[str, int] | None
Pair = int | tuple[int, int]
ACTIVATIONS = ("relu", "relu6", "hard_swish", "hard_sigmoid")


def layer_name(torch: str) -> str:
    """The name of a layer with variables: torch's, but "-" for "." where Keras runs on torch, which refuses dots."""
    return torch.replace(".", "-") if keras.backend.backend() == "torch" else torch


def image_input(
    network: str, size_hw: tuple[int, int] | None, *, minimum: int = 1, channels: int = 3, fixed: bool = False
) -> Any:
    """The input `image`, float32 (B, H, W, channels).

    Args:
        network: name of the network, for the messages.
        size_hw: height and width in pixels; None leaves them open.
        minimum: the smallest side that leaves something for the last layer.
        channels: channels of the image.
        fixed: the network has a fully connected layer over its last map, so that the size cannot stay open.

    Raises:
        ValueError: a size that is no pair of integers, is below `minimum`, or is open where it must be fixed.
    """
    if size_hw is None:
        if fixed:
            raise ValueError(f"`size_hw` must be given: {network} flattens its last map. Received: size_hw=None.")
        return keras.Input((None, None, channels), name="image")
    sizes = tuple(size_hw) if isinstance(size_hw, tuple | list) else ()
    if len(sizes) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < minimum for n in sizes):
        raise ValueError(
            f"`size_hw` must be (height, width), integers of at least {minimum} for {network}. "
            f"Received: size_hw={size_hw!r}."
        )
    return keras.Input((*sizes, channels), name="image")


def conv(
    x: Any,
    filters: int,
    kernel: Pair,
    *,
    name: str,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = False,
    initializer: Any = "he_normal",
) -> Any:
    """A convolution, (B, H, W, C) -> (B, H', W', filters), with torch's symmetric padding in pixels.

    Groups of one channel each become a `DepthwiseConv2D`, which the runtimes and the quantizers know as such.
    """
    kernel, stride, padding = _pair(kernel), _pair(stride), _pair(padding)
    same = tuple(dilation * (k - 1) for k in kernel) == tuple(2 * p for p in padding) and stride == (1, 1)
    if not same and any(padding):
        x = layers.ZeroPadding2D(padding, name=f"{name}.pad")(x)
    options: dict[str, Any] = {
        "strides": stride,
        "padding": "same" if same and any(padding) else "valid",
        "dilation_rate": dilation,
        "use_bias": bias,
        "name": layer_name(name),
    }
    if groups > 1 and groups == filters == x.shape[-1]:
        return layers.DepthwiseConv2D(kernel, depthwise_initializer=initializer, **options)(x)
    return layers.Conv2D(filters, kernel, groups=groups, kernel_initializer=initializer, **options)(x)


def norm(x: Any, *, name: str, epsilon: float = 1e-5) -> Any:
    """Batch normalisation; Keras's momentum 0.9 is torch's 0.1."""
    return layers.BatchNormalization(momentum=0.9, epsilon=epsilon, name=layer_name(name))(x)


def activate(x: Any, activation: str | None, *, name: str) -> Any:
    """The activation as a layer of its own: `relu`, `relu6`, `hard_swish`, `hard_sigmoid`, or None."""
    if activation is None:
        return x
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"`activation` must be None or one of {', '.join(ACTIVATIONS)}. Received: activation={activation!r}."
        )
    if activation in ("relu", "relu6"):
        return layers.ReLU(6.0 if activation == "relu6" else None, name=name)(x)
    return layers.Activation(activation, name=name)(x)


def conv_norm(
    x: Any,
    filters: int,
    kernel: Pair,
    *,
    names: tuple[str, str],
    activation: str | None = "relu",
    epsilon: float = 1e-5,
    **options: Any,
) -> Any:
    """Convolution without bias, batch normalisation, activation.

    Args:
        x: (B, H, W, C).
        filters: channels of the result.
        kernel: its size.
        names: torch names of the convolution and of the normalisation; the activation is called after the latter.
        activation: see `activate`.
        epsilon: of the normalisation.
        options: further arguments of `conv`.
    """
    x = conv(x, filters, kernel, name=names[0], **options)
    x = norm(x, name=names[1], epsilon=epsilon)
    return activate(x, activation, name=f"{names[1]}.{activation}")


def dense(x: Any, units: int, *, name: str) -> Any:
    """A fully connected layer and its ReLU, (B, D) -> (B, units)."""
    x = layers.Dense(units, kernel_initializer="he_normal", name=layer_name(name))(x)
    return layers.ReLU(name=f"{name}.relu")(x)


def classifier_head(x: Any, classes: Classes) -> Any:
    """Logits of the features `x` (B, C): one tensor (B, classes) of the layer `logits`, or a dict of them.

    Args:
        x: features (B, C).
        classes: the number of classes; a mapping head -> number makes `{head: logits}`, each from its own layer
            `logits_<head>` over the same features; None gives `x` back.

    Raises:
        ValueError: a number below 1, no head, or a name that is no identifier.
    """
    if classes is None:
        return x
    if not isinstance(classes, Mapping):
        _check_count(classes, f"classes={classes!r}")
        return layers.Dense(classes, name="logits")(x)
    if not classes or any(not isinstance(head, str) or not head.isidentifier() for head in classes):
        raise ValueError(f"`classes` must name each head by an identifier. Received: classes={dict(classes)!r}.")
    for count in classes.values():
        _check_count(count, f"classes={dict(classes)!r}")
    return {head: layers.Dense(count, name=f"logits_{head}")(x) for head, count in classes.items()}


def check_aux(aux: bool, classes: Classes) -> None:
    """Auxiliary heads predict the classes of the main one, so there must be one main head.

    Raises:
        ValueError: `aux` with several heads, or with none.
    """
    if aux and (classes is None or isinstance(classes, Mapping)):
        raise ValueError(f"`aux` needs `classes` to be an integer. Received: aux={aux}, classes={classes!r}.")


def _check_count(count: Any, received: str) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"`classes` must be a positive integer, a mapping of them, or None. Received: {received}.")


def _pair(value: Pair) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)
