"""Probe inputs, agreement between two runtimes, and fair timing of several."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np

from visionkit.runtime.base import Array, Runner, Signature, shape_text

__all__ = ["TOLERANCE", "disagreement", "jittered", "probe_inputs", "rounding_noise", "time_runners"]

# Largest difference allowed, relative to the largest magnitude of the output. float32: a network of a hundred layers
# collects rounding differently in each runtime (measured on MobileNetV2 and ResNet-50: 2e-6), while a swapped channel
# or a silent bfloat16 is 1e-3 and more. Measured there for float16 weights: 8e-4, for bfloat16 arithmetic: 8e-3; ten
# times that is allowed, for networks that forgive less.
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 1e-1}
# Times the network's own difference between inputs that differ in the last bit: one that divides by tiny deviations
# makes much of any rounding. A wrong operation grows as rounding does, and is found none the less.
NOISE_SHARE = 4.0
JITTERS = 3
# Integer outputs are decisions (a class map): near-ties may fall either way at the odd place.
FLIPPED_SHARE = 1e-3

BUDGET_S = 1.0
BLOCK_S = 0.02
ROUNDS = 3
HOPELESS = 1.5
CLOSE, PATIENCE = 1.1, 4.0


def probe_inputs(signature: Signature, seed: int = 0) -> dict[str, Array]:
    """One seeded batch: standard normal for floats, all levels for uint8 and int8, 0 or 1 for other kinds."""
    generator = np.random.default_rng(seed)
    probe: dict[str, Array] = {}
    for spec in signature.inputs:
        shape = tuple(1 if size is None else size for size in spec.shape)
        if spec.dtype.kind == "f":
            probe[spec.name] = generator.standard_normal(shape).astype(spec.dtype)
        elif spec.dtype.itemsize == 1 and spec.dtype.kind in "iu":
            limits = np.iinfo(spec.dtype)
            probe[spec.name] = generator.integers(limits.min, limits.max + 1, shape).astype(spec.dtype)
        else:
            probe[spec.name] = generator.integers(0, 2, shape).astype(spec.dtype)
    return probe


def jittered(probe: Mapping[str, Array]) -> list[dict[str, Array]]:
    """The same inputs some times over, each float one unit in the last place up or down."""
    several = []
    for seed in range(JITTERS):
        generator = np.random.default_rng(seed)

        def moved(values: Array, generator: np.random.Generator = generator) -> Array:
            if values.dtype.kind != "f":
                return values
            ends = np.where(generator.random(values.shape) < 0.5, -np.inf, np.inf)
            return np.nextafter(values, ends.astype(values.dtype))

        several.append({name: moved(np.asarray(values)) for name, values in probe.items()})
    return several


def rounding_noise(expected: Mapping[str, Array], answers: Sequence[Mapping[str, Array]]) -> dict[str, float]:
    """Of each float output the largest difference between the answer and those to `jittered` inputs."""
    noise = {}
    for name, reference in expected.items():
        if reference.dtype.kind == "f" and reference.size:
            off = [np.abs(np.asarray(answer[name], np.float64) - reference) for answer in answers]
            noise[name] = float(np.nan_to_num(off, nan=0.0, posinf=0.0).max())
    return noise


def disagreement(
    expected: Mapping[str, Array],
    received: Mapping[str, Array],
    precision: str = "float32",
    noise: Mapping[str, float] | None = None,
) -> str | None:
    """Why `received` is not the answer `expected`, None when it is within `TOLERANCE`, or `NOISE_SHARE` of `noise`."""
    if list(expected) != list(received):
        return f"its outputs are {list(received)}, not {list(expected)}"
    for name, reference in expected.items():
        reason = difference(reference, received[name], TOLERANCE[precision], NOISE_SHARE * (noise or {}).get(name, 0.0))
        if reason:
            return f"output {name!r} {reason}"
    return None


def difference(reference: Array, result: Array, tolerance: float, noise: float = 0.0) -> str | None:
    if reference.shape != result.shape or reference.dtype != result.dtype:
        return (
            f"is {result.dtype.name} {shape_text(result.shape)}, "
            f"not {reference.dtype.name} {shape_text(reference.shape)}"
        )
    if not reference.size:
        return None
    if reference.dtype.kind != "f":
        share = float(np.mean(reference != result))
        return f"differs at {share:.2%} of its places" if share > FLIPPED_SHARE else None
    finite = np.isfinite(reference)
    if not np.array_equal(finite, np.isfinite(result)):
        return "is not finite where Keras is" if finite.all() else "is finite at other places than Keras"
    if not finite.any():
        return None
    scale = float(np.abs(reference[finite]).max())
    worst = float(np.abs(reference[finite].astype(np.float64) - result[finite]).max())
    allowed = max(tolerance * scale, noise)
    if worst > allowed:
        return f"differs by {worst:.3g} where its largest value is {scale:.3g} (allowed: {allowed:.3g})"
    return None


def time_runners(
    runners: Mapping[str, Runner], probe: Mapping[str, Array], budget_s: float = BUDGET_S
) -> dict[str, float]:
    """Median milliseconds a call, fastest first.

    The runners take turns of some 20 ms, so that a busy moment of the machine meets all of them; the first call of a
    turn is not counted, since caches and thread pools are still the neighbour's. What is hopelessly slower than the
    best after two rounds is no longer run, and while the two best are close the race goes on, to `PATIENCE` budgets.
    """
    samples: dict[str, list[float]] = {name: [] for name in runners}
    names = list(runners)
    shuffle = random.Random(0).shuffle
    for runner in runners.values():
        runner(**probe)  # TensorFlow is slow at its second call still
    start = time.perf_counter()
    rounds = 0
    while rounds < ROUNDS or time.perf_counter() - start < budget_s * (PATIENCE if is_close(samples) else 1.0):
        for name in names:
            samples[name] += time_block(runners[name], probe)
        rounds += 1
        if rounds > 1:
            best = min(min(samples[name]) for name in names)
            names = [name for name in names if min(samples[name]) <= HOPELESS * best]
            shuffle(names)  # so that nobody always follows the same neighbour
        if len(names) == 1:
            break
    medians = {name: statistics.median(values) for name, values in samples.items()}
    return dict(sorted(medians.items(), key=lambda item: item[1]))


def is_close(samples: Mapping[str, list[float]]) -> bool:
    """Whether the second's median is within `CLOSE` of the first's."""
    medians = sorted(statistics.median(values) for values in samples.values())
    return len(medians) > 1 and medians[1] <= CLOSE * medians[0]


def time_block(runner: Runner, probe: Mapping[str, Array]) -> Sequence[float]:
    """Milliseconds of the calls of one turn."""
    begin = time.perf_counter()
    runner(**probe)
    now = time.perf_counter()
    if now - begin > 10 * BLOCK_S:  # a slow network: nothing of its warm-up is left to see
        return [(now - begin) * 1e3]
    end = now + BLOCK_S
    times: list[float] = []
    while len(times) < 2 or now < end:
        begin = time.perf_counter()
        runner(**probe)
        now = time.perf_counter()
        times.append((now - begin) * 1e3)
    return times
