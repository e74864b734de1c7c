"""SSDLite320's network through `auto` beside every installed runtime, and what decoding its answer takes.

    python benchmarks/detect_network.py [--rounds 30] [--threads N]

Turns and ratios are those of `runtime_latency.py`. The weights are random: a network's speed does not depend on the
values. Decoding is timed on an answer in which as many default boxes are sure of an object as in a street scene (40
boxes around 10 objects, the rest background), at the confidence of `visionkit detect` and at that of evaluation.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from runtime_latency import BAR_RATIO, Call, interleaved, report

from visionkit.geometry.ssd_rule import SSDRule
from visionkit.runtime import available_runtimes, compile_model
from visionkit.runtime.machine import default_threads, processor, versions
from visionkit.runtime.quiet import import_keras
from visionkit.tasks.detect_fit import detect_fit
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.ssd import decode_ssd

NETWORK = "ssdlite320_mobilenet_v3_large"
FRAME_HW = (432, 768)
OBJECTS, BOXES_EACH = 10, 4


def contenders(model: Any, image: np.ndarray, threads: int, cache: str) -> dict[str, Call]:
    """The network in each runtime, as functions of nothing."""
    calls: dict[str, Call] = {}
    for name in ["auto", *(name for name, absence in available_runtimes().items() if absence is None)]:
        runner = compile_model(model, runtime=name, threads=threads, cache_dir=cache)
        calls[f"auto ({runner.name})" if name == "auto" else name] = lambda runner=runner: runner(image=image)
    return calls


def street(rule: SSDRule) -> tuple[np.ndarray, np.ndarray]:
    """Logits (A, 91) and deltas (A, 4) of a scene with a few objects."""
    random = np.random.default_rng(0)
    anchors = rule.anchors()
    logits = random.normal(0, 1, (len(anchors), 91)).astype(np.float32)
    logits[:, 0] += 9
    for _ in range(OBJECTS):
        first = int(random.integers(0, len(anchors) - BOXES_EACH))
        logits[first : first + BOXES_EACH, int(random.integers(1, 91))] += 14
    return logits, random.normal(0, 0.5, anchors.shape).astype(np.float32)


def milliseconds(call: Callable[[], Any], count: int = 200) -> float:
    """Median of `count` calls."""
    call()
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=default_threads())
    options = parser.parse_args()
    print(f"{processor()}, {options.threads} threads; {versions()}")
    import_keras()
    from visionkit import nets

    rule = SSDRule()
    image = np.random.default_rng(0).uniform(-1, 1, (1, *rule.size_hw, 3)).astype(np.float32)
    with tempfile.TemporaryDirectory() as cache:
        calls = contenders(getattr(nets, NETWORK)(), image, options.threads, cache)
        ratio = report(interleaved(calls, options.rounds))
    frame = np.random.default_rng(1).integers(0, 255, (*FRAME_HW, 3), np.uint8)
    given = InputRule.preset("tf", rule.size_hw, resize="stretch")
    fit, answer, anchors = detect_fit(given, FRAME_HW), street(rule), rule.anchors()
    print(f"\na frame of {FRAME_HW[1]} x {FRAME_HW[0]} into the input: ", end="")
    print(f"{milliseconds(lambda: fit(frame, given, image[0])):.2f} ms")
    for conf in (0.25, None):
        found = decode_ssd(*answer, anchors, rule, conf=conf)
        spent = milliseconds(lambda conf=conf: decode_ssd(*answer, anchors, rule, conf=conf))
        print(f"decoding at {conf or rule.score}: {spent:.2f} ms, {len(found.scores)} boxes")
    return int(ratio > BAR_RATIO)


if __name__ == "__main__":
    sys.exit(main())
