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

import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import video_speed as speed

from visionkit.cli import detect as detect_command
from visionkit.tasks import load_detector
from visionkit.tasks.detect_network import Limits
from visionkit.weights import load_card

CLASSES = 91
BAR = 25.0


def write_card(folder: Path, network: str) -> Path:
    """A card of this network with random weights."""
    rule = load_card(network).input
    size_hw = tuple(side // 32 * 32 for side in rule["size_hw"])
    labels = [f"class {number}" for number in range(1, CLASSES)]
    return speed.random_card(
        folder, "detect", network, rule, labels=labels, change=sharpen, classes=CLASSES, size_hw=size_hw
    )


def sharpen(model: Any) -> None:
    """Let the scores differ, as a trained head's do."""
    for layer in model.layers:
        if layer.name.startswith("head.classification_head") and layer.name.endswith(".1") and layer.weights:
            kernel, *rest = layer.get_weights()
            layer.set_weights([60 * kernel, *rest])


def fitting_conf(clip: Path, card: Path, boxes: int) -> float:
    """The confidence that about so many boxes of a frame exceed."""
    detector = load_detector(card, conf=0.0, max_det=300, masks=False)
    scores = [np.sort(detector(image).confidence)[::-1] for image in speed.decoded(clip, 1.0)[0][::4]]
    detector.close()
    return float(np.median([values[min(boxes, len(values) - 1)] for values in scores]))


def detect(source: str, options: dict[str, Any]) -> Any:
    """The command's own code."""
    detect_command.check_detect_options(options)
    return detect_command.detect(source, lambda: detect_command.load_model(options), options)


def steps(clip: Path, card: Path, conf: float) -> None:
    """Print the processor milliseconds of each step of one frame, alone."""
    from visionkit.draw import draw_detections
    from visionkit.io.results import result_fields

    frames, decode = speed.decoded(clip, 2.0)
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
    speed.tell_steps(decode, work, 15)


def main() -> None:
    parser = speed.video_parser(__doc__, "ssdlite320_mobilenet_v3_large")
    parser.add_argument("--boxes", type=int, default=12)
    args, more = speed.parsed(parser)
    speed.tell_start()
    with tempfile.TemporaryDirectory() as folder:
        card, out = write_card(Path(folder) / "random", args.network), Path(folder) / "out"
        conf = fitting_conf(args.clip, card, args.boxes)
        words = [str(args.clip), "--model", str(card), "--out", str(out), "--overwrite", "--conf", str(conf)]
        words += ["--max-det", str(4 * args.boxes), *more]
        rate = speed.frames_a_second(args.repeats, lambda: speed.run_command(detect_command.command, words, detect))
        with (out / "results.jsonl").open() as rows:
            boxes = [len(json.loads(row)["detections"]) for row in rows]
        print(f"{speed.settings_told(out, 'detect')}, {statistics.mean(boxes):.1f} boxes in each")
        steps(args.clip, card, conf)
    speed.finish(rate, BAR)


if __name__ == "__main__":
    main()
