"""Faults of a calibration set, found before it is used: normalised twice, other levels than the network's, BGR for RGB.

Ranges measured on such inputs are wrong without a word: the network quantizes, runs, and is worse than it must be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visionkit.runtime.base import Array
from visionkit.tasks.input_rule import PRESETS, InputRule

__all__ = ["Checked", "Finding", "check_calibration", "checked", "confidence"]

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Network = Callable[[Array], Mapping[str, Array]]

VALUES = 1 << 12  # of one input that are looked at
ON_GRID, INSIDE = 0.9, 0.999
GRID_TOLERANCE = 0.06
NARROW, WIDE = 70.0, 150.0  # grey levels between the 0.5th and the 99.5th percentile of a whole set
SURE_DEVIATIONS = 4.0  # of a mean from 0, in its standard errors
NETWORK_GAIN = 0.003  # in the mean, by exchanging red and blue
MOST_GAIN = 0.1  # that one image counts for: a few on which a network turns round would hide what it thinks of the rest
RIGHT = 2.0  # standard errors of a loss from which the order is right
WARM, COLD = 3.0, 1.5  # standard errors of that: photographs are rarely more blue than red, so that then less will do
KNOWN = 0.7  # confidence in the mean below which the images are none that the network knows
LEAST_IMAGES = 8
BEST_BOXES = 20


@dataclass(frozen=True)
class Finding:
    """One fault.

    Args:
        slug: `normalised-twice`, `range` or `channel-order`.
        message: what came, what was expected, what to do.
    """

    slug: str
    message: str


@dataclass(frozen=True)
class Checked:
    """What a check found, and why it could not tell whether the channels' order is right, where it could not."""

    findings: tuple[Finding, ...] = ()
    unjudged: str = ""


@dataclass(frozen=True)
class Reading:
    """A way in which inputs may have been made from grey levels: level = value * scale + shift, by channel."""

    slug: str
    says: str
    scale: Floats
    shift: Floats

    def levels(self, values: Floats) -> Floats:
        return values * self.scale + self.shift


@dataclass(frozen=True)
class Fit:
    """How well a reading explains a set: shares within 0 to 255 and at whole levels, and the spread in levels."""

    inside: float
    on_grid: float
    spread: float


def check_calibration(
    given: Sequence[Array],
    rule: InputRule,
    *,
    network: Network | None = None,
    reference: Sequence[Image] = (),
) -> list[Finding]:
    """What is wrong with a calibration set; an empty list for a sound one. The arguments are those of `checked`."""
    return list(checked(given, rule, network=network, reference=reference).findings)


def checked(
    given: Sequence[Array],
    rule: InputRule,
    *,
    network: Network | None = None,
    reference: Sequence[Image] = (),
) -> Checked:
    """What is wrong with a calibration set, and what could not be told.

    Args:
        given: images uint8 (H, W, 3) BGR of any sizes, or network inputs float32 (h, w, C) or (1, h, w, C).
        rule: by which images become the network's inputs.
        network: the float network, from its input (1, h, w, C) to its outputs by name: where it is much surer of the
            images with red and blue exchanged, they are in the other order.
        reference: images of the same kind whose order is known to be right, such as those that the network is
            measured on.
    """
    if not len(given):
        return Checked()
    are_images = all(one.dtype == np.uint8 for one in given)
    found = _image_levels(given) if are_images else _input_levels([_plain(one) for one in given], rule)
    if found is not None:  # the order of broken levels tells nothing
        return Checked((found,))
    return _order(given, rule, are_images, network, reference) if rule.channels == 3 else Checked()


def confidence(outputs: Mapping[str, Array]) -> float | None:
    """How sure a network is, 0 to 1, from its classes' logits; None if it has none.

    Of (1, L) the largest probability; of (1, N, L) the mean of the surest boxes', background left out; of (1, h, w, L)
    the mean over the pixels.
    """
    for name, values in outputs.items():
        if ("logit" not in name and "prob" not in name and "score" not in name) or values.shape[-1] < 2:
            continue
        levels = values.astype(np.float64)
        exponents = np.exp(levels - levels.max(axis=-1, keepdims=True))
        shares = exponents / exponents.sum(axis=-1, keepdims=True)
        if shares.ndim == 3:
            return float(np.sort(shares[..., 1:].max(axis=-1).ravel())[-BEST_BOXES:].mean())
        return float(shares.max(axis=-1).mean())
    return None


def _plain(given: Array) -> Floats:
    """A network input as (values, C), thinned out."""
    values = np.asarray(given, np.float64).reshape(-1, given.shape[-1])
    return values[:: max(1, len(values) // VALUES)]


def _image_levels(images: Sequence[Array]) -> Finding | None:
    """A fault of images in bytes whose levels are not grey levels."""
    values = np.concatenate([image.reshape(-1)[:: max(1, image.size // VALUES)] for image in images])
    if np.percentile(values, 99.9) <= 8:
        return Finding(
            "range",
            f"the images are all but black: no level is above {int(values.max())}, where 0 to 255 was expected; they "
            "look like values from 0 to 1 or normalised ones put into bytes. Give the images as they were decoded",
        )
    if len(np.unique(values)) <= 16 and np.mean((values <= 8) | (values >= 248)) > INSIDE:
        return Finding(
            "normalised-twice",
            "the images have levels near 0 and 255 alone: they look like inputs that were normalised already and put "
            "into bytes, and would be normalised again. Give the images as they were decoded",
        )
    return None


def _input_levels(inputs: Sequence[Floats], rule: InputRule) -> Finding | None:
    """A fault of network inputs, by the reading of their values that explains them best."""
    values = np.concatenate(inputs)
    readings = _readings(rule)
    fits = {reading.slug: _fit(reading.levels(values)) for reading in readings}
    right = fits["right"]
    if right.inside >= INSIDE and right.on_grid >= ON_GRID:
        return None
    others = [reading for reading in readings if reading.slug != "right" and fits[reading.slug].inside >= INSIDE]
    sure = [reading for reading in others if fits[reading.slug].on_grid >= ON_GRID]
    wide = [reading for reading in others if fits[reading.slug].spread >= WIDE]
    if right.inside >= INSIDE and not sure and not (right.spread < NARROW and wide):
        return None
    likely = sorted(sure or wide, key=lambda reading: -fits[reading.slug].spread)
    low, high = values.min(axis=0), values.max(axis=0)
    bottom, top = ((level - readings[0].shift) / readings[0].scale for level in (0.0, 255.0))
    seen, expected = (f"{_told(a)} to {_told(b)}" for a, b in ((low, high), (bottom, top)))
    facts = f"values from {seen} came, where {expected} (by channel) was expected"
    if not likely:
        return Finding("range", f"{facts}. Give images, which the card's rule normalises, or inputs made by that rule")
    slug = likely[0].slug if likely[0].slug in ("normalised-twice", "channel-order") else "range"
    return Finding(slug, f"{likely[0].says}: {facts}. Give images, or inputs normalised once, by the card's rule")


def _readings(rule: InputRule) -> list[Reading]:
    """The right one first, then the faults that are usual; those that would say the same as an earlier one left out."""
    mean, std = (np.asarray(part[: rule.channels], np.float64) for part in (rule.mean, rule.std))
    one, zero = np.ones(rule.channels), np.zeros(rule.channels)
    found = [
        Reading("right", "", std, mean),
        Reading("normalised-twice", "the inputs were normalised twice", std * std, mean * std + mean),
        Reading("unit-levels", "the images had levels of 0 to 1, not 0 to 255, when they were normalised", 255 * std,
                255 * mean),
        Reading("raw", "the inputs are grey levels that nobody normalised", one, zero),
        Reading("unit", "the inputs are levels divided by 255, not what the card's rule makes", 255 * one, zero),
    ]  # fmt: skip
    says = "red and blue are exchanged, after the inputs were normalised"
    found.append(Reading("channel-order", says, std[::-1], mean[::-1]))
    for name, preset in PRESETS.items():
        scale, shift = (np.asarray(part[: rule.channels], np.float64) for part in (preset.std, preset.mean))
        says = f"the inputs are normalised as preset {name!r} does it, not as the card's rule does"
        found.append(Reading(f"preset-{name}", says, scale, shift))
    apart: list[Reading] = []
    for reading in found:
        if not any(np.allclose(reading.scale, one.scale) and np.allclose(reading.shift, one.shift) for one in apart):
            apart.append(reading)
    return apart


def _fit(levels: Floats) -> Fit:
    inside = float(np.mean((levels >= -1.0) & (levels <= 256.0)))
    on_grid = float(np.mean(np.abs(levels - np.rint(levels)) <= GRID_TOLERANCE))
    low, high = np.percentile(levels, [0.5, 99.5])
    return Fit(inside, on_grid, float(high - low))


def _order(
    given: Sequence[Array], rule: InputRule, are_images: bool, network: Network | None, reference: Sequence[Image]
) -> Checked:
    """A fault of the channels' order, by the reference's colours or by what the network is surer of."""
    if len(given) < LEAST_IMAGES:
        return Checked(unjudged=f"{len(given)} images are too few; {LEAST_IMAGES} might do, 64 mostly")
    if len(reference) >= LEAST_IMAGES:
        warm = [_warmth(image, rule, True) for image in reference]
        ours = [_warmth(one, rule, are_images) for one in given]
        signs = [_sure_sign(values) for values in (warm, ours)]
        if signs[0] * signs[1] < 0:
            return _swapped(
                f"red is {np.mean(ours):+.0f} levels against blue in the mean, in images known to be right "
                f"{np.mean(warm):+.0f}"
            )
        if signs[0] * signs[1] > 0:
            return Checked()
    if network is None:
        return Checked(unjudged="there is no network to ask")
    cold = _sure_sign([_warmth(one, rule, are_images) for one in given]) < 0
    inputs = [rule(one) if are_images else np.asarray(one, np.float32).reshape(*one.shape[-3:]) for one in given]
    return _by_network(inputs, rule, network, COLD if cold else WARM)


def _by_network(
    inputs: Sequence[npt.NDArray[np.float32]], rule: InputRule, network: Network, deviations: float
) -> Checked:
    """A fault of the channels' order, by what the network is surer of by so many standard errors."""
    both = [[confidence(network(form[None])) for form in (one, _exchanged(one, rule))] for one in inputs]
    if any(sure is None for pair in both for sure in pair):
        return Checked(unjudged="the network tells no class that it could be sure of")
    sures = np.array(both, np.float64)
    known = sures.mean(axis=0)
    if known.max() < KNOWN:
        return Checked(unjudged=f"the network does not know such images: it is sure by {known.max():.0%} in the mean")
    gains = np.clip(sures[:, 1] - sures[:, 0], -MOST_GAIN, MOST_GAIN)
    mean, error = float(gains.mean()), float(gains.std(ddof=1)) / len(gains) ** 0.5
    if mean <= -max(NETWORK_GAIN, RIGHT * error):
        return Checked()
    if known[1] < KNOWN or mean < max(NETWORK_GAIN, deviations * error):
        return Checked(unjudged=f"on {len(gains)} images the network is as sure with red and blue exchanged")
    return _swapped(
        f"with red and blue exchanged the network is surer by {100 * mean:.1f} points in the mean of {len(gains)} "
        f"images ({mean / max(error, 1e-12):.1f} standard errors)"
    )


def _swapped(evidence: str) -> Checked:
    found = Finding(
        "channel-order",
        f"the channels seem to be in the wrong order (BGR for RGB, or the other way): {evidence}. Images are given in "
        "BGR, as OpenCV decodes them; inputs in the order of the card's rule",
    )
    return Checked((found,))


def _warmth(one: Array, rule: InputRule, is_image: bool) -> float:
    """Mean of red less blue, in grey levels."""
    values = _plain(one)
    if not is_image:
        values = values * np.asarray(rule.std) + np.asarray(rule.mean)
    red, blue = (0, 2) if not is_image and rule.channel_order == "rgb" else (2, 0)
    return float((values[:, red] - values[:, blue]).mean())


def _sure_sign(values: Sequence[float]) -> int:
    """Of the mean, or 0 where it could as well be the other."""
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / len(values) ** 0.5
    return int(np.sign(mean)) if abs(mean) > SURE_DEVIATIONS * error and abs(mean) > 1.0 else 0


def _exchanged(array: npt.NDArray[np.float32], rule: InputRule) -> npt.NDArray[np.float32]:
    """The input as it were with red and blue exchanged before it was normalised."""
    std, mean = (np.asarray(part, np.float32) for part in (rule.std, rule.mean))
    return (((array * std + mean)[..., ::-1] - mean) / std).astype(np.float32)


def _told(values: Floats) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.3g}" if abs(high - low) < 0.05 * max(1.0, abs(low)) else f"{low:.3g}…{high:.3g}"
