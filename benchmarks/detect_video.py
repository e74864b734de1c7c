"""Frames a second of `visionkit detect` on a video, end to end, with SSDLite320's shape.

    python benchmarks/detect_video.py [CLIP] [--network ssdlite320_mobilenet_v3_large] [--repeats 3] [--end S]
        [--boxes 12] [-- OPTION…]

The command's own code runs with its defaults and random weights, written to a throwaway card: decoding, the network,
boxes, drawing, H.264, rows. What stands behind `--` is handed to the command (`-- --track`). The bar: 25 frames a
second on two cores.

Random weights find nothing, so `--conf` is set to what about `--boxes` boxes of the first frames exceed: drawing and
rows then have the work of a street. After the runs the processor time of each step is taken alone, on one thread.
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

from visionkit.cli import detect as detect_command
from visionkit.io import open_source
from visionkit.tasks import load_detector
from visionkit.tasks.detect_network import Limits

CLIP = Path(__file__).resolve().parents[2] / "shared" / "data" / "video" / "car-detection.mp4"
CLASSES = 91
BAR = 25.0


def write_card(folder: Path, network: str) -> Path:
    """A card of this network with random weights."""
    from visionkit.runtime.quiet import import_keras

    keras = import_keras()
    from visionkit import nets
    from visionkit.weights import load_card

    keras.utils.set_random_seed(0)
    card = load_card(network)
    folder.mkdir()
    weights = folder / "random.weights.h5"
    size_hw = [side // 32 * 32 for side in card.input["size_hw"]]
    model = getattr(nets, network)(classes=CLASSES, size_hw=tuple(size_hw))
    for layer in model.layers:  # scores that differ, as a trained head's do
        if layer.name.startswith("head.classification_head") and layer.name.endswith(".1") and layer.weights:
            kernel, *rest = layer.get_weights()
            layer.set_weights([60 * kernel, *rest])
    model.save_weights(weights)
    labels = [f"class {number}" for number in range(1, CLASSES)]
    rule = "\n".join(f"{key} = {json.dumps(value)}" for key, value in card.input.items())
    (folder / "card.toml").write_text(
        f'task = "detect"\nnetwork = "{network}"\nlicence = "CC0-1.0"\nlabels = {json.dumps(labels)}\n[input]\n{rule}\n'
        f'[[weights]]\nfile = "{weights.name}"\nsha256 = "{hashlib.sha256(weights.read_bytes()).hexdigest()}"\n'
        'format = "visionkit"\n'
    )
    return folder


def first_images(clip: Path, seconds: float) -> list[Any]:
    """The first frames."""
    with open_source(clip, end_s=seconds) as source:
        return [frame.image for frame in source]


def fitting_conf(clip: Path, card: Path, boxes: int) -> float:
    """The confidence that about so many boxes of a frame exceed."""
    detector = load_detector(card, conf=0.0, max_det=300, masks=False)
    scores = [np.sort(detector(image).confidence)[::-1] for image in first_images(clip, 1.0)[::4]]
    detector.close()
    return float(np.median([values[min(boxes, len(values) - 1)] for values in scores]))


def run(clip: Path, card: Path, out: Path, more: list[str]) -> Any:
    """One run of the command's own code."""
    words = [str(clip), "--model", str(card), "--out", str(out), "--overwrite", *more]
    with detect_command.command.make_context("detect", words) as ctx:
        options = dict(ctx.params)
        source = options.pop("source")
        detect_command.check_detect_options(options)
        with contextlib.redirect_stderr(io.StringIO()):
            return detect_command.detect(source, lambda: detect_command.load_model(options), options)


def steps(clip: Path, card: Path, conf: float) -> dict[str, float]:
    """Processor milliseconds of each step of one frame, alone."""
    from visionkit.draw import draw_detections
    from visionkit.io.results import result_fields

    begin = time.process_time()
    frames = first_images(clip, 2.0)
    found = {"decode": 1e3 * (time.process_time() - begin) / len(frames)}
    detector = load_detector(card, threads=1, conf=conf)
    image = frames[0]
    fit, answer = detector.fit(image.shape[:2]), detector(image)
    inputs = np.zeros((1, *fit.input_hw, 3), np.float32)
    fit(image, detector.rule, inputs[0])
    valid, limits = np.array([fit.resized_hw], np.float32), Limits(conf, None, 300)
    work: dict[str, Callable[[], Any]] = {
        "input": lambda: fit(image, detector.rule, inputs[0]),
        "network and boxes": lambda: detector.network(inputs, valid, limits),
        "row": lambda: result_fields(answer, detector.labels),
        "draw": lambda: draw_detections(image, answer, detector.labels),
    }
    for name, step in work.items():
        taken = []
        for _ in range(15):
            begin = time.process_time()
            step()
            taken.append(time.process_time() - begin)
        found[name] = 1e3 * statistics.median(taken)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path, default=CLIP, metavar="CLIP")
    parser.add_argument("--network", default="ssdlite320_mobilenet_v3_large")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--boxes", type=int, default=12)
    parser.add_argument("--end", type=float, help="end before this second of the clip")
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    args = parser.parse_args(words[:cut])
    more = [*words[cut + 1 :], *([] if args.end is None else ["--end", str(args.end)])]
    print(f"load average {os.getloadavg()[0]:.1f} at the start, {len(os.sched_getaffinity(0))} cores")
    rates, cpu = [], []
    with tempfile.TemporaryDirectory() as folder:
        card = write_card(Path(folder) / "random", args.network)
        conf = fitting_conf(args.clip, card, args.boxes)
        for _ in range(args.repeats):
            result = run(
                args.clip, card, Path(folder) / "out", ["--conf", str(conf), "--max-det", str(4 * args.boxes), *more]
            )
            rates.append(result.counts["rows"] / result.seconds["flow"])
            cpu.append(1e3 * result.seconds["cpu"] / result.counts["rows"])
            print(f"  {rates[-1]:6.1f} frames a second, {cpu[-1]:.1f} ms of processor time a frame")
        manifest = json.loads((Path(folder) / "out" / "run.json").read_text())
        settings = manifest["settings"]["detect"]
        with (Path(folder) / "out" / "results.jsonl").open() as rows:
            boxes = [len(json.loads(row)["detections"]) for row in rows]
        print(
            f"{manifest['model']['runtime']}, input {settings['input_hw']}, {settings['instances']} instances of "
            f"{settings['threads']} threads; {manifest['annotated']['codec']}; {len(boxes)} frames, "
            f"{statistics.mean(boxes):.1f} boxes in each"
        )
        print("one step alone, ms: " + ", ".join(f"{n} {ms:.1f}" for n, ms in steps(args.clip, card, conf).items()))
    print(f"median {statistics.median(rates):.1f} frames a second (bar {BAR:g}), load average {os.getloadavg()[0]:.1f}")
    raise SystemExit(0 if statistics.median(rates) >= BAR else 1)


if __name__ == "__main__":
    main()
