"""The signatures of an exported model: the functions of a plan with the specifications of their inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from visionkit.export.plan import ExportOptions, ExportPlan
from visionkit.runtime.base import TensorSpec
from visionkit.runtime.convert import DEFAULT, NamedCall
from visionkit.runtime.keras_net import ordered_call, signature_of

if TYPE_CHECKING:
    import keras

__all__ = ["EMBED", "EMBEDDING", "IMAGE", "Signatures"]

IMAGE, EMBED, EMBEDDING = "image", "embed", "embedding"
ANY = (None, None, None, 3)


@dataclass(frozen=True)
class Signatures:
    """What a plan's artifact answers to.

    Args:
        plan: of the model.
        options: of the export.
        fixed_hw: of the images that `serving_default` takes where it does not resize.
    """

    plan: ExportPlan
    options: ExportOptions
    fixed_hw: tuple[int, int]

    @functools.cached_property
    def calls(self) -> dict[str, NamedCall]:
        """By name, `serving_default` first."""
        found = {DEFAULT: self.serving, **{name: self.raw(name) for name in self.plan.raw}}
        embed = self.plan.embed
        if embed is not None:
            fixed = self.options.fixed
            found[EMBED] = NamedCall(lambda image: {EMBEDDING: embed(image, fixed)}, (self.image,))
        return found

    @property
    def image(self) -> TensorSpec:
        """What `serving_default` takes, where that is an image."""
        shape = (self.options.batch, *self.fixed_hw, 3) if self.options.fixed else ANY
        return TensorSpec(IMAGE, shape, np.dtype(np.uint8))

    @property
    def serving(self) -> NamedCall:
        serve, fixed = self.plan.serve, self.options.fixed
        if serve is None:
            return self.raw(self.plan.default)
        return NamedCall(lambda image: serve(image, fixed), (self.image,))

    def raw(self, name: str) -> NamedCall:
        """A network's own tensors in and out."""
        model = self.plan.raw[name]
        known = signature_of(model, self.options.batch)
        inputs = known.inputs
        if not self.options.fixed:
            inputs = tuple(_open(spec, tensor.shape[0]) for spec, tensor in zip(inputs, model.inputs, strict=True))
        return NamedCall(_named(model, [s.name for s in inputs], [s.name for s in known.outputs]), inputs)


def _open(spec: TensorSpec, batch: int | None) -> TensorSpec:
    """The same for as many images as come, where the network says so."""
    return spec if batch is not None else TensorSpec(spec.name, (None, *spec.shape[1:]), spec.dtype)


def _named(model: keras.Model, inputs: list[str], outputs: list[str]) -> Callable[..., Mapping[str, Any]]:
    call = ordered_call(model)

    def named(**tensors: Any) -> dict[str, Any]:
        return dict(zip(outputs, call([tensors[name] for name in inputs]), strict=True))

    return named
