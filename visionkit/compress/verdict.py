"""Whether a smaller model may take the place of the float one: the decision and its reasons, from measured numbers.

Nothing is measured here. What decides about quality is the interval of the *difference* on the same images
(`visionkit.compress.paired`), not that of either model: two models may have wide intervals that overlap and still
differ surely, or alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from visionkit.compress.nouns import NOUNS, Nouns

__all__ = [
    "Bounds",
    "ClassChange",
    "Decision",
    "Interval",
    "PartTiming",
    "Reason",
    "Ruling",
    "Timing",
    "VariantFacts",
    "decide",
    "judge",
]

MEGABYTE = 1e6
SAME_SPEED, SAME_SIZE = 1.1, 1.05  # within which the other reason decides between two that may be shipped
SAME = 1.05  # times as slow as float, below which it is not called slower
GAIN = 0.95  # of the float model's size or time: what is above is no gain
NEVER = 20  # times as many images: beyond, counting more of them is no advice


@dataclass(frozen=True)
class Interval:
    """A measured value between the edges of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassChange:
    """One class: its examples, its score (a fraction) before and after, and the points that it lost."""

    name: str
    count: int
    before: float
    after: float
    drop: Interval


@dataclass(frozen=True)
class PartTiming:
    """Milliseconds of one of several networks, by the name that the task has for it."""

    name: str
    ms: float
    p95_ms: float


@dataclass(frozen=True)
class Timing:
    """Milliseconds of an image: `whole` from image to result through the task, `network` of the network alone (nan
    where it has several, which are the `parts`)."""

    threads: int
    whole_ms: float
    whole_p95_ms: float
    network_ms: float = math.nan
    network_p95_ms: float = math.nan
    parts: tuple[PartTiming, ...] = ()


@dataclass(frozen=True)
class VariantFacts:
    """What was measured of one variant; of one that could not be built, `failed` alone.

    Args:
        kind: its name, such as `int8`; `float32` is what the others are compared with.
        metric: a fraction; `drop` in points, of the paired difference.
        images: measured on; `counted`: things on them that the metric counts, such as objects, 0 for the images.
        agreement: share of answers alike to float's on `frames` frames without labels; nan where not measured.
        size, zipped: bytes of the file that is shipped, as it is and compressed.
        faults: found in the calibration; any of them forbids shipping.
        notes: told, not judged: float islands, what was kept in float.
    """

    kind: str
    metric: Interval | None = None
    drop: Interval | None = None
    images: int = 0
    counted: int = 0
    classes: tuple[ClassChange, ...] = ()
    agreement: float = math.nan
    frames: int = 0
    size: int = 0
    zipped: int = 0
    timings: tuple[Timing, ...] = ()
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    failed: str | None = None

    @property
    def best(self) -> Timing:
        """The timing of the fastest number of threads."""
        return min(self.timings, key=lambda timing: timing.whole_ms)


@dataclass(frozen=True)
class Bounds:
    """What the user demands.

    Args:
        max_drop: points of the metric that may be lost.
        latency_ms: median from image to result, at the best number of threads; None is as fast as it is.
        max_class_drop: points that one class may lose.
        min_agreement: share of answers on frames without labels that must be float's.
    """

    max_drop: float = 1.0
    latency_ms: float | None = None
    max_class_drop: float = 10.0
    min_agreement: float = 0.9


@dataclass(frozen=True)
class Reason:
    """Why: a stable slug and what is said."""

    slug: str
    text: str


@dataclass(frozen=True)
class Ruling:
    """On one variant. `more_images`: how many further ones would tell, where too few were measured."""

    kind: str
    verdict: Literal["ship", "unsure", "dont"]
    reasons: tuple[Reason, ...] = ()
    more_images: int | None = None


@dataclass(frozen=True)
class Decision:
    """On all of them: which to ship, or None; the one sentence, and what is said of the others."""

    ship: str | None
    sentence: str
    rulings: tuple[Ruling, ...] = field(default_factory=tuple)


def judge(
    variant: VariantFacts,
    reference: VariantFacts,
    bounds: Bounds,
    metric: str = "accuracy",
    nouns: Nouns = NOUNS,
) -> Ruling:
    """Whether `variant` may take the place of `reference`; every reason against it, the gravest first."""
    against = [Reason("calibration", f"its calibration is at fault: {fault}") for fault in variant.faults]
    if variant.failed is not None:
        if not against:
            against = [Reason("not-built", f"it could not be built: {variant.failed}")]
        return Ruling(variant.kind, "dont", tuple(against))
    against += _worthless(reference, metric) or _quality(variant, bounds, metric, nouns)
    against += _classes(variant, bounds, nouns)
    against += _agreement(variant, bounds)
    against += _use(variant, reference, bounds)
    if against:
        return Ruling(variant.kind, "dont", tuple(against))
    doubt, more = _doubt(variant, bounds, metric, nouns)
    return Ruling(variant.kind, "unsure", (doubt,), more) if doubt else Ruling(variant.kind, "ship")


def decide(
    reference: VariantFacts,
    variants: Sequence[VariantFacts],
    bounds: Bounds,
    metric: str = "accuracy",
    nouns: Nouns = NOUNS,
) -> Decision:
    """Which of the variants to ship: the fastest of those that may be; of equals the smallest, then the best.

    One that is slower than float never goes before one that is not. Where all that may be shipped are slower, the
    sentence says so, and names a faster one of which too few images were measured.
    """
    rulings = tuple(judge(variant, reference, bounds, metric, nouns) for variant in variants)
    good = [variant for variant, ruling in zip(variants, rulings, strict=True) if ruling.verdict == "ship"]
    if not good:
        return Decision(None, _refusal(rulings), rulings)
    fastest = min(variant.best.whole_ms for variant in good)
    limit = SAME_SPEED * fastest
    if fastest <= reference.best.whole_ms:  # so that size alone does not win by what is called equally fast
        limit = min(limit, SAME * reference.best.whole_ms)
    good = [variant for variant in good if variant.best.whole_ms <= limit]
    smallest = min(variant.size for variant in good)
    good = [variant for variant in good if variant.size <= SAME_SIZE * smallest]
    chosen = min(good, key=lambda variant: (variant.drop.value if variant.drop else 0.0, variant.size))
    sentence = _praise(chosen, reference, metric, nouns)
    if _is_slower(chosen, reference):
        faster = (
            ruling
            for variant, ruling in zip(variants, rulings, strict=True)
            if ruling.verdict == "unsure"
            and variant.timings
            and variant.best.whole_ms * SAME <= reference.best.whole_ms
        )
        sentence += "".join(f" {one.kind} is faster, but {one.reasons[0].text}." for one in list(faster)[:1])
    return Decision(chosen.kind, sentence, rulings)


def _is_slower(variant: VariantFacts, reference: VariantFacts) -> bool:
    return variant.best.whole_ms >= SAME * reference.best.whole_ms


def _worthless(reference: VariantFacts, metric: str) -> list[Reason]:
    """Nothing can be lost of nothing."""
    if reference.metric is None or not reference.metric.value <= 0:  # of nan, the variant's drop tells
        return []
    told = f"float32 itself has {metric} of 0 on this data, so nothing can be lost; measure on data of its kind"
    return [Reason("not-measured", told)]


def _quality(variant: VariantFacts, bounds: Bounds, metric: str, nouns: Nouns) -> list[Reason]:
    drop = variant.drop
    if drop is None or math.isnan(drop.value):
        return [Reason("not-measured", f"its {metric} could not be measured")]
    if drop.value <= bounds.max_drop:
        return []
    text = f"it loses {_points(drop.value)} of {metric} ({_range(drop)}), more than the {bounds.max_drop:g} allowed"
    if drop.low <= bounds.max_drop:
        text += f", though on {nouns.told(variant.images)} that may be chance"
    return [Reason("drop", text)]


def _classes(variant: VariantFacts, bounds: Bounds, nouns: Nouns) -> list[Reason]:
    """Classes that are ruined beyond chance, whatever the mean says."""
    ruined = [
        one
        for one in variant.classes
        if one.drop.value > bounds.max_class_drop and one.drop.low > min(bounds.max_drop, bounds.max_class_drop)
    ]
    ruined.sort(key=lambda one: -one.drop.value)
    if not ruined:
        return []
    falls = [f"{one.name!r} falls from {one.before:.0%} to {one.after:.0%}" for one in ruined]
    told = ", ".join(falls[:3]) + (f" and {len(falls) - 3} more" if len(falls) > 3 else "")
    what = f"a {nouns.group}" if len(falls) == 1 else f"{len(falls)} {nouns.groups}"
    return [Reason("class", f"it ruins {what}: {told}")]


def _agreement(variant: VariantFacts, bounds: Bounds) -> list[Reason]:
    if not variant.agreement < bounds.min_agreement:  # nan: not measured
        return []
    return [
        Reason(
            "agreement",
            f"on {variant.frames} frames without labels it agrees with float on {variant.agreement:.1%} only, below "
            f"{bounds.min_agreement:.0%}",
        )
    ]


def _use(variant: VariantFacts, reference: VariantFacts, bounds: Bounds) -> list[Reason]:
    if not variant.timings:
        return []
    best = variant.best
    if bounds.latency_ms is not None and best.whole_ms > bounds.latency_ms:
        allowed = f"more than the {bounds.latency_ms:g} allowed"
        return [Reason("slow", f"it takes {best.whole_ms:.3g} ms with {_threads(best.threads)}, {allowed}")]
    gains = (
        variant.size / reference.size,
        variant.zipped / reference.zipped,
        best.whole_ms / reference.best.whole_ms,
    )
    return [] if min(gains) <= GAIN else [Reason("no-gain", "it is neither smaller nor faster than float")]


def _doubt(variant: VariantFacts, bounds: Bounds, metric: str, nouns: Nouns) -> tuple[Reason | None, int | None]:
    """Whether too few images were measured to say that the drop is within bounds, and how many more would do."""
    drop = variant.drop
    if drop is None or bounds.max_drop <= 0:
        return None, None
    # Where nothing differed, drawing again cannot tell by how much it might. One thing that is counted moves the mean
    # by 100 / N points: with fewer than this, not even one wrong answer would be allowed.
    counted = variant.counted or variant.images
    least = math.ceil(100 / bounds.max_drop) if drop.low == drop.high else 0
    if drop.high <= bounds.max_drop and counted >= least:
        return None, None
    what = "point" if bounds.max_drop == 1 else "points"
    if drop.value == drop.low == drop.high == 0:
        objects = "" if counted == variant.images else f" with {counted} {nouns.counted}{'s' * (counted != 1)}"
        measured = nouns.told(variant.images)
        few = f"{measured if objects else variant.images} are too few to tell {bounds.max_drop:g} {what} of {metric}"
        text = f"on {measured}{objects} nothing changed, but {few}"
    else:
        within = f"within {bounds.max_drop:g} {what} of {metric}"
        text = f"{nouns.told(variant.images)} cannot tell whether it stays {within} ({_range(drop)})"
    times = 1.0
    if drop.high > bounds.max_drop:  # the interval shrinks with the root of the number of images
        room = bounds.max_drop - drop.value
        times = ((drop.high - drop.value) / room) ** 2 if room > 0 else math.inf
    if times > NEVER:
        return Reason("too-few", f"{text}, and it is too close to that to be told by counting"), None
    needed = math.ceil(least * variant.images / counted)
    more = max(needed, math.ceil(times * variant.images - 1e-6)) - variant.images
    return Reason("too-few", f"{text}: about {more} more would"), more


def _praise(chosen: VariantFacts, reference: VariantFacts, metric: str, nouns: Nouns) -> str:
    drop, best, before = chosen.drop, chosen.best, reference.best
    score = math.nan if chosen.metric is None else 100 * chosen.metric.value
    smaller = _times(reference.size / chosen.size, "smaller", "larger")
    size = f"{_size(chosen.size)} ({smaller}; {_size(chosen.zipped)} zipped)"
    speed = f"{best.whole_ms:.3g} ms {nouns.a_shot} ({_times(before.whole_ms / best.whole_ms, 'faster', 'slower')})"
    change = "" if drop is None else _change(drop, nouns.told(chosen.images))
    name = f"{chosen.kind}, smaller but slower" if _is_slower(chosen, reference) else chosen.kind
    return f"Ship {name}: {score:.1f} % {metric}, {change}, {size}, {speed}."


def _refusal(rulings: Sequence[Ruling]) -> str:
    """The sentence where none may be shipped: it names the one that came nearest, or the first."""
    if not rulings:
        return "Do not ship: no variant was built."
    unsure = [ruling for ruling in rulings if ruling.verdict == "unsure"]
    near = (unsure or sorted(rulings, key=_gravity))[0]
    why = near.reasons[0].text
    if unsure:
        return f"Do not ship {near.kind} yet, because {why}. Until then keep float32."
    if len(rulings) == 1:
        return f"Do not ship {near.kind}, because {why}. Keep float32."
    return f"Do not ship any of the {len(rulings)} variants: {near.kind} comes nearest, but {why}. Keep float32."


def _gravity(ruling: Ruling) -> int:
    """How far from being shipped: the place of its gravest reason in an order from slight to hopeless."""
    order = ("no-gain", "slow", "agreement", "class", "drop", "not-measured", "calibration", "not-built")
    return max((order.index(reason.slug) for reason in ruling.reasons), default=0)


def _change(drop: Interval, measured: str) -> str:
    if drop.value == drop.low == drop.high == 0:
        return f"the same as float on {measured}"
    if drop.value == 0:
        return f"as good as float ({_range(drop)})"
    return f"{_points(abs(drop.value))} {'below' if drop.value > 0 else 'above'} float ({_range(drop)})"


def _points(value: float) -> str:
    shown = f"{value:.1f}" if round(value, 1) else f"{value:.2f}"
    return f"{shown} point{'' if shown == '1.0' else 's'}"


def _range(drop: Interval) -> str:
    return f"95 % interval of the loss {_signed(drop.low)} to {_signed(drop.high)}"


def _signed(value: float) -> str:
    return f"{value:.1f}".replace("-0.0", "0.0").replace("-", "−")


def _times(factor: float, more: str, less: str) -> str:
    if 1 / SAME < factor < SAME:
        return f"not {more}"
    return f"{factor:.1f} times {more}" if factor > 1 else f"{1 / factor:.1f} times {less}"


def _size(count: int) -> str:
    return f"{count / MEGABYTE:.2f} MB" if count < 10 * MEGABYTE else f"{count / MEGABYTE:.1f} MB"


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"
