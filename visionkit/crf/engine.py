"""The fast mean field: which engine runs, one image or many, from scratch or from earlier marginals."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from visionkit.crf.exact import mean_field_exact
from visionkit.crf.params import CRFParams
from visionkit.crf.unary import check_image, check_initial, check_unary

__all__ = [
    "ENGINES",
    "EXACT_PIXELS",
    "FastMeanField",
    "available_engine",
    "mean_field",
    "mean_field_batch",
    "must_compile",
]

Array = npt.NDArray[np.float32]
Engine = Literal["auto", "numba", "scipy", "exact"]
ENGINES: tuple[Engine, ...] = ("auto", "numba", "scipy", "exact")
EXACT_PIXELS = 1024  # up to here the sum over all pairs costs no more than building a lattice, and is exact


def available_engine() -> Literal["numba", "scipy"]:
    """The engine that runs on images of any size: "numba" where that is installed, else "scipy"."""
    return "numba" if importlib.util.find_spec("numba") else "scipy"


class FastMeanField:
    """Mean field inference over one image, its lattice built once for any number of unaries.

    Krähenbühl and Koltun, NIPS 2011, algorithm 1. The bilateral kernel is filtered on the permutohedral lattice
    (Adams, Baek and Davis, Eurographics 2010), the Gaussian one by two true Gaussians along y and x. Row sums for the
    normalisation are those of the filters.

    Args:
        image: (H, W, C), any number of channels; their order does not matter but for the last digits.
        params: default: CRFParams().
        threads: default: all cores this process may use. The same number gives the same bits.
        engine: "auto", or "numba" (compiled), "scipy" (the same without numba, several times slower) or "exact"
            (`mean_field_exact`). "auto" is exact up to 1,024 pixels, else numba where it is installed, else scipy with
            a warning. The attribute `engine` says which one runs.
    """

    def __init__(
        self,
        image: npt.ArrayLike,
        params: CRFParams | None = None,
        *,
        threads: int | None = None,
        engine: Engine = "auto",
    ) -> None:
        if engine not in ENGINES:
            raise ValueError(f"`engine` must be one of {', '.join(ENGINES)}. Received: engine={engine!r}.")
        if threads is not None and threads < 1:
            raise ValueError(f"`threads` must be None or at least 1. Received: threads={threads}.")
        self.params = params or CRFParams()
        self._image = check_image(image)
        self.size_hw: tuple[int, int] = (self._image.shape[0], self._image.shape[1])
        self.engine = self._choose(engine)
        self._field = self._make(threads)

    def __call__(
        self, unary: npt.ArrayLike, *, initial: npt.ArrayLike | None = None, iterations: int | None = None
    ) -> Array:
        """Marginals float32 (H, W, L) for costs `unary` (H, W, L) = -log p.

        Args:
            unary: finite; any number of labels.
            initial: marginals (H, W, L) to start from instead of softmax(-unary).
            iterations: default: those of the parameters.
        """
        costs = check_unary(unary)
        if costs.shape[:2] != self.size_hw:
            raise ValueError(
                "`unary` (H, W, L) must be of the image's size, labels last. "
                f"Received: shape={costs.shape}, image {self.size_hw}."
            )
        count = self.params.iterations if iterations is None else iterations
        if count < 0:
            raise ValueError(f"`iterations` must be at least 0. Received: iterations={iterations}.")
        first = check_initial(initial, costs.shape)
        if self._field is not None:
            return np.asarray(self._field.infer(costs, first, count))
        return mean_field_exact(costs, self._image, replace(self.params, iterations=count), initial=first)

    def _choose(self, engine: Engine) -> Engine:
        if engine != "auto":
            return engine
        if self.size_hw[0] * self.size_hw[1] <= EXACT_PIXELS:
            return "exact"
        found = available_engine()
        trouble = "numba is not installed" if found == "scipy" else _trouble()
        if not trouble:
            return found
        warnings.warn(
            f"{trouble}: the dense CRF runs on SciPy, 10 to 20 times slower (pip install numba).",
            RuntimeWarning,
            stacklevel=4,
        )
        return "scipy"

    def _make(self, threads: int | None) -> Any:
        if self.engine == "exact":
            return None
        if self.engine == "scipy":
            from visionkit.crf.plain import PlainField

            return PlainField(self._image, self.params)
        from visionkit.crf.compiled import CompiledField

        return CompiledField(self._image, self.params, threads)


def _trouble() -> str:
    """Why numba, though installed, cannot be used: it refuses a NumPy newer than it knows. Empty where it can."""
    from visionkit.crf.compiled import load_kernels

    try:
        load_kernels()
    except ImportError as problem:
        return f"numba cannot be imported ({str(problem).splitlines()[0]})"
    return ""


def must_compile() -> bool:
    """Whether the first CRF of more than 1,024 pixels will compile its loops, 10 s of once on a machine."""
    from visionkit.crf.compiled import kernels_are_kept

    return available_engine() == "numba" and not kernels_are_kept()


def mean_field(
    unary: npt.ArrayLike,
    image: npt.ArrayLike,
    params: CRFParams | None = None,
    *,
    initial: npt.ArrayLike | None = None,
    threads: int | None = None,
    engine: Engine = "auto",
) -> Array:
    """Marginals float32 (H, W, L) of the fully connected CRF over one image; arguments as of `FastMeanField`."""
    return FastMeanField(image, params, threads=threads, engine=engine)(unary, initial=initial)


def mean_field_batch(
    unaries: npt.ArrayLike,
    images: npt.ArrayLike,
    params: CRFParams | None = None,
    *,
    initial: npt.ArrayLike | None = None,
    threads: int | None = None,
    engine: Engine = "auto",
) -> Array:
    """Marginals float32 (B, H, W, L) of unaries (B, H, W, L) over images (B, H, W, C), each for itself."""
    costs, pictures = np.asarray(unaries), np.asarray(images)
    if costs.ndim != 4 or pictures.ndim != 4 or len(costs) != len(pictures):
        raise ValueError(
            "`unaries` (B, H, W, L) and `images` (B, H, W, C) must be equally many. "
            f"Received: shapes {costs.shape} and {pictures.shape}."
        )
    starts = [None] * len(costs) if initial is None else np.asarray(initial)
    if len(starts) != len(costs):
        raise ValueError(f"`initial` must have one entry for each of {len(costs)} images. Received: {len(starts)}.")
    result = np.empty(costs.shape, np.float32)
    for i, (cost, picture, start) in enumerate(zip(costs, pictures, starts, strict=True)):
        result[i] = mean_field(cost, picture, params, initial=start, threads=threads, engine=engine)
    return result
