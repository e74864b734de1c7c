"""Frames a second of `visionkit classify` on a video against what its runtime gives on ready tensors.

    python benchmarks/classify_video.py [CLIP…] [--networks mobilenet_v3_large,resnet50] [--batches 1,8] [--repeats 5]

For each clip, network (random weights, written to a throwaway card) and batch size, in turns so that a busy machine
disturbs all alike:

    video      `visionkit classify CLIP --no-video`: decoded, classified, smoothed, rows written, with the threads and
               instances that the command takes by default
    drawn      the same with the annotated video drawn and encoded
    same       ready tensors through the command's own runners: as many calls side by side as it has instances
    one        ready tensors through one of them
    all cores  ready tensors through one instance that has all cores

Medians over the repeats, and the medians of the paired ratios. The bar is 0.9 of `one`: what the chosen runtime gives
with the chosen number of threads, one call after the other. `same` and `all cores` leave nothing of the machine to the
decoder; the last line of each case tells which share of `same` is left where the cores are all that limits, from the
processor time that the network, and decoding and preparing, take alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import video_speed as speed

from visionkit.cli import classify as classify_command
from visionkit.io import open_source
from visionkit.tasks import Classifier, load_classifier

BAR = 0.9
RULE = {"size_hw": [224, 224], "resize": "shortest_side", "resize_size": 256, "preset": "torch"}


class Case:
    """One clip, network and batch size."""

    def __init__(self, clip: Path, card: Path, batch: int, args: argparse.Namespace, folder: Path) -> None:
        self.clip, self.batch, self.args, self.folder = clip, batch, args, folder
        how: dict[str, Any] = {"runtime": args.runtime, "batch": batch}
        self.own = load_classifier(card, threads=args.threads, instances=1 if args.threads else None, **how)
        # what the command would take; it closes what it loads, and this is measured again
        self.own.close = lambda: None  # type: ignore[method-assign]
        self.all_cores = load_classifier(card, **how)

    def video(self, *more: str) -> float:
        """Frames a second of the command's own code."""
        end = [] if self.args.end is None else ["--end", str(self.args.end)]
        words = [str(self.clip), "--batch", str(self.batch), *end, *more]
        result = speed.run_command(
            classify_command.command,
            words,
            lambda source, options: classify_command.classify(source, lambda: self.own, options),
        )
        return result.counts["rows"] / result.seconds["flow"]

    def undrawn(self) -> float:
        return self.video("--no-video", "--out", str(self.folder / "undrawn"), "--overwrite")

    def drawn(self) -> float:
        return self.video("--out", str(self.folder / "drawn"), "--overwrite")

    def ready(self, classifier: Classifier, callers: int) -> float:
        """Images a second of a classifier's runners on tensors that lie ready."""
        inputs = np.random.default_rng(0).standard_normal((self.batch, *classifier.rule.size_hw, 3)).astype(np.float32)
        counts, begin = [0] * callers, time.perf_counter()

        def call(place: int) -> None:
            while time.perf_counter() < begin + self.args.seconds:
                classifier.runners[place](image=inputs)
                counts[place] += self.batch

        threads = [threading.Thread(target=call, args=(place,)) for place in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / (time.perf_counter() - begin)

    def costs_ms(self) -> tuple[float, float]:
        """Processor milliseconds an image, alone: of decoding and preparing, and of the network."""
        with open_source(self.clip, end_s=self.args.end) as source:
            begin, count = time.process_time(), 0
            for frame in source:
                self.own.rule(frame.image)
                count += 1
        around = 1e3 * (time.process_time() - begin) / count
        begin, rate = time.process_time(), self.ready(self.own, self.own.instances)
        return around, 1e3 * (time.process_time() - begin) / (rate * self.args.seconds)


def measure(case: Case, repeats: int) -> float:
    """Print the table of one case; returns the median ratio of video to `one`."""
    own = case.own
    turns: dict[str, Callable[[], float]] = {
        "video": case.undrawn,
        "drawn": case.drawn,
        "one": lambda: case.ready(own, 1),
        "same": lambda: case.ready(own, own.instances),
        "all cores": lambda: case.ready(case.all_cores, 1),
    }
    found: dict[str, list[float]] = {name: [] for name in turns}
    case.undrawn()  # the first run pays for imports and caches
    for _ in range(repeats):
        for name, turn in turns.items():
            found[name].append(turn())
    around, network = case.costs_ms()
    said = own.describe()
    print(f"\n{said['name']} in {said['runtime']}, batch {case.batch}, {case.clip.name}:")
    print(
        f"  the command takes {own.instances} x {own.runner.threads} threads; all cores: {case.all_cores.runner.name}"
    )
    for name, values in found.items():
        print(f"  {name:10} {statistics.median(values):8.1f} a second  [{min(values):.1f}, {max(values):.1f}]")
    ratios = {}
    for name in ("one", "same", "all cores"):
        pairs = sorted(v / r for v, r in zip(found["video"], found[name], strict=True))
        ratios[name] = statistics.median(pairs)
        print(f"  video / {name:9} {ratios[name]:.2f}  [{pairs[0]:.2f}, {pairs[-1]:.2f}]")
    print(
        f"  processor time an image: network {network:.2f} ms, decoding and preparing {around:.2f} ms: "
        f"at best {network / (network + around):.2f} of `same`"
    )
    return ratios["one"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", metavar="CLIP")
    parser.add_argument("--networks", default="mobilenet_v3_large,resnet50")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--threads", type=int, help="one instance of so many threads, as --threads of the command")
    parser.add_argument("--end", type=float, help="end before this second of the clip")
    parser.add_argument("--seconds", type=float, default=2.0, help="that each measurement of ready tensors takes")
    args = parser.parse_args()
    clips = [Path(clip) for clip in args.clips] or [speed.CLIP]
    speed.tell_start()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for network in args.networks.split(","):
            card = speed.random_card(Path(folder) / network, "classify", network, RULE)
            for batch in (int(b) for b in args.batches.split(",")):
                for clip in clips:
                    ratios.append(measure(Case(clip, card, batch, args, Path(folder)), args.repeats))
    print(f"\nleast video / one: {min(ratios):.2f} (bar {BAR})")
    raise SystemExit(0 if min(ratios) >= BAR else 1)


if __name__ == "__main__":
    main()
