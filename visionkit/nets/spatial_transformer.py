"""Classifiers that straighten what they look at, and a transformer for any classifier there is.

Jaderberg, Simonyan, Zisserman, Kavukcuoglu, Spatial transformer networks, NIPS 2015. A localisation network reads the
image and regresses theta, the layer `SpatialTransformer` samples the image by it, the classifier sees the result; all
of it learns from the classes alone. The layer that gives theta is called `theta` (`theta_2` … for further ones) and
begins at the identity, with a kernel of zeros.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from visionkit.geometry.transformer import CONTROL, TRANSFORMS, theta_size
from visionkit.layers.spatial_transformer import IdentityTheta, SpatialTransformer
from visionkit.layers.windows import pair
from visionkit.nets.blocks import Classes, classifier_head, conv_norm, image_input, layer_name
from visionkit.nets.crop_windows import functional

__all__ = ["st_cnn", "st_fcn", "stn_classifier", "with_transformer"]

Size = tuple[int, int]
NONE = "none"
LOCALISATIONS = ("digits", "dense", "photo")
RATE = 0.1  # of theta's learning; Adam's steps of a full one move the whole picture at once
DIGITS = 42  # side of the distorted digits' canvas


def st_fcn(
    *,
    transform: str = "affine",
    transformers: int = 1,
    classes: Classes = 10,
    size_hw: Size | None = (DIGITS, DIGITS),
    channels: int = 1,
    units: Sequence[int] = (128, 128),
    localisation: str = "digits",
    control: Size = CONTROL,
    border: str = "zero",
) -> keras.Model:
    """Fully connected layers behind a transformer: `image` float32 (B, 42, 42, 1) -> `logits` (B, 10).

    Args:
        transform: of the transformer; `none` for the same network without.
        transformers: in parallel; their outputs are flattened together.
        units: of the fully connected layers.
        localisation: `digits`, two convolutions; `dense`, three fully connected layers; `photo`, see
            `with_transformer`.
        control: rows and columns of a spline's control points.
        border: of the transformer, `zero` or `clamp`.

    Raises:
        ValueError: an argument out of its range, or an open size.
    """
    image = image_input("st_fcn", size_hw, minimum=20, channels=channels, fixed=True)
    seen = _looks(image, transform, transformers, localisation, control=control, border=border)
    x = _joined([layers.Flatten(name=f"flatten{mark}")(view) for mark, view in seen.items()], "flat")
    for k, count in enumerate(units, 1):
        x = _dense(x, count, f"fc{k}")
    return keras.Model(image, classifier_head(x, classes), name="st_fcn")


def st_cnn(
    *,
    transform: str = "affine",
    transformers: int = 1,
    inside: bool = False,
    classes: Classes = 10,
    size_hw: Size | None = (DIGITS, DIGITS),
    channels: int = 1,
    filters: Sequence[int] = (32, 64),
    units: int = 128,
    localisation: str = "digits",
    control: Size = CONTROL,
    border: str = "zero",
) -> keras.Model:
    """Convolutions behind a transformer: `image` float32 (B, 42, 42, 1) -> `logits` (B, 10).

    Args:
        transform: of all transformers; `none` for the same network without.
        transformers: in parallel, each with convolutions of its own, whose features are joined (section 4.3's birds).
        inside: another transformer on the map behind the first convolution (section 4.2's house numbers), which has
            two fully connected layers of 32 to regress from.
        filters: of the convolutions, 5x5, each with a pooling behind it.
        units: of the fully connected layer.
        localisation, control, border: see `st_fcn`.

    Raises:
        ValueError: an argument out of its range, or an open size.
    """
    image = image_input("st_cnn", size_hw, minimum=20, channels=channels, fixed=True)
    seen = _looks(image, transform, transformers, localisation, control=control, border=border)
    found = []
    for mark, view in seen.items():
        x = view
        for k, count in enumerate(filters, 1):
            x = layers.Conv2D(count, 5, padding="same", activation="relu", name=f"conv{k}{mark}")(x)
            x = layers.MaxPooling2D(2, name=f"pool{k}{mark}")(x)
            if inside and k == 1 and transform != NONE:
                features = _vector(x, (32, 32), f"inside{mark}")
                x = _straight(x, features, transform, f"_inside{mark}", control=control, border=border)
        found.append(layers.Flatten(name=f"flatten{mark}")(x))
    x = _dense(_joined(found, "features"), units, "fc")
    return keras.Model(image, classifier_head(x, classes), name="st_cnn")


def stn_classifier(
    *,
    classifier: str = "resnet",
    transform: str = "affine",
    view_hw: Size | int | None = None,
    localisation: str = "photo",
    localise_hw: Size | int | None = None,
    localise_width: int = 16,
    rate: float = RATE,
    control: Size = CONTROL,
    border: str = "clamp",
    align_corners: bool = False,
    antialias: bool | int = False,
    classes: Classes = 10,
    size_hw: Size | None = (96, 96),
    **args: Any,
) -> keras.Model:
    """Any classifier of `visionkit.nets` behind a transformer: `image` float32 (B, H, W, 3) -> `logits`.

    Args:
        classifier: name of the network; `args` are its own keyword arguments.
        transform: of the transformer; `none` for the same network without.
        view_hw: what the classifier sees; without, the image's size.
        size_hw: of the image, from which the transformer samples.
        localisation, localise_hw, localise_width, rate: of the localisation network, see `with_transformer`.
        control, border, align_corners, antialias: of the transformer, see `SpatialTransformer`.

    Raises:
        TypeError: the classifier does not take one of `args`.
        ValueError: no such classifier, an argument out of its range, or an open size.
    """
    function: Any = getattr(importlib.import_module("visionkit.nets"), classifier, None)
    known = set(inspect.signature(function).parameters) if callable(function) else set()
    if not {"classes", "size_hw"} <= known or function is stn_classifier:
        raise ValueError(f"`classifier` must be a classifier of visionkit.nets. Received: classifier={classifier!r}.")
    if size_hw is None:
        raise ValueError("`size_hw` must be given: the transformer samples a fixed grid. Received: size_hw=None.")
    plain = transform == NONE
    view = size_hw if plain or view_hw is None else pair(view_hw, "view_hw", least=1)
    own = {"transform": NONE} if "transform" in known else {}
    network = function(**{**args, **own, "classes": classes, "size_hw": view})
    if plain:
        return network
    return with_transformer(
        network,
        transform=transform,
        size_hw=size_hw,
        localisation=localisation,
        localise_hw=localise_hw,
        localise_width=localise_width,
        rate=rate,
        control=control,
        border=border,
        align_corners=align_corners,
        antialias=antialias,
    )


def with_transformer(
    classifier: keras.Model,
    *,
    transform: str = "affine",
    size_hw: Size | None = None,
    localisation: str = "photo",
    localise_hw: Size | int | None = None,
    localise_width: int = 16,
    rate: float = RATE,
    control: Size = CONTROL,
    border: str = "clamp",
    align_corners: bool = False,
    antialias: bool | int = False,
) -> keras.Model:
    """A transformer before `classifier`, whose layers and weights are shared: `image` -> what the classifier gives.

    Args:
        classifier: functional, of one input (B, h, w, C) of fixed size, which the transformer writes.
        transform: see `SpatialTransformer`, as for `control`, `border`, `align_corners` and `antialias`.
        size_hw: of the image; without, the classifier's own input size.
        localisation: `photo`, convolutions that halve the map until it is small, normalised, `localise_width` channels
            and more; `digits` and `dense` as in `st_fcn`.
        localise_hw: resize the image to this for the localisation network, which needs no detail.
        localise_width: channels of the first convolution of `photo`.
        rate: what the localisation network's features are multiplied by before theta is made of them, so that theta
            learns by so much slower than the rest (the paper's house numbers: a tenth).

    Raises:
        ValueError: an argument out of its range; a classifier with several inputs, or of open size.
    """
    if len(classifier.inputs) != 1 or len(classifier.inputs[0].shape) != 4 or None in classifier.inputs[0].shape[1:]:
        shapes = [tuple(x.shape) for x in classifier.inputs]
        raise ValueError(f"`classifier` must have one input (B, h, w, C) of fixed size. Received: {shapes}.")
    _, height, across, channels = classifier.inputs[0].shape
    image = image_input("with_transformer", size_hw or (height, across), minimum=8, channels=channels)
    small = image
    if localise_hw is not None:
        small = layers.Resizing(*pair(localise_hw, "localise_hw", least=8), name="localise_size")(image)
    view = _straight(
        image,
        _localise(small, localisation, localise_width),
        transform,
        size_hw=(height, across),
        rate=rate,
        control=control,
        border=border,
        align_corners=align_corners,
        antialias=antialias,
    )
    outputs = _applied(classifier, view)
    return keras.Model(image, outputs, name=f"stn_{classifier.name}")


def _applied(model: keras.Model, x: Any) -> Any:
    """The layers of `model` called on `x` one by one: the network stays flat, its layers keep their names."""
    # Keras's own walk over its nodes. Private, so pinned and tested, as in `crop_windows`.
    return functional(model)._run_through_graph([x], operation_fn=lambda operation: operation)


def _looks(image: Any, transform: str, count: int, localisation: str, *, control: Size, border: str) -> dict[str, Any]:
    """What each of `count` transformers in parallel gives, by the mark that its layers' names end with."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"`transformers` must be a positive integer. Received: transformers={count!r}.")
    if transform == NONE:
        return {"": image}
    features, marks = _localise(image, localisation, 16), ["", *(f"_{k}" for k in range(2, count + 1))]
    return {mark: _straight(image, features, transform, mark, control=control, border=border) for mark in marks}


def _straight(
    image: Any,
    features: Any,
    transform: str,
    mark: str = "",
    *,
    control: Size,
    size_hw: Size | None = None,
    rate: float = RATE,
    **sampling: Any,
) -> Any:
    """What a transformer makes of `image` (B, H, W, C) by a theta of the features (B, D), at first the identity."""
    if transform not in TRANSFORMS:
        known = ", ".join((*TRANSFORMS, NONE))
        raise ValueError(f"`transform` must be one of {known}. Received: transform={transform!r}.")
    theta = layers.Dense(
        theta_size(transform, control),
        kernel_initializer="zeros",
        bias_initializer=IdentityTheta(transform, control),
        name=f"theta{mark}",
    )
    slow = layers.Rescaling(rate, name=f"theta{mark}.rate")(features)
    warp = SpatialTransformer(
        size_hw or tuple(image.shape[1:3]), transform, control=control, name=f"straight{mark}", **sampling
    )
    return warp([image, theta(slow)])


def _localise(image: Any, kind: str, width: int) -> Any:
    """Features (B, D) that theta is regressed from."""
    if kind not in LOCALISATIONS:
        known = ", ".join(LOCALISATIONS)
        raise ValueError(f"`localisation` must be one of {known}. Received: localisation={kind!r}.")
    if kind == "dense":
        return _vector(image, (32, 32, 32), "localise")
    if kind == "digits":
        x = image
        for k in (1, 2):
            x = layers.MaxPooling2D(2, name=f"localise.pool{k}")(x)
            x = layers.Conv2D(20, 5, activation="relu", name=layer_name(f"localise.conv{k}"))(x)
        return _vector(x, (50,), "localise")
    x, side, k = image, min(image.shape[1:3]), 0
    while side > 6:
        k += 1
        names = (f"localise.conv{k}", f"localise.norm{k}")
        x = conv_norm(x, min(width * 2 ** (k - 1), 8 * width), 3, names=names, stride=2, padding=1)
        side = min(x.shape[1:3])
    # Of mean 0 over the images. Units with a mean are a lever to move all images alike, and are pulled until they
    # saturate or die together; theta is a constant then, and nothing leads back.
    x = layers.Flatten(name="localise.flatten")(x)
    x = layers.Dense(4 * width, use_bias=False, name=layer_name("localise.fc"))(x)
    return layers.BatchNormalization(momentum=0.9, center=False, scale=False, name=layer_name("localise.fc_norm"))(x)


def _vector(x: Any, units: Sequence[int], name: str) -> Any:
    x = layers.Flatten(name=f"{name}.flatten")(x)
    for k, count in enumerate(units, 1):
        x = _dense(x, count, f"{name}.fc{k}")
    return x


def _dense(x: Any, units: int, name: str) -> Any:
    return layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=layer_name(name))(x)


def _joined(found: list[Any], name: str) -> Any:
    return found[0] if len(found) == 1 else layers.Concatenate(name=name)(found)
