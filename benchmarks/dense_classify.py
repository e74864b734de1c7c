"""One dense pass over an image against the crops it stands for, and the memory of a large frame.

`python benchmarks/dense_classify.py` compiles a network (random weights, which cost as much as any) for one crop, for a
batch of eight crops and, made fully convolutional, for an image of 500 x 500, and takes turns with the three. Long,
Shelhamer and Darrell, CVPR 2015, section 4.1, tell 1.2 ms for one 227 x 227 crop through AlexNet and 22 ms for the
10 x 10 map of a 500 x 500 image on a GPU: more than five times faster than a hundred crops.

`--frame 1080x1920` measures instead the time and the peak memory of one frame of that size through the task.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np

from visionkit.runtime import compile_model
from visionkit.runtime.quiet import import_keras

BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="alexnet_2012")
    parser.add_argument("--side", type=int, default=500, help="of the image, in pixels")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runtime", default="litert")
    parser.add_argument("--frame", help="HxW: one frame of this size through the task, as it is")
    arguments = parser.parse_args()
    import_keras()
    if arguments.frame:
        height, width = (int(part) for part in arguments.frame.split("x"))
        frame(arguments.network, (height, width), arguments.runtime)
    else:
        crops(arguments.network, arguments.side, arguments.rounds, arguments.runtime)


def crops(name: str, side: int, rounds: int, runtime: str) -> None:
    """Milliseconds of one crop, of a batch of them, and of the dense pass; and the ratio for the same windows."""
    from visionkit import nets

    model = getattr(nets, name)()
    grid = nets.window_grid(model)
    counts = [(side - w) // s + 1 for w, s in zip(grid.window_hw, grid.stride_hw, strict=True)]
    tile_hw = tuple(w + (n - 1) * s for w, n, s in zip(grid.window_hw, counts, grid.stride_hw, strict=True))
    dense = compile_model(nets.fully_convolutional(model, tile_hw), runtime=runtime)
    one, batch = (compile_model(model, runtime=runtime, batch=size) for size in (1, BATCH))
    contenders = {
        "one crop": call(one, (1, *grid.window_hw, 3)),
        f"{BATCH} crops": call(batch, (BATCH, *grid.window_hw, 3)),
        f"dense, {tile_hw[1]} x {tile_hw[0]}": call(dense, (1, *tile_hw, 3)),
    }
    times = {label: statistics.median(values) for label, values in taken(contenders, rounds).items()}
    for label, value in times.items():
        print(f"{label:24s} {value:8.1f} ms")
    single, eight, whole = times.values()
    windows = counts[0] * counts[1]
    cheaper = min(single, eight / BATCH)
    print(
        f"{windows} windows ({counts[0]} x {counts[1]}): crops {windows * cheaper:.0f} ms, dense {whole:.0f} ms: ",
        end="",
    )
    print(f"{windows * cheaper / whole:.1f} times faster; it costs as much as {whole / single:.1f} crops")


def call(runner: object, shape: tuple[int, ...]) -> Callable[[], object]:
    inputs = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return lambda: runner(image=inputs)  # type: ignore[operator]


def taken(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each, in turns; the first turn is not counted."""
    times: dict[str, list[float]] = {label: [] for label in contenders}
    for turn in range(rounds + 1):
        for label, contender in contenders.items():
            begin = time.perf_counter()
            contender()
            if turn:
                times[label].append(1e3 * (time.perf_counter() - begin))
    return times


def frame(name: str, size_hw: tuple[int, int], runtime: str) -> None:
    """Seconds of one frame through the task at its own size, and the process's peak memory before and after."""
    from visionkit import nets
    from visionkit.tasks.dense import DenseClassifier, DenseOptions
    from visionkit.tasks.input_rule import InputRule
    from visionkit.tasks.load_dense import dense_network

    model = getattr(nets, name)()
    network = dense_network(model, runtime=runtime)
    rule = InputRule.preset("torch", network.grid.window_hw)
    task = DenseClassifier(network, rule, DenseOptions(short_side=min(size_hw)))
    image = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
    task.prepare(size_hw)
    before = peak()
    task(image)
    begin = time.perf_counter()
    found = task(image)
    took = time.perf_counter() - begin
    print(f"{name}, {size_hw[1]} x {size_hw[0]}: map of {found.probs.shape}, {took:.2f} s a frame")
    print(f"peak memory {before:.0f} MiB when compiled, {peak():.0f} MiB after two frames")


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
