"""The rectify stage on a frame of 1080p against `cv2.warpPerspective` with a matrix that lies ready.

`python benchmarks/rectify.py`: both cut the same region out of the same frame into crops of the same size, call by call
in turns, so that whatever else the machine does meets both. The bar is a ratio of 1.2. `--antialias` tells what
averaging costs beside them.
"""

from __future__ import annotations

import argparse
import statistics
import time

import cv2
import numpy as np

from visionkit.pipeline import Item, RectifyStage
from visionkit.structures import Frame
from visionkit.tasks import CornerRectifier

FRAME_HW = (1080, 1920)
CORNERS = np.array([[420, 130], [1490, 95], [1835, 1010], [105, 960]], np.float64)
SIZES = ((1080, 1920), (720, 1280), (480, 640), (224, 224))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--antialias", action="store_true", help="average what a pixel of the crop covers")
    arguments = parser.parse_args()
    coarse = np.random.default_rng(0).integers(0, 256, (*(n // 8 for n in FRAME_HW), 3), np.uint8)
    image = np.asarray(cv2.resize(coarse, FRAME_HW[::-1], interpolation=cv2.INTER_CUBIC))
    for size_hw in SIZES:
        told(image, size_hw, arguments.rounds, arguments.antialias)


def told(image: np.ndarray, size_hw: tuple[int, int], rounds: int, antialias: bool) -> None:
    """One line: milliseconds of either, and their ratio in each pair (median, quarters)."""
    stage = RectifyStage(CornerRectifier(CORNERS, size_hw, antialias=antialias))
    frame = Frame(image, 0, 0.0, 40.0, "frame")
    stage.check(None, frame)
    height, width = size_hw
    square = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32) - 0.5
    matrix = cv2.getPerspectiveTransform(square, (CORNERS - 0.5).astype(np.float32))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

    def ours() -> np.ndarray:
        item = Item(frame)
        stage.process([item])
        return item.results[stage.name].image

    def theirs() -> np.ndarray:
        return cv2.warpPerspective(image, matrix, (width, height), flags=flags)

    apart = int(np.abs(ours().astype(int) - theirs()).max())
    pairs = [paired(ours, theirs, turn) for turn in range(rounds)]
    one, other = ([pair[k] for pair in pairs] for k in (0, 1))
    low, middle, high = statistics.quantiles([a / b for a, b in pairs], n=4)
    print(
        f"{width:4d} x {height:4d}: stage {statistics.median(one):6.2f} ms, cv2 {statistics.median(other):6.2f} ms, "
        f"ratio {middle:.2f} [{low:.2f}, {high:.2f}], levels apart {apart}"
    )


def paired(ours: object, theirs: object, turn: int) -> tuple[float, float]:
    """Milliseconds of both; which goes first changes from turn to turn."""
    times = {}
    for call in (ours, theirs) if turn % 2 else (theirs, ours):
        begin = time.perf_counter()
        call()  # type: ignore[operator]
        times[call] = 1e3 * (time.perf_counter() - begin)
    return times[ours], times[theirs]


if __name__ == "__main__":
    main()
