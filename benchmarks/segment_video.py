"""Frames a second of `visionkit segment` on a video, end to end, with LR-ASPP's shape.

    python benchmarks/segment_video.py [CLIP] [--network lraspp_mobilenet_v3_large] [--repeats 3] [--end S] [-- OPTION…]

The command's own code runs with its defaults and random weights, written to a throwaway card: decoding, the network at
520 pixels of shorter side, class maps at the clip's size, indexed PNG masks, drawing with a legend, H.264, rows. What
stands behind `--` is handed to the command (`-- --crf`). The bar: 15 frames a second on two cores.

Random weights are the worst case for what follows the network: all 21 classes are in every frame, in thousands of
pieces. After the runs the processor time of each step is taken alone, on one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from visionkit.cli import segment as segment_command
from visionkit.io import open_source
from visionkit.tasks import Segmenter

CLIP = Path(__file__).resolve().parents[2] / "shared" / "data" / "video" / "car-detection.mp4"
CLASSES = 21
BAR = 15.0


def write_card(folder: Path, network: str) -> Path:
    """A card of this network with random weights."""
    from visionkit.runtime.quiet import import_keras

    keras = import_keras()
    from visionkit import nets

    keras.utils.set_random_seed(0)
    folder.mkdir()
    weights = folder / "random.weights.h5"
    getattr(nets, network)(classes=CLASSES, size_hw=(520, 520)).save_weights(weights)
    labels = ["background", *(f"class {number}" for number in range(1, CLASSES))]
    (folder / "card.toml").write_text(
        f'task = "segment"\nnetwork = "{network}"\nlicence = "CC0-1.0"\nlabels = {json.dumps(labels)}\n'
        '[input]\nsize_hw = [520, 520]\nresize = "shortest_side"\npreset = "torch"\n'
        f'[[weights]]\nfile = "{weights.name}"\nsha256 = "{hashlib.sha256(weights.read_bytes()).hexdigest()}"\n'
        'format = "visionkit"\n'
    )
    return folder


def run(clip: Path, card: Path, out: Path, more: list[str]) -> Any:
    """One run of the command's own code."""
    words = [str(clip), "--model", str(card), "--out", str(out), "--overwrite", *more]
    with segment_command.command.make_context("segment", words) as ctx:
        options = dict(ctx.params)
        source = options.pop("source")
        segment_command.check_segment_options(options)
        with contextlib.redirect_stderr(io.StringIO()):
            return segment_command.segment(source, lambda: segment_command.load_model(options), options)


def steps(clip: Path, card: Path) -> dict[str, float]:
    """Processor milliseconds of each step of one frame, alone."""
    from visionkit.draw import draw_segmentation
    from visionkit.io.indexed_png import indexed_png
    from visionkit.io.results import result_fields
    from visionkit.tasks import load_segmenter

    begin, frames = time.process_time(), []
    with open_source(clip, end_s=2.0) as source:
        frames = [frame.image for frame in source]
    found = {"decode": 1e3 * (time.process_time() - begin) / len(frames)}
    segmenter: Segmenter = load_segmenter(card, threads=1)
    image = frames[0]
    fit = segmenter.fit(image.shape[:2])
    pixels, inputs = fit.rule.pixels(image), np.zeros((1, *fit.pass_hw, 3), np.float32)
    scores, answer = segmenter.scores(image), segmenter(image)
    work: dict[str, Callable[[], Any]] = {
        "resize": lambda: fit.rule.pixels(image),
        "normalize": lambda: fit.rule.normalize(pixels, inputs[0]),
        "network": lambda: segmenter.network(inputs),
        "labels": scores.labels,
        "mask": lambda: indexed_png(answer.class_map),
        "area": lambda: result_fields(answer, segmenter.labels),
        "draw": lambda: draw_segmentation(image, answer, segmenter.labels),
    }
    for name, step in work.items():
        taken = []
        for _ in range(9):
            begin = time.process_time()
            step()
            taken.append(time.process_time() - begin)
        found[name] = 1e3 * statistics.median(taken)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path, default=CLIP, metavar="CLIP")
    parser.add_argument("--network", default="lraspp_mobilenet_v3_large")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--end", type=float, help="end before this second of the clip")
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:cut])
    more = [*words[cut + 1 :], *([] if args.end is None else ["--end", str(args.end)])]
    print(f"load average {os.getloadavg()[0]:.1f} at the start, {len(os.sched_getaffinity(0))} cores")
    rates, cpu = [], []
    with tempfile.TemporaryDirectory() as folder:
        card = write_card(Path(folder) / "random", args.network)
        for _ in range(args.repeats):
            result = run(args.clip, card, Path(folder) / "out", more)
            rates.append(result.counts["rows"] / result.seconds["flow"])
            cpu.append(1e3 * result.seconds["cpu"] / result.counts["rows"])
            print(f"  {rates[-1]:6.1f} frames a second, {cpu[-1]:.1f} ms of processor time a frame")
        manifest = json.loads((Path(folder) / "out" / "run.json").read_text())
        settings = manifest["settings"]["segment"]
        print(
            f"{manifest['model']['runtime']}, input {settings['input_hw']}, {settings['instances']} instances of "
            f"{settings['threads']} threads; {manifest['annotated']['codec']}; {manifest['counts']['rows']} frames"
        )
        print("one step alone, ms: " + ", ".join(f"{n} {ms:.1f}" for n, ms in steps(args.clip, card).items()))
    print(f"median {statistics.median(rates):.1f} frames a second (bar {BAR:g}), load average {os.getloadavg()[0]:.1f}")
    raise SystemExit(0 if statistics.median(rates) >= BAR else 1)


if __name__ == "__main__":
    main()
