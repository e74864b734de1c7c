"""Where in an image the evidence for a class lies: Grad-CAM, and guided backpropagation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError, UsageError
from visionkit.inspection.activations import activation_of
from visionkit.inspection.running import run
from visionkit.inspection.walk import functional_of, name_of, nodes_of

__all__ = ["METHODS", "Explanation", "best_class", "explain", "explained_layer"]

Array = npt.NDArray[np.float32]
# From a function of a tensor and a point to the function's value there and the gradient of its sum.
Gradient = Callable[[Callable[[Any], Any], npt.ArrayLike], tuple[Array, Array]]
METHODS = ("gradcam", "guided")


class Explanation(NamedTuple):
    """`heat` float32 (h, w) in [0, 1], spread over the whole input; the layer it was taken at; the class's logit."""

    heat: Array
    layer: str
    score: float


def explain(
    model: keras.Model,
    image: Array,
    class_id: int,
    *,
    gradient: Gradient,
    method: str = "gradcam",
    layer: str | None = None,
    head: str | None = None,
) -> Explanation:
    """The evidence for a class in one image.

    `gradcam` weighs the channels of the last feature map by the mean gradient of the class's logit and keeps what
    speaks for it (Selvaraju et al., Grad-CAM, ICCV 2017, equations 1 and 2): coarse, and about the class. `guided`
    goes back to the pixels, letting only positive signals pass a rectifier (Springenberg et al., Striving for
    simplicity, ICLR 2015 workshop, after the deconvnet of Zeiler and Fergus, ECCV 2014; max pooling's gradient goes
    through its switches): fine, and more about the image than about the class.

    Args:
        model: a functional classifier of one input.
        image: float32 (H, W, C), as the network takes it.
        class_id: of the logit.
        gradient: as `visionkit.runtime.gradients.gradient`.
        method: `gradcam` or `guided`.
        layer: whose map Grad-CAM weighs; None takes the last one that still is a map.
        head: which output, where there are several.

    Raises:
        ModelError: `model-unfit`; there is no feature map, or no class scores.
        UsageError: `class-unknown`, `layer-unknown`, `head-unknown`.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}. Received: method={method!r}.")
    if method == "guided":
        heat, score = _guided(model, image, class_id, gradient, head)
        return Explanation(heat, "input", score)
    layer = explained_layer(model, image, layer)
    heat, score = _gradcam(model, image, class_id, gradient, layer, head)
    return Explanation(heat, layer, score)


def best_class(model: keras.Model, image: Array, *, head: str | None = None) -> int:
    """The class that scores best in `image` (H, W, C), as the network takes it."""
    scores = _scores(run(model, [image[None]]), head, model.name)
    mean = np.asarray(keras.ops.convert_to_numpy(scores), np.float32)
    return int(mean.reshape(-1, mean.shape[-1]).mean(axis=0).argmax())


def explained_layer(model: keras.Model, image: Array, wanted: str | None) -> str:
    """Name of the layer whose map is weighed: the one asked for, or the last with more than one position."""
    maps: list[str] = []

    def watch(name: str, _: Any, outputs: list[Any]) -> list[Any]:
        shape = tuple(outputs[0].shape)
        if len(outputs) == 1 and len(shape) == 4 and shape[1] * shape[2] > 1:
            maps.append(name)
        return outputs

    run(model, [image[None]], watch)
    top = {name_of(node.operation) for node in nodes_of(functional_of(model))}
    known = [name for name in maps if name in top]  # inside a nested model a name may stand for several uses
    if wanted is not None and wanted not in known:
        raise UsageError("layer-unknown", f"There is no layer {wanted!r} that gives a map. The last are: {known[-5:]}.")
    if not known:
        raise ModelError("model-unfit", f"{model.name!r} has no layer that gives a feature map.")
    return wanted or known[-1]


def _gradcam(
    model: keras.Model, image: Array, class_id: int, gradient: Gradient, layer: str, head: str | None
) -> tuple[Array, float]:
    found: list[Any] = []

    def keep(name: str, _: Any, outputs: list[Any]) -> list[Any]:
        if name == layer:
            found.append(outputs[0])
        return outputs

    run(model, [image[None]], keep)
    features = np.asarray(keras.ops.convert_to_numpy(found[0]), np.float32)  # (1, h, w, C)

    def score(tensor: Any) -> Any:
        def put(name: str, _: Any, outputs: list[Any]) -> list[Any]:
            return [tensor] if name == layer else outputs

        return _logit(run(model, [image[None]], put), class_id, head, model.name)

    value, slope = gradient(score, features)
    weights = slope.mean(axis=(1, 2), keepdims=True)
    return _unit(np.maximum((weights * features).sum(axis=-1)[0], 0)), float(value.sum())


def _guided(
    model: keras.Model, image: Array, class_id: int, gradient: Gradient, head: str | None
) -> tuple[Array, float]:
    @keras.ops.custom_gradient
    def only_positive(x: Any) -> Any:
        def back(*args: Any, upstream: Any = None) -> Any:
            return keras.ops.relu(args[0] if upstream is None else upstream)

        return x, back

    def gate(_: str, layer: Any, outputs: list[Any]) -> list[Any]:
        # behind the rectifier, whose own gradient then drops what it did not let through
        return [only_positive(outputs[0])] if activation_of(layer) in ("relu", "relu6") else outputs

    def score(tensor: Any) -> Any:
        return _logit(run(model, [tensor], gate), class_id, head, model.name)

    value, slope = gradient(score, image[None])
    heat = np.abs(slope[0]).max(axis=-1)
    if heat.any():  # a few pixels far above all others would leave the rest in the dark
        heat = np.minimum(heat, np.quantile(heat[heat > 0], 0.995))
    return _unit(heat), float(value.sum())


def _logit(outputs: Any, class_id: int, head: str | None, name: str) -> Any:
    """The class's own score; a dense map's is the mean over its positions."""
    scores = _scores(outputs, head, name)
    if not 0 <= class_id < scores.shape[-1]:
        raise UsageError("class-unknown", f"{name!r} has the classes 0 to {scores.shape[-1] - 1}, no {class_id}.")
    return keras.ops.mean(scores[..., class_id])


def _scores(outputs: Any, head: str | None, name: str) -> Any:
    if isinstance(outputs, dict):
        head = head or ("logits" if "logits" in outputs else next(iter(outputs)))
        if head not in outputs:
            raise UsageError("head-unknown", f"{name!r} has no output {head!r}. There are: {', '.join(outputs)}.")
        outputs = outputs[head]
    elif isinstance(outputs, list | tuple):
        outputs = outputs[0]
    if len(outputs.shape) not in (2, 4):
        raise ModelError("model-unfit", f"{name!r} gives {tuple(outputs.shape)}, no class scores.")
    return outputs


def _unit(heat: Array) -> Array:
    highest = float(heat.max())
    return (heat / highest if highest > 0 else np.zeros_like(heat)).astype(np.float32)
