"""Frames a second of `visionkit segment` on a video, end to end, with LR-ASPP's shape.

    python benchmarks/segment_video.py [CLIP] [--network lraspp_mobilenet_v3_large] [--repeats 3] [--end S] [-- OPTION…]

The command's own code runs with its defaults and random weights, written to a throwaway card: decoding, the network at
520 pixels of shorter side, class maps at the clip's size, indexed PNG masks, drawing with a legend, H.264, rows. What
stands behind `--` is handed to the command (`-- --crf`). The bar: 15 frames a second on two cores.

Random weights are the worst case for what follows the network: all 21 classes are in every frame, in thousands of
pieces. After the runs the processor time of each step is taken alone, on one thread.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import video_speed as speed

from visionkit.cli import segment as segment_command
from visionkit.tasks import Segmenter

LABELS = ("background", *(f"class {number}" for number in range(1, 21)))
RULE = {"size_hw": [520, 520], "resize": "shortest_side", "preset": "torch"}
BAR = 15.0


def segment(source: str, options: dict[str, Any]) -> Any:
    """The command's own code."""
    segment_command.check_segment_options(options)
    return segment_command.segment(source, lambda: segment_command.load_model(options), options)


def steps(clip: Path, card: Path) -> None:
    """Print the processor milliseconds of each step of one frame, alone."""
    from visionkit.draw import draw_segmentation
    from visionkit.io.indexed_png import indexed_png
    from visionkit.io.results import result_fields
    from visionkit.tasks import load_segmenter

    frames, decode = speed.decoded(clip, 2.0)
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
    speed.tell_steps(decode, work, 9)


def main() -> None:
    args, more = speed.parsed(speed.video_parser(__doc__, "lraspp_mobilenet_v3_large"))
    speed.tell_start()
    with tempfile.TemporaryDirectory() as folder:
        card, out = Path(folder) / "random", Path(folder) / "out"
        speed.random_card(card, "segment", args.network, RULE, labels=LABELS, classes=len(LABELS), size_hw=(520, 520))
        words = [str(args.clip), "--model", str(card), "--out", str(out), "--overwrite", *more]
        rate = speed.frames_a_second(args.repeats, lambda: speed.run_command(segment_command.command, words, segment))
        print(speed.settings_told(out, "segment"))
        steps(args.clip, card)
    speed.finish(rate, BAR)


if __name__ == "__main__":
    main()
