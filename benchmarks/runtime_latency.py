"""Batch-1 latency of `auto` beside every installed runtime, Keras `predict_on_batch` and a `tf.function`.

    python benchmarks/runtime_latency.py [--rounds 30] [--threads N] [--networks MobileNetV2,ResNet50]

The contenders take short turns inside every round, medians are reported, and the ratio of two contenders is the median
over the rounds of the ratio of their medians in the round, so that a busy moment of the machine meets both.
Networks are keras.applications with random weights at 224 x 224: speed does not depend on the values.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from visionkit.runtime import available_runtimes, compile_model
from visionkit.runtime.machine import default_threads, processor, versions
from visionkit.runtime.quiet import import_keras, import_tensorflow, quiet

NETWORKS = "MobileNetV2,MobileNetV3Large,ResNet50"
TURN_S = 0.08
BAR_RATIO, BAR_OVERHEAD_MS = 1.05, 0.1

Call = Callable[[], Any]


def contenders(model: Any, image: np.ndarray, threads: int, cache: str) -> dict[str, Call]:
    """Everything that can run the network, as functions of nothing."""
    tf = import_tensorflow()
    calls: dict[str, Call] = {}
    for name in ["auto", *(name for name, absence in available_runtimes().items() if absence is None)]:
        runner = compile_model(model, runtime=name, threads=threads, cache_dir=cache)
        (key,) = runner.inputs
        calls[f"auto ({runner.name})" if name == "auto" else name] = lambda runner=runner, key=key: runner(
            **{key: image}
        )
    function = tf.function(lambda x: model(x, training=False))
    calls["tf.function"] = lambda: function(tf.constant(image)).numpy()
    calls["predict_on_batch"] = lambda: model.predict_on_batch(image)
    return calls


def interleaved(calls: dict[str, Call], rounds: int) -> dict[str, list[list[float]]]:
    """Milliseconds of each call of each round, in turns of `TURN_S`; the first call of a turn is not counted."""
    times: dict[str, list[list[float]]] = {name: [] for name in calls}
    names = list(calls)
    shuffle = random.Random(0).shuffle
    with quiet():
        for call in calls.values():
            call()
            call()
    for _ in range(rounds):
        for name in names:
            calls[name]()
            turn: list[float] = []
            end = time.perf_counter() + TURN_S
            while len(turn) < 2 or time.perf_counter() < end:
                begin = time.perf_counter()
                calls[name]()
                turn.append((time.perf_counter() - begin) * 1e3)
            times[name].append(turn)
        shuffle(names)  # a contender meets what its neighbour leaves in the caches: no fixed neighbours
    return times


def overhead(model: Any, image: np.ndarray, threads: int, cache: str, pairs: int) -> tuple[float, float]:
    """Median milliseconds of our call minus the bare calls of the same interpreter, and of the bare calls."""
    runner = compile_model(model, runtime="litert", threads=threads, cache_dir=cache)
    (key,) = runner.inputs
    interpreter, source, target = runner._interpreter, runner._input_indices[0], runner._output_indices[0]

    def bare() -> None:
        interpreter.set_tensor(source, image)
        interpreter.invoke()
        interpreter.get_tensor(target)

    def face() -> None:
        runner(**{key: image})

    clock = time.perf_counter
    differences, alone = [], []
    for index in range(pairs):
        taken = {}
        for call in (bare, face) if index % 2 else (face, bare):
            begin = clock()
            call()
            taken[call] = clock() - begin
        differences.append((taken[face] - taken[bare]) * 1e3)
        alone.append(taken[bare] * 1e3)
    return statistics.median(differences), statistics.median(alone)


def paired_ratio(own: list[list[float]], other: list[list[float]]) -> float:
    """The median over the rounds of the ratio of the two medians in the round."""
    pairs = zip(own, other, strict=True)
    return statistics.median(statistics.median(one) / statistics.median(two) for one, two in pairs)


def report(times: dict[str, list[list[float]]]) -> float:
    """Prints the table; returns auto's time over that of the best of all others."""
    pooled = {name: [value for turn in turns for value in turn] for name, turns in times.items()}
    medians = {name: statistics.median(values) for name, values in pooled.items()}
    print("\n| contender | median | p10 | calls |\n|---|---|---|---|")
    for name, median in sorted(medians.items(), key=lambda item: item[1]):
        print(f"| {name} | {median:.2f} | {np.percentile(pooled[name], 10):.2f} | {len(pooled[name])} |")
    auto = next(name for name in medians if name.startswith("auto"))
    best = min((name for name in medians if name != auto), key=medians.__getitem__)
    ratio = paired_ratio(times[auto], times[best])
    twin = auto.removeprefix("auto (").removesuffix(")")
    print(f"\n{auto} / best ({best}) = {ratio:.3f} (bar {BAR_RATIO})")
    print(f"{auto} / {twin}, the same runtime opened twice = {paired_ratio(times[auto], times[twin]):.3f} (the noise)")
    return ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--networks", default=NETWORKS)
    options = parser.parse_args()
    print(f"{processor()}, {options.threads} threads; {versions()}")
    keras = import_keras()
    image = np.random.default_rng(0).uniform(-1, 1, (1, 224, 224, 3)).astype(np.float32)
    passed = True
    with tempfile.TemporaryDirectory() as cache:
        for network in options.networks.split(","):
            model = getattr(keras.applications, network)(weights=None, input_shape=image.shape[1:])
            begin = time.perf_counter()
            compile_model(model, threads=options.threads, cache_dir=cache).close()
            first = time.perf_counter()
            compile_model(model, threads=options.threads, cache_dir=cache).close()
            print(f"\n{network}: first auto {first - begin:.1f} s, second {time.perf_counter() - first:.2f} s")
            calls = contenders(model, image, options.threads, cache)
            passed &= report(interleaved(calls, options.rounds)) <= BAR_RATIO
            if network == options.networks.split(",")[0]:
                added, bare = overhead(model, image, 1, cache, 1000)
                print(
                    f"our face over bare LiteRT, one thread: {added * 1e3:+.1f} us a call of {bare:.2f} ms (bar 100 us)"
                )
                passed &= added <= BAR_OVERHEAD_MS
        pixel = keras.Input((8, 8, 3), name="pixel")
        tiny = keras.Model(pixel, keras.layers.Conv2D(2, 1)(pixel))
        added, bare = overhead(tiny, image[:, :8, :8].copy(), 1, cache, 20000)
        print(f"\nour face over bare LiteRT, tiny network: {added * 1e3:+.2f} us a call of {bare * 1e3:.1f} us")
        passed &= added <= BAR_OVERHEAD_MS
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
