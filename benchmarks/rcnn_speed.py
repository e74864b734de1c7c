"""A whole detection by Faster R-CNN against ONNX Runtime on its backbone, pyramid and proposal head alone.

    python benchmarks/rcnn_speed.py [--network fasterrcnn_resnet50_fpn] [--size 800,1088] [--rounds 7] [--runtime auto]

Random weights, one input of 800 pixels that is filled by the image, all cores that the process may use (`--threads`).
In turns, so that a busy machine disturbs both alike:

    trunk      ONNX Runtime: image -> maps, objectness and deltas of every level
    whole      `RCNNPipeline` in the runtime: trunk, selection, pooling, box head, suppression

Medians, and the median of the paired ratios. The bar is 1.3. Then once the same by steps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from visionkit.geometry.detection_rules import rcnn_rule
from visionkit.runtime import Runner, compile_cached
from visionkit.runtime.quiet import import_keras
from visionkit.tasks.network import code_digest
from visionkit.tasks.rcnn import RCNNPipeline, RCNNRunners, box_rows

BAR = 1.3


def part(network: str, size: tuple[int, int], which: str) -> Callable[[], Any]:
    """Builds one part of a network with random weights."""

    def build() -> Any:
        keras = import_keras()
        from visionkit import nets

        keras.utils.set_random_seed(0)
        model = getattr(nets, network)(size_hw=size)
        for layer in model.layers:
            if layer.name.endswith(".bn3"):  # without training, blocks would double the deviation each
                layer.gamma.assign(layer.gamma * 0.2)
            elif layer.name.endswith(("rpn.head.cls_logits", "rpn.head.bbox_pred", "cls_score", "bbox_pred")):
                layer.kernel.assign(layer.kernel * 8)  # boxes that differ, some of them above the threshold
        return getattr(nets.rcnn_parts(model), which)

    return build


def compiled(args: argparse.Namespace, which: str, runtime: str, batch: int = 1) -> Runner:
    digest = f"rcnn_speed 2 {args.network} {args.size} {which} {code_digest()}"
    how = {"runtime": runtime, "threads": args.threads, "batch": batch}
    return compile_cached(digest, part(args.network, args.size, which), **how)


def timed(call: Callable[..., Any], *args: Any, **named: Any) -> tuple[float, Any]:
    """Milliseconds, and what came of it."""
    begin = time.perf_counter()
    value = call(*args, **named)
    return 1e3 * (time.perf_counter() - begin), value


def steps(pipeline: RCNNPipeline, inputs: np.ndarray[Any, Any], size: tuple[int, int]) -> None:
    """Print what each step of a detection takes."""
    from visionkit.tasks.detect_network import Limits

    rule = pipeline.rule
    limits = Limits(rule.score, rule.nms, rule.max_det)
    for _ in range(2):
        trunk, maps = timed(pipeline.runners.trunk, image=inputs)
        select, (proposals, _) = timed(pipeline.proposals, maps, 0, size, size)
        pool, _ = timed(pipeline.pool, maps, 0, proposals, rule.roi_side)
        head, answer = timed(pipeline.classify, maps, 0, proposals)
        last, found = timed(pipeline.select, proposals, *answer, size, limits)
    print(
        f"trunk {trunk:.0f} ms ({pipeline.runtime}), selection {select:.0f}, pooling {pool:.0f} and box head "
        f"{head - pool:.0f} of {len(proposals)}, suppression {last:.0f}, {len(found[0])} boxes"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="fasterrcnn_resnet50_fpn")
    parser.add_argument("--size", default=(800, 1088), type=lambda text: tuple(int(side) for side in text.split(",")))
    parser.add_argument("--rounds", default=7, type=int)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--threads", default=None, type=int)
    args = parser.parse_args()
    rule = rcnn_rule(args.network)
    baseline = compiled(args, "trunk", "onnxruntime")
    trunk = compiled(args, "trunk", args.runtime)
    head = compiled(args, "box_head", trunk.name, box_rows(rule))
    pipeline = RCNNPipeline(RCNNRunners(trunk, head), rule)
    inputs = np.random.default_rng(0).standard_normal((1, *args.size, 3)).astype(np.float32)
    size = args.size
    pipeline(inputs, [size])  # the loops are compiled
    baseline(image=inputs)
    pairs = []
    for _ in range(args.rounds):
        alone, _ = timed(baseline, image=inputs)
        whole, _ = timed(pipeline, inputs, [size])
        pairs.append((alone, whole))
    alone, whole = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = sorted(after / before for before, after in pairs)
    print(f"{args.network} at {size[0]} x {size[1]}, {trunk.threads} threads, {args.rounds} rounds")
    print(f"trunk {alone:.0f} ms (onnxruntime), whole {whole:.0f} ms ({trunk.name})")
    print(f"whole / trunk {statistics.median(ratios):.3f} [{ratios[0]:.3f}, {ratios[-1]:.3f}] (bar {BAR})")
    steps(pipeline, inputs, size)


if __name__ == "__main__":
    main()
