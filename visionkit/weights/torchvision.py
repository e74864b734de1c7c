"""Torchvision's checkpoints into our networks.

Layers carry the names of torch's modules, so that only layouts are translated; what the names do not tell stands in
`FAMILIES`, a row for each network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from visionkit.errors import ModelError

if TYPE_CHECKING:
    import keras

__all__ = ["FAMILIES", "Family", "fcn_from_vgg", "load_torchvision"]

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, ...]
UNUSED_SUFFIX = "num_batches_tracked"  # a count for training, not in all checkpoints


@dataclass(frozen=True)
class Family:
    """What a converter must know of the checkpoints of a network.

    Args:
        heads: name of each layer whose size is the number of classes -> its name in torch.
        behind: how the names of all tensors behind the last map begin; a network without classes leaves them.
        flattened: torch name of a fully connected layer behind a flattened map -> channels, height, width of the map.
        auxiliary: how the names of each auxiliary head begin; one that the network does not have is left.
            A convolution in its place sees such a map at each position.
        names: name of a layer -> its name in torch, where they differ; `heads` need not be repeated.
        epsilon: of every batch normalisation, but for those whose names begin with a key of `epsilons`.
        strides: torch name of a convolution -> its stride, where layouts of the same shapes differ.
        epsilon_choices: further epsilons of all batch normalisations that checkpoints of this network were made with;
            nothing in the checkpoint tells which, its card does.
        renamed: pattern of a tensor's name in older checkpoints -> its name since.
    """

    heads: Mapping[str, str]
    behind: tuple[str, ...]
    flattened: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    auxiliary: tuple[str, ...] = ()
    epsilon: float = 1e-5
    strides: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    epsilons: Mapping[str, float] = field(default_factory=dict)
    epsilon_choices: tuple[float, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    def epsilon_of(self, name: str) -> float:
        """Of the batch normalisation called `name` in torch."""
        return next((value for prefix, value in self.epsilons.items() if name.startswith(prefix)), self.epsilon)

    def current(self, name: str) -> str:
        """The name that a tensor has today."""
        for pattern, new in self.renamed.items():
            name = re.sub(pattern, new, name)
        return name


_VGG = Family({"logits": "classifier.6"}, ("classifier.",), {"classifier.0": (512, 7, 7)})
_BASIC = Family({"logits": "fc"}, ("fc.",))
_BOTTLENECK = Family({"logits": "fc"}, ("fc.",), strides={f"layer{stage}.0.conv1": (1, 1) for stage in (2, 3, 4)})
_MOBILE_3 = Family({"logits": "classifier.3"}, ("classifier.",), epsilon=1e-3)
# segmentation: a backbone, a head, and for training a second one
_SCORES = {"logits_low": "classifier.4", "aux_low": "aux_classifier.4"}
_SECOND = ("aux_classifier.",)
_SEGMENTATION = Family(_SCORES, (), auxiliary=_SECOND)
_SSD = tuple(f"head.classification_head.module_list.{level}.1" for level in range(6))
_FCN_SCORES = ("score_pool4", "score_pool3", "upscore_pool4", "upscore_pool3", "upscore")
# VGG-16's classifier into the fully convolutional networks made of it, whose scores it does not have
_FCN_VGG = Family(
    {"score": "classifier.6", **{name: name for name in _FCN_SCORES}},
    (),
    {"classifier.0": (512, 7, 7), "classifier.3": (4096, 1, 1)},
    names={"fc6": "classifier.0", "fc7": "classifier.3"},
)

# VGG-16's classifier into the published Fast and Faster R-CNN, which score other classes
_RCNN_VGG = Family(
    {
        "roi_heads.box_predictor.cls_score": "classifier.6",
        **{name: name for name in ("rpn.conv", "rpn.cls_score", "rpn.bbox_pred", "roi_heads.box_predictor.bbox_pred")},
    },
    (),
    {"classifier.0": (512, 7, 7)},
)

# two-stage detectors; the first official checkpoints have the names of torchvision 0.6
_FPN_RENAMED = {
    r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$": r"\1.0.\2",
    r"^rpn\.head\.conv\.(weight|bias)$": r"rpn.head.conv.0.0.\1",
    **{rf"^roi_heads\.mask_head\.mask_fcn{i + 1}\.(weight|bias)$": rf"roi_heads.mask_head.{i}.0.\1" for i in range(4)},
}
_RCNN = Family(
    {
        name: name
        for name in (
            "roi_heads.box_predictor.cls_score",
            "roi_heads.box_predictor.bbox_pred",
            "roi_heads.mask_predictor.mask_fcn_logits",
        )
    },
    (),
    {"roi_heads.box_head.fc6": (256, 7, 7), "roi_heads.box_head.5": (256, 7, 7)},
    renamed=_FPN_RENAMED,
)
# torchvision gives all normalisations the epsilon 0 where it loads COCO_V1 of these two
_RCNN_V1 = replace(_RCNN, epsilon_choices=(0.0,))

FAMILIES: Mapping[str, Family] = {
    "alexnet": Family({"logits": "classifier.6"}, ("classifier.",), {"classifier.1": (256, 6, 6)}),
    "vgg16": _VGG,
    "vgg19": _VGG,
    "googlenet": Family(
        {"logits": "fc", "aux1.fc2": "aux1.fc2", "aux2.fc2": "aux2.fc2"},
        ("fc.",),
        {"aux1.fc1": (128, 4, 4), "aux2.fc1": (128, 4, 4)},
        auxiliary=("aux1.", "aux2."),
        epsilon=1e-3,
    ),
    "inception_v3": Family(
        {"logits": "fc", "AuxLogits.fc": "AuxLogits.fc"}, ("fc.",), auxiliary=("AuxLogits.",), epsilon=1e-3
    ),
    "resnet18": _BASIC,
    "resnet34": _BASIC,
    "resnet50": _BOTTLENECK,
    "resnet101": _BOTTLENECK,
    "resnet152": _BOTTLENECK,
    "mobilenet_v2": Family({"logits": "classifier.1"}, ("classifier.",)),
    "mobilenet_v3_large": _MOBILE_3,
    "mobilenet_v3_small": _MOBILE_3,
    "fcn_resnet50": _SEGMENTATION,
    "fcn_resnet101": _SEGMENTATION,
    "deeplabv3_resnet50": _SEGMENTATION,
    "deeplabv3_resnet101": _SEGMENTATION,
    "deeplabv3_mobilenet_v3_large": Family(_SCORES, (), auxiliary=_SECOND, epsilons={"backbone.": 1e-3}),
    "lraspp_mobilenet_v3_large": Family(
        {f"classifier.{name}": f"classifier.{name}" for name in ("low_classifier", "high_classifier")},
        (),
        epsilons={"backbone.": 1e-3},
    ),
    "ssdlite320_mobilenet_v3_large": Family({name: name for name in _SSD}, (), epsilon=1e-3),
    "fasterrcnn_resnet50_fpn": _RCNN_V1,
    "fasterrcnn_resnet50_fpn_v2": _RCNN,
    "fasterrcnn_mobilenet_v3_large_fpn": _RCNN,
    "fasterrcnn_mobilenet_v3_large_320_fpn": _RCNN,
    "maskrcnn_resnet50_fpn": _RCNN_V1,
    "maskrcnn_resnet50_fpn_v2": _RCNN,
    "fasterrcnn_vgg16": _RCNN_VGG,
    "fast_rcnn_vgg16": _RCNN_VGG,
    "fcn32s_vgg16": _FCN_VGG,
    "fcn16s_vgg16": _FCN_VGG,
    "fcn8s_vgg16": _FCN_VGG,
}


def load_torchvision(
    model: keras.Model, network: str, state: Mapping[str, Array], *, skip_head: bool = False
) -> tuple[str, ...]:
    """Fill the weights of `model` with those of a torchvision checkpoint.

    Every tensor must find its variable and every variable its tensor, of the same shape; otherwise nothing is changed.

    Args:
        model: the network, as its builder made it.
        network: the builder's name, one of `FAMILIES`.
        state: the checkpoint, in torch's layout: convolution (out, in / groups, kh, kw), linear (out, in).
        skip_head: keep the layers that give a score for each class as they are, for a network of other classes.

    Returns:
        Names of the layers that were kept.

    Raises:
        ModelError: `model-unfit`, naming each tensor and layer that does not fit.
        ValueError: no converter for this network.
    """
    if network not in FAMILIES:
        raise ValueError(f"`network` must be one of {', '.join(FAMILIES)}. Received: network={network!r}.")
    family = FAMILIES[network]
    state = {name if (new := family.current(name)) in state else new: values for name, values in state.items()}
    layers = [layer for layer in model._flatten_layers(include_self=False) if _own_variables(layer)]
    kept = tuple(layer.name for layer in layers if skip_head and _is_head(layer.name, family))
    layers = [layer for layer in layers if layer.name not in kept]
    fills = [fill for layer in layers for fill in _fills(layer, family)]
    misfits = [
        *(misfit for layer in layers for misfit in _layer_misfits(layer, family)),
        *(misfit for fill in fills if (misfit := fill.misfit(state))),
        *_unused(state, fills, family, skip_head=skip_head, headless=not _has_head(model, family)),
    ]
    if misfits:
        raise _unfit(network, misfits, family)
    for fill in fills:
        fill.variable.assign(np.ascontiguousarray(fill.layout.convert(state[fill.tensor], fill), np.float32))
    return kept


def fcn_from_vgg(model: keras.Model, state: Mapping[str, Array]) -> tuple[str, ...]:
    """Fill an FCN on VGG-16 with torchvision's checkpoint of the classifier, its dense layers turned into convolutions.

    The scores and what enlarges them are kept. Torchvision's VGG-16 was trained with the preset `torch`.

    Returns:
        Names of the layers that were kept.

    Raises:
        ModelError: `model-unfit`, naming each tensor and layer that does not fit.
    """
    return load_torchvision(model, "fcn8s_vgg16", state, skip_head=True)


class _Layout(NamedTuple):
    """How a kind of variable is laid out in torch: its shape there from its shape here, and the way back."""

    shape: Callable[[Shape], Shape]
    convert: Callable[[Array, _Fill], Array]


class _Fill(NamedTuple):
    """One variable and the tensor that fills it."""

    variable: Any
    tensor: str
    layout: _Layout
    flattened: tuple[int, int, int] | None = None

    def misfit(self, state: Mapping[str, Array]) -> str | None:
        expected = self.layout.shape(tuple(self.variable.shape))
        if self.tensor not in state:
            return f"{self.tensor} {expected} is missing"
        found = state[self.tensor]
        if found.shape != expected:
            return f"{self.tensor} is {found.shape}, expected {expected}"
        if self.flattened and math.prod(self.flattened) != expected[-1]:
            return f"{self.tensor} has {expected[-1]} inputs, expected a map of {self.flattened}"
        if found.dtype.kind != "f":
            return f"{self.tensor} is of {found.dtype}, expected floating numbers"
        return None


def _from_linear(values: Array, fill: _Fill) -> Array:
    """(out, in) -> (in, out); inputs that were a map go from torch's (c, h, w) order to ours, (h, w, c)."""
    if fill.flattened is not None:
        values = values.reshape(-1, *fill.flattened).transpose(0, 2, 3, 1).reshape(values.shape)
    return values.T


def _from_depthwise(values: Array, fill: _Fill) -> Array:
    """(c * m, 1, kh, kw) -> (kh, kw, c, m): channel i makes the outputs i * m to i * m + m - 1 in both."""
    kh, kw, channels, multiplier = fill.variable.shape
    return values.reshape(channels, multiplier, kh, kw).transpose(2, 3, 0, 1)


def _from_convolved(values: Array, fill: _Fill) -> Array:
    """(out, c * h * w) -> (h, w, c, out): a fully connected layer over torch's map (c, h, w) as a convolution."""
    kh, kw, channels, out = fill.variable.shape
    return values.reshape(out, channels, kh, kw).transpose(2, 3, 1, 0)


_SAME = _Layout(lambda shape: shape, lambda values, _: values)
_CONVOLUTION = _Layout(lambda s: (s[3], s[2], s[0], s[1]), lambda values, _: values.transpose(2, 3, 1, 0))
_DEPTHWISE = _Layout(lambda s: (s[2] * s[3], 1, s[0], s[1]), _from_depthwise)
_LINEAR = _Layout(lambda s: (s[1], s[0]), _from_linear)
_CONVOLVED = _Layout(lambda s: (s[3], s[0] * s[1] * s[2]), _from_convolved)

# class of the layer: (attribute, tensor, layout); a transposed convolution is (in, out, kh, kw) there and
# (kh, kw, out, in) here, so that its axes move as those of a convolution do
KINDS: Mapping[str, tuple[tuple[str, str, _Layout], ...]] = {
    "Conv2D": (("kernel", "weight", _CONVOLUTION), ("bias", "bias", _SAME)),
    "Conv2DTranspose": (("kernel", "weight", _CONVOLUTION), ("bias", "bias", _SAME)),
    "DepthwiseConv2D": (("kernel", "weight", _DEPTHWISE), ("bias", "bias", _SAME)),
    "Dense": (("kernel", "weight", _LINEAR), ("bias", "bias", _SAME)),
    "BatchNormalization": (
        ("gamma", "weight", _SAME),
        ("beta", "bias", _SAME),
        ("moving_mean", "running_mean", _SAME),
        ("moving_variance", "running_var", _SAME),
    ),
}


def _own_variables(layer: Any) -> list[Any]:
    """Weights of the layer itself: not those of layers inside, nor the seeds of a dropout."""
    inside = {id(v) for child in layer._flatten_layers(include_self=False) for v in child.weights}
    return [variable for variable in layer.weights if id(variable) not in inside]


def _kind(layer: Any) -> str | None:
    names = (base.__name__ for base in type(layer).__mro__ if base.__module__.startswith("keras."))
    return next((name for name in names if name in KINDS), None)


def _torch_name(layer: str, family: Family) -> str:
    known = family.heads.get(layer) or family.names.get(layer)
    return known or layer.replace("-", ".")  # see nets/blocks.py: layer_name


def _is_head(layer: str, family: Family) -> bool:
    return layer in family.heads or layer.startswith("logits_")


def _has_head(model: Any, family: Family) -> bool:
    return any(_is_head(layer.name, family) for layer in model._flatten_layers(include_self=False))


def _fills(layer: Any, family: Family) -> Iterator[_Fill]:
    name = _torch_name(layer.name, family)
    for attribute, tensor, layout in KINDS.get(_kind(layer) or "", ()):
        variable = getattr(layer, attribute)
        if variable is not None:
            flattened = family.flattened.get(name) if layout in (_LINEAR, _CONVOLUTION) else None
            if flattened and layout is _CONVOLUTION:
                layout, flattened = _CONVOLVED, None  # the kernel says how large the map is
            yield _Fill(variable, f"{name}.{tensor}", layout, flattened)


def _layer_misfits(layer: Any, family: Family) -> Iterator[str]:
    """What no shape would show: kinds that are not translated, epsilons, strides."""
    kind, name = _kind(layer), _torch_name(layer.name, family)
    if kind is None:
        yield f"the layer {layer.name} is a {type(layer).__name__}, which has no counterpart"
    elif kind == "BatchNormalization" and layer.epsilon not in (family.epsilon_of(name), *family.epsilon_choices):
        yield f"the layer {layer.name} has epsilon {layer.epsilon}, expected {family.epsilon_of(name)}"
    elif name in family.strides and tuple(layer.strides) != family.strides[name]:
        yield f"the layer {layer.name} has stride {tuple(layer.strides)}, expected {family.strides[name]}"


def _unused(
    state: Mapping[str, Array], fills: list[_Fill], family: Family, *, skip_head: bool, headless: bool
) -> list[str]:
    used = {fill.tensor for fill in fills}
    left = [prefix for prefix in family.auxiliary if not any(name.startswith(prefix) for name in used)]
    left += family.behind if headless else ()
    left += [f"{name}." for name in family.heads.values()] if skip_head else ()
    names = (name for name in state if name not in used and not name.endswith(UNUSED_SUFFIX))
    return [f"{name} {state[name].shape} has no layer" for name in names if not name.startswith(tuple(left))]


def _unfit(network: str, misfits: list[str], family: Family) -> ModelError:
    heads = (*(f"{name}." for name in family.heads.values()), "logits_")
    remedy = f"Give a checkpoint of {network}, and build the network with the checkpoint's arguments"
    if all(misfit.startswith(heads) for misfit in misfits):
        remedy = "Build the network with the checkpoint's classes, or keep the network's own with skip_head=True"
    count = f"{len(misfits)} differences" if len(misfits) > 1 else "one difference"
    return ModelError("model-unfit", f"The checkpoint does not fit {network}, {count}: {'; '.join(misfits)}. {remedy}.")
