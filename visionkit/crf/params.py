"""What a dense CRF is told: kernels, compatibility, normalisation, iterations; in the words of both communities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["NORMALIZATIONS", "CRFParams", "Normalization", "Width"]

Normalization = Literal["symmetric", "none", "before", "after"]
NORMALIZATIONS: tuple[Normalization, ...] = ("symmetric", "none", "before", "after")
Width = float | tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CRFParams:
    """Parameters of a fully connected CRF with a bilateral and a Gaussian kernel.

    Krähenbühl and Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NIPS 2011, eq. 3;
    the defaults are those of pydensecrf's example. pydensecrf does not compute the paper's formula literally: it
    normalises each kernel to D^-1/2 K D^-1/2 and keeps the term j = i. So do the defaults; the paper's own form is
    `normalization="none", self_term=False`.

    Args:
        theta_alpha: width in pixels of the bilateral kernel; one number, or one for x and one for y.
        theta_beta: its width in image values (0 to 255); one number, or one for each channel.
        theta_gamma: width in pixels of the Gaussian kernel; one number, or one for x and one for y.
        bilateral_weight: w1, `compat` of pydensecrf's addPairwiseBilateral; 0 leaves the kernel out.
        gaussian_weight: w2, `compat` of addPairwiseGaussian; 0 leaves the kernel out.
        iterations: mean field updates after Q = softmax(-unary); 0 returns just that.
        compat: None for Potts, or costs (L, L): entry [l, m] is what label l pays beside label m.
        normalization: "symmetric" D^-1/2 K D^-1/2, "before" K D^-1, "after" D^-1 K, or "none". D holds the row sums of
            K, the term j = i included.
        self_term: keep the message of a pixel to itself, as pydensecrf; False leaves it out, as the paper.
    """

    theta_alpha: Width = 80.0
    theta_beta: Width = 13.0
    theta_gamma: Width = 3.0
    bilateral_weight: float = 10.0
    gaussian_weight: float = 3.0
    iterations: int = 5
    compat: Any = None
    normalization: Normalization = "symmetric"
    self_term: bool = True

    def __post_init__(self) -> None:
        for name in ("theta_alpha", "theta_beta", "theta_gamma"):
            object.__setattr__(self, name, _width(name, getattr(self, name)))
        for name in ("theta_alpha", "theta_gamma"):
            if isinstance(value := getattr(self, name), tuple) and len(value) != 2:
                raise ValueError(f"`{name}` must be one number or two (x, y). Received: {name}={value}.")
        for name in ("bilateral_weight", "gaussian_weight"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value < math.inf:
                raise ValueError(f"`{name}` must be a number of at least 0. Received: {name}={value!r}.")
            object.__setattr__(self, name, float(value))
        if (
            isinstance(self.iterations, bool)
            or not isinstance(self.iterations, int | np.integer)
            or self.iterations < 0
        ):
            raise ValueError(f"`iterations` must be a whole number >= 0. Received: iterations={self.iterations!r}.")
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(
                f"`normalization` must be one of {', '.join(NORMALIZATIONS)}. "
                f"Received: normalization={self.normalization!r}."
            )
        object.__setattr__(self, "iterations", int(self.iterations))
        object.__setattr__(self, "self_term", bool(self.self_term))
        object.__setattr__(self, "compat", _compat(self.compat))

    @classmethod
    def from_pydensecrf(
        cls,
        *,
        sxy: Width = 80.0,
        srgb: Width = 13.0,
        compat: float = 10.0,
        gaussian_sxy: Width = 3.0,
        gaussian_compat: float = 3.0,
        iterations: int = 5,
        normalization: str = "NORMALIZE_SYMMETRIC",
    ) -> CRFParams:
        """The same CRF in pydensecrf's words.

        Args:
            sxy, srgb, compat: as given to addPairwiseBilateral (`schan` of its generic features is `srgb`).
            gaussian_sxy, gaussian_compat: `sxy` and `compat` as given to addPairwiseGaussian.
            iterations: as given to inference.
            normalization: NORMALIZE_SYMMETRIC, NORMALIZE_BEFORE or NORMALIZE_AFTER. (Its NO_NORMALIZATION divides
                by the mean row sum and has no counterpart here.)
        """
        known: dict[str, Normalization] = {
            f"NORMALIZE_{name.upper()}": name for name in ("symmetric", "before", "after")
        }
        if normalization not in known:
            raise ValueError(f"`normalization` must be one of {', '.join(known)}. Received: {normalization!r}.")
        return cls(
            theta_alpha=sxy,
            theta_beta=srgb,
            theta_gamma=gaussian_sxy,
            bilateral_weight=compat,
            gaussian_weight=gaussian_compat,
            iterations=iterations,
            normalization=known[normalization],
        )

    def to_pydensecrf(self) -> dict[str, dict[str, Any]]:
        """Keyword arguments for pydensecrf's addPairwiseGaussian, addPairwiseBilateral and inference, by name."""
        if self.normalization == "none" or not self.self_term or self.compat is not None:
            raise ValueError(
                "pydensecrf has no counterpart of these parameters: it needs a normalization, the self term and Potts. "
                f"Received: {self}."
            )
        return {
            "gaussian": {"sxy": self.theta_gamma, "compat": self.gaussian_weight},
            "bilateral": {"sxy": self.theta_alpha, "srgb": self.theta_beta, "compat": self.bilateral_weight},
            "inference": {"n_iterations": self.iterations},
        }

    def compat_matrix(self, labels: int) -> npt.NDArray[np.float32] | None:
        """The costs float32 (L, L), or None for Potts; ValueError where they are of another number of labels."""
        if self.compat is None:
            return None
        matrix = np.asarray(self.compat, np.float32)
        if len(matrix) != labels:
            raise ValueError(f"`compat` is {matrix.shape} but the unary has {labels} labels.")
        return matrix

    def bilateral_widths(self, channels: int) -> npt.NDArray[np.float64]:
        """Widths of the bilateral kernel's features x, y and each channel: (2 + C,)."""
        beta = self.theta_beta
        if isinstance(beta, tuple) and len(beta) != channels:
            raise ValueError(f"`theta_beta` has {len(beta)} widths but the image has {channels} channels.")
        return np.concatenate([_spread(self.theta_alpha, 2), _spread(beta, channels)])

    def gaussian_widths(self) -> tuple[float, float]:
        """Widths of the Gaussian kernel along x and y."""
        x, y = _spread(self.theta_gamma, 2)
        return float(x), float(y)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _width(name: str, value: Any) -> Width:
    several = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
    parts = list(value) if several else [value]
    if not parts or not all(_is_number(part) and 0 < part < math.inf for part in parts):
        raise ValueError(f"`{name}` must be one positive number, or several. Received: {name}={value!r}.")
    return tuple(float(part) for part in parts) if several else float(parts[0])


def _spread(value: Width, count: int) -> npt.NDArray[np.float64]:
    return np.asarray(value if isinstance(value, tuple) else (value,) * count, np.float64)


def _compat(value: Any) -> tuple[tuple[float, ...], ...] | None:
    if value is None:
        return None
    try:
        matrix = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
        raise ValueError(f"`compat` must be None or a finite matrix (L, L). Received: compat={value!r}.")
    # Tuples, so that parameters compare, hash and go into a Keras config.
    return tuple(tuple(row) for row in matrix.tolist())
