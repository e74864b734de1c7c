"""Milliseconds of a quantized network beside the float one it was made of, in LiteRT, in the same run.

    python benchmarks/quantized_latency.py --model sign_digits --data data/classification/sign_digits
        [--kinds float16,dynamic,int8,int8-io] [--threads 1] [--rounds 40] [--signature raw] [--json]

The model is exported, quantized and called at batch 1. The variants take short turns inside every round, in an order
that changes, and the ratio of a variant to float32 is the median over the rounds of the ratio of their medians in the
round, so that a busy moment of the machine meets both. Sizes are those of the whole files.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from visionkit.compress.calibration import choose_calibration
from visionkit.compress.ptq import KINDS, quantize_artifact
from visionkit.export import export_model
from visionkit.runtime.base import Runner, Signature
from visionkit.runtime.litert import open_litert
from visionkit.runtime.machine import processor, versions
from visionkit.runtime.measure import probe_inputs
from visionkit.weights.artifact import model_bytes

TURN_S = 0.04
FLOAT = "float32"
BAR = 0.7


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sign_digits")
    parser.add_argument("--data", required=True, help="images to measure ranges on")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--signature", default="raw")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = variants(asked.model, asked.data, asked.kinds.split(","), Path(folder))
        runners = {
            name: open_litert(model_bytes(path), threads=asked.threads, key=asked.signature)
            for name, path in files.items()
        }
        times = interleaved(runners, asked.rounds)
        rows = [row(name, files[name].stat().st_size, times, files[FLOAT].stat().st_size) for name in files]
    if asked.json:
        print(json.dumps({"model": asked.model, "threads": asked.threads, "variants": rows}, indent=1))
        return 0
    print(f"{processor()}, {asked.threads} thread(s), {asked.model} {asked.signature}, {versions()}")
    print(f"{'kind':<10}{'ms':>9}{'ratio':>8}{'quartiles of the ratio':>25}{'bytes':>12}{'ratio':>8}")
    for one in rows:
        spread = f"{one['latency_quartiles'][0]:.3f} to {one['latency_quartiles'][1]:.3f}"
        print(
            f"{one['kind']:<10}{one['ms']:>9.3f}{one['latency_ratio']:>8.3f}{spread:>25}{one['bytes']:>12,}"
            f"{one['size_ratio']:>8.3f}"
        )
    slow = [one["kind"] for one in rows if one["kind"].startswith("int8") and one["latency_ratio"] > BAR]
    return 1 if slow else 0


def variants(model: str, data: str, kinds: list[str], folder: Path) -> dict[str, Path]:
    """The float file and those that were made of it, by kind."""
    files = {FLOAT: folder / "float32.tflite"}
    export_model(model, files[FLOAT], format="litert")
    calibration = choose_calibration(data)
    for kind in kinds:
        files[kind] = folder / f"{kind}.tflite"
        quantize_artifact(files[FLOAT], files[kind], kind=kind, calibration=calibration)
    return files


def interleaved(runners: dict[str, Runner], rounds: int) -> dict[str, list[float]]:
    """Median milliseconds of a call in each round, in turns of `TURN_S`."""
    feeds = {
        name: probe_inputs(Signature(tuple(one.inputs.values()), tuple(one.outputs.values())))
        for name, one in runners.items()
    }
    medians: dict[str, list[float]] = {name: [] for name in runners}
    names, shuffle = list(runners), random.Random(0).shuffle
    for _ in range(rounds):
        for name in names:
            runner, feed, turn = runners[name], feeds[name], []
            runner(**feed)
            end = time.perf_counter() + TURN_S
            while len(turn) < 3 or time.perf_counter() < end:
                begin = time.perf_counter()
                runner(**feed)
                turn.append((time.perf_counter() - begin) * 1e3)
            medians[name].append(statistics.median(turn))
        shuffle(names)
    return medians


def row(name: str, size: int, times: dict[str, list[float]], float_size: int) -> dict[str, object]:
    ratios = [ours / theirs for ours, theirs in zip(times[name], times[FLOAT], strict=True)]
    return {
        "kind": name,
        "ms": statistics.median(times[name]),
        "latency_ratio": statistics.median(ratios),
        "latency_quartiles": [float(share) for share in np.quantile(ratios, [0.25, 0.75])],
        "bytes": size,
        "size_ratio": size / float_size,
    }


if __name__ == "__main__":
    sys.exit(main())
