"""Unary costs (-log p) from what networks or annotators give, and the checks on what a CRF is handed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["check_image", "check_initial", "check_unary", "unary_from_labels", "unary_from_probs"]

SMALLEST = 1e-5  # pydensecrf's clip: no label is ever impossible


def unary_from_probs(probs: npt.ArrayLike, smallest: float = SMALLEST) -> npt.NDArray[np.float32]:
    """Costs float32 (..., L) = -log p of probabilities (..., L), clipped from below at `smallest`."""
    values = np.asarray(probs, np.float32)
    if values.ndim < 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"`probs` must be finite and not empty. Received: {_described(values)}.")
    if float(values.min()) < 0 or float(values.max()) > 1 + 1e-3:
        raise ValueError(
            "`probs` must lie in [0, 1] (logits need a softmax first). "
            f"Received: values from {values.min():.4g} to {values.max():.4g}."
        )
    if not 0 < smallest < 1:
        raise ValueError(f"`smallest` must lie between 0 and 1. Received: smallest={smallest}.")
    return -np.log(np.clip(values, np.float32(smallest), np.float32(1)))


def unary_from_labels(
    labels: npt.ArrayLike, n: int, probability: float, unsure: int | None = None
) -> npt.NDArray[np.float32]:
    """Costs float32 (H, W, L) of annotated labels that are trusted with `probability`.

    The other labels share the rest; where the annotator is unsure, all labels cost log L.

    Args:
        labels: integer (H, W), values 0 to n - 1, and `unsure`.
        n: number of labels L, `unsure` not counted.
        probability: between 0 and 1, that an annotation is right.
        unsure: the value that means "don't know", for example 255; None: there is none.
    """
    values = np.asarray(labels)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"`labels` must be an integer array (H, W). Received: {_described(values)}.")
    if n < 1 or not 0 < probability < 1:
        raise ValueError(
            f"`n` must be at least 1 and `probability` lie between 0 and 1. Received: n={n}, probability={probability}."
        )
    known = np.ones(values.shape, bool) if unsure is None else values != unsure
    used = values[known]
    if used.size and (used.min() < 0 or used.max() >= n):
        raise ValueError(f"`labels` must lie in 0 to {n - 1}. Received: {used.min()} to {used.max()}.")
    other = -np.log((1 - probability) / (n - 1)) if n > 1 else 0.0
    unary = np.full((*values.shape, n), other, np.float32)
    rows, columns = np.nonzero(known)
    unary[rows, columns, used] = -np.log(probability)
    unary[~known] = np.log(n)
    return unary


def check_unary(unary: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """`unary` as contiguous float32 (H, W, L), not copied where it is that; ValueError where it cannot be."""
    values = np.asarray(unary)
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"`unary` must have shape (H, W, L), labels last. Received: shape={values.shape}.")
    values = np.ascontiguousarray(values, np.float32)
    # One number instead of a mask as large as the array: a sum is finite only where all its terms are.
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(np.sum(values))
    if suspicious and (bad := int(values.size - np.count_nonzero(np.isfinite(values)))):
        raise ValueError(
            f"`unary` must be finite; {bad} of {values.size} values are NaN or infinite. "
            "Make it by `unary_from_probs`, which keeps probabilities of 0 apart from log 0."
        )
    return values


def check_image(image: npt.ArrayLike, size_hw: tuple[int, int] | None = None) -> npt.NDArray[Any]:
    """`image` as (H, W, C) of numbers; (H, W) gains a channel. ValueError where it is none or not of `size_hw`."""
    values = np.asarray(image)
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or 0 in values.shape or values.dtype.kind not in "uif":
        raise ValueError(f"`image` must be numbers (H, W, C). Received: {_described(values)}.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("`image` must be finite. Received: NaN or infinite values.")
    if size_hw is not None and values.shape[:2] != size_hw:
        raise ValueError(
            f"`unary` (H, W, L) and `image` (H, W, C) must be of one size, labels last. "
            f"Received: {size_hw} and {values.shape[:2]}."
        )
    return values


def check_initial(initial: npt.ArrayLike | None, shape: tuple[int, ...]) -> npt.NDArray[np.float32] | None:
    """First marginals as contiguous float32 of `shape`, each pixel summing to 1; None stays None."""
    if initial is None:
        return None
    values = np.ascontiguousarray(initial, np.float32)
    if values.shape != shape:
        raise ValueError(f"`initial` must have the unary's shape {shape}. Received: shape={values.shape}.")
    sums = values.sum(axis=-1)
    if not np.isfinite(sums).all() or float(values.min()) < 0 or float(sums.min()) <= 0:
        raise ValueError("`initial` must be probabilities: finite, none below 0, no pixel all 0.")
    return values / sums[..., None]


def _described(values: npt.NDArray[Any]) -> str:
    return f"shape={values.shape}, dtype={values.dtype}"
