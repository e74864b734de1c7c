"""A dense CRF as a layer: mean field unrolled, trained with the network in front of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from visionkit.layers.gaussian_filters import AllPairs, GridBlur
from visionkit.layers.permutohedral import Permutohedral

__all__ = ["DenseCRF"]

METHODS = ("auto", "exact", "lattice")
NORMALIZATIONS = ("symmetric", "none", "before", "after")
OUTPUTS = ("logits", "marginals")
EXACT_PIXELS = 1024  # up to which `auto` takes all pairs, as `visionkit.crf` does


@keras.saving.register_keras_serializable(package="visionkit")
class DenseCRF(keras.layers.Layer):
    """Logits of the marginals of a fully connected CRF over an image, from a network's logits and the image.

    Zheng, Jayasumana, Romera-Paredes, Vineet, Su, Du, Huang, Torr, Conditional random fields as recurrent neural
    networks, ICCV 2015: the mean field of Krähenbühl and Koltun (NIPS 2011) with a bilateral and a Gaussian kernel,
    unrolled, so that the kernels' weights, the compatibility and the network's logits get gradients; the image and the
    kernels' widths get none. Parameters and defaults are those of `visionkit.crf.CRFParams`, and so are the marginals:
    unlike the paper's `after`, kernels are normalised to D^-1/2 K D^-1/2.

    Args:
        iterations: mean field updates; the paper trains with 5 and uses 10. 0 hands the logits through.
        theta_alpha: width in pixels of the bilateral kernel; one number, or one for x and one for y.
        theta_beta: its width in image values (0 to 255); one number, or one for each channel.
        theta_gamma: width in pixels of the Gaussian kernel; one number, or one for x and one for y.
        bilateral_weight, gaussian_weight: of the kernels, at first; 0 leaves a kernel out.
        compat: at first; None for Potts, or costs (L, L): entry [l, m] is what label l pays beside label m.
        normalization: "symmetric", "before", "after" or "none".
        self_term: keep the message of a pixel to itself.
        per_label: learn a weight of each kernel for each label instead of one.
        method: of the bilateral kernel. `exact` sums over all pairs of pixels; `lattice` is the permutohedral lattice,
            linear in the pixels, for any size, known or open. `auto`: exact for known sizes of up to 1,024 pixels.
        output: `logits`, whose softmax are the marginals, or `marginals`.

    Call arguments:
        inputs: [logits (B, H, W, L), image (B, H, W, C) with values of 0 to 255, uint8 or float].

    Returns:
        (B, H, W, L), float32.
    """

    def __init__(
        self,
        iterations: int = 5,
        *,
        theta_alpha: float | Sequence[float] = 80.0,
        theta_beta: float | Sequence[float] = 13.0,
        theta_gamma: float | Sequence[float] = 3.0,
        bilateral_weight: float = 10.0,
        gaussian_weight: float = 3.0,
        compat: Any = None,
        normalization: str = "symmetric",
        self_term: bool = True,
        per_label: bool = False,
        method: str = "auto",
        output: str = "logits",
        **kwargs: Any,
    ) -> None:
        # Half precision knows neither the image's positions nor the sums of the kernels.
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 0:
            raise ValueError(f"`iterations` must be a whole number of at least 0. Received: iterations={iterations!r}.")
        _one_of("normalization", normalization, NORMALIZATIONS)
        _one_of("method", method, METHODS)
        _one_of("output", output, OUTPUTS)
        self.iterations = iterations
        self.theta_alpha = _widths("theta_alpha", theta_alpha)
        self.theta_beta = _widths("theta_beta", theta_beta)
        self.theta_gamma = _widths("theta_gamma", theta_gamma)
        self.bilateral_weight = _weight("bilateral_weight", bilateral_weight)
        self.gaussian_weight = _weight("gaussian_weight", gaussian_weight)
        self.compat = None if compat is None else _matrix(compat)
        self.normalization = normalization
        self.self_term = bool(self_term)
        self.per_label = bool(per_label)
        self.method = method
        self.output_kind = output

    def build(self, input_shape: Any) -> None:
        """Make the kernels' weights () or (L,) and the compatibility (L, L)."""
        logits, image = _checked(input_shape)
        labels = logits[3]
        _spread("theta_alpha", self.theta_alpha, 2)
        _spread("theta_gamma", self.theta_gamma, 2)
        _spread("theta_beta", self.theta_beta, image[3])
        if self.compat is not None and len(self.compat) != labels:
            raise ValueError(f"`compat` is {len(self.compat)} x {len(self.compat)} but there are {labels} labels.")
        shape = (labels,) if self.per_label else ()
        self.bilateral_factor = self._factor("bilateral_weight", self.bilateral_weight, shape)
        self.gaussian_factor = self._factor("gaussian_weight", self.gaussian_weight, shape)
        # Potts: minus the agreement, which differs from the cost of disagreement by a constant per pixel.
        first = -np.eye(labels) if self.compat is None else np.asarray(self.compat)
        self.compatibility = self.add_weight(
            shape=(labels, labels), initializer=lambda shape, dtype: ops.cast(first, dtype), name="compatibility"
        )
        # Sizes of the lattice are found while it runs, which XLA cannot do; JAX takes upper bounds instead.
        self.supports_jit = keras.backend.backend() != "tensorflow" or self._is_exact(logits[1:3])
        self.built = True

    def _factor(self, name: str, value: float, shape: tuple[int, ...]) -> Any:
        if not value:
            return None
        return self.add_weight(shape=shape, initializer=keras.initializers.Constant(value), name=name)

    def call(self, inputs: Any) -> Any:
        """Logits of the marginals, or the marginals, see the class."""
        logits, image = (ops.cast(x, "float32") for x in inputs)
        kernels = self._kernels(image) if self.iterations else []
        compat = ops.transpose(self.compatibility)
        out = logits
        for _ in range(self.iterations):
            marginals = ops.softmax(out, axis=-1)
            message: Any = ops.zeros_like(logits)
            for factor, apply in kernels:
                message = message + factor * apply(marginals)
            out = logits - ops.matmul(message, compat)
        return ops.softmax(out, axis=-1) if self.output_kind == "marginals" else out

    def _kernels(self, image: Any) -> list[tuple[Any, Callable[[Any], Any]]]:
        """Weights of the kernels and their normalised filters of (B, H, W, L)."""
        found = []
        height, width = image.shape[1:3]
        if self.gaussian_factor is not None:
            blur = GridBlur(_spread("theta_gamma", self.theta_gamma, 2), (height, width))
            found.append((self.gaussian_factor, self._normalized(blur, ops.ones_like(image[:1, :, :, :1]))))
        if self.bilateral_factor is not None:
            features = self._features(image)
            # Normalised as a whole the lattice is taken as it is, as pydensecrf does and `visionkit.crf`.
            unit = self.normalization == "none" or not self.self_term
            exact = self._is_exact((height, width))
            points = AllPairs(features) if exact else Permutohedral(features, unit_diagonal=unit)

            def apply(values: Any) -> Any:
                flat = ops.reshape(values, (*ops.shape(features)[:2], values.shape[-1]))
                return ops.reshape(points(flat), ops.shape(values))

            found.append((self.bilateral_factor, self._normalized(apply, ops.ones_like(image[..., :1]))))
        return found

    def _features(self, image: Any) -> Any:
        """Positions and colours in units of the widths, (B, H * W, 2 + C)."""
        batch, height, width, channels = ops.shape(image)
        x, y = (ops.arange(size, dtype="float32") for size in (width, height))
        grid = ops.stack(ops.meshgrid(x, y), axis=-1) / np.array(_spread("theta_alpha", self.theta_alpha, 2), "float32")
        grid = ops.broadcast_to(ops.expand_dims(grid, 0), (batch, height, width, 2))
        colours = image / np.array(_spread("theta_beta", self.theta_beta, image.shape[3]), "float32")
        features = ops.concatenate([grid, colours], axis=-1)
        return ops.reshape(features, (batch, height * width, 2 + channels))

    def _normalized(self, apply: Callable[[Any], Any], ones: Any) -> Callable[[Any], Any]:
        before: Any = 1.0
        after: Any = 1.0
        if self.normalization != "none":
            sums = ops.stop_gradient(ops.maximum(apply(ones), 1e-20))
            if self.normalization == "symmetric":
                before = after = ops.rsqrt(sums)
            elif self.normalization == "before":
                before = 1.0 / sums
            else:
                after = 1.0 / sums

        def normalized(values: Any) -> Any:
            source = before * values
            message = apply(source)
            return after * (message if self.self_term else message - source)

        return normalized

    def _is_exact(self, size_hw: Sequence[int | None]) -> bool:
        if self.method != "auto":
            return self.method == "exact"
        return None not in size_hw and math.prod(size_hw) <= EXACT_PIXELS  # type: ignore[arg-type]

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """The shape of the logits."""
        return tuple(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {
            **super().get_config(),
            "iterations": self.iterations,
            "theta_alpha": self.theta_alpha,
            "theta_beta": self.theta_beta,
            "theta_gamma": self.theta_gamma,
            "bilateral_weight": self.bilateral_weight,
            "gaussian_weight": self.gaussian_weight,
            "compat": self.compat,
            "normalization": self.normalization,
            "self_term": self.self_term,
            "per_label": self.per_label,
            "method": self.method,
            "output": self.output_kind,
        }


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"`{name}` must be one of {', '.join(known)}. Received: {name}={value!r}.")


def _weight(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < math.inf:
        raise ValueError(f"`{name}` must be a number of at least 0. Received: {name}={value!r}.")
    return float(value)


def _widths(name: str, value: Any) -> float | list[float]:
    """One width, or a list of them; a list, since that is what a saved config gives back."""
    several = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
    parts = list(value) if several else [value]
    numbers = all(isinstance(part, int | float | np.number) and not isinstance(part, bool) for part in parts)
    if not parts or not numbers or not all(0 < part < math.inf for part in parts):
        raise ValueError(f"`{name}` must be one positive number, or several. Received: {name}={value!r}.")
    return [float(part) for part in parts] if several else float(parts[0])


def _spread(name: str, widths: float | list[float], count: int) -> tuple[float, ...]:
    spread = tuple(widths) if isinstance(widths, list) else (widths,) * count
    if len(spread) != count:
        raise ValueError(f"`{name}` must be one number or {count}. Received: {name}={widths}.")
    return spread


def _matrix(value: Any) -> list[list[float]]:
    try:
        matrix = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
        raise ValueError(f"`compat` must be None or a finite matrix (L, L). Received: compat={value!r}.")
    return [[float(entry) for entry in row] for row in matrix]


def _checked(input_shape: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    shapes = [tuple(shape) for shape in input_shape]
    if len(shapes) != 2 or any(len(shape) != 4 or shape[3] is None for shape in shapes):
        raise ValueError(
            f"`inputs` must be [logits (B, H, W, L), image (B, H, W, C)], L and C known. Received: {shapes}."
        )
    for a, b in zip(shapes[0][:3], shapes[1][:3], strict=True):
        if None not in (a, b) and a != b:
            raise ValueError(f"The logits and the image must be of one size. Received: {shapes[0]} and {shapes[1]}.")
    return shapes[0], shapes[1]
