"""How well decoding, tracking, drawing and encoding overlap: wall time of a run against what the machine allows.

    python benchmarks/pipeline_overlap.py [CLIP X,Y,W,H]… [--repeats 5] [--stand-in] [--frames N]

Every stage is first run alone on the same frames: decoding only; tracking, drawing and encoding on frames that are
ready in memory. A run cannot be faster than its slowest stage, nor than all CPU seconds spread evenly over the cores:

    bound = max(slowest stage alone, total CPU seconds of the stages alone / cores)

The bar is wall <= 1.2 x bound. Medians over the repeats; stages and runs take turns, so that a busy machine disturbs
all of them alike. `--stand-in` tracks by optical flow instead of the network (needs no model).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from visionkit.draw import TrackDrawer
from visionkit.io import VideoWriter, open_source
from visionkit.pipeline import Reading, TrackStage, Writing, network_threads, run
from visionkit.structures import Frame, Track

VIDEOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "video"
CLIPS = [("car-detection.mp4", (640.0, 130.0, 760.0, 230.0)), ("bigbuckbunny.mp4", (350.0, 60.0, 650.0, 560.0))]
BAR = 1.2


class FlowTracker:
    """Moves the box with the median of dense optical flow over a window of the size a Siamese network searches."""

    def __init__(self) -> None:
        self.flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def init(self, image: np.ndarray, xyxy: np.ndarray) -> None:
        self.box, self.before = np.asarray(xyxy, np.float32), self.window(image, xyxy)

    def window(self, image: np.ndarray, xyxy: np.ndarray) -> np.ndarray:
        center, side = (xyxy[:2] + xyxy[2:]) / 2, 2 * float(max(xyxy[2:] - xyxy[:2]))
        scale = 255 / side
        move = np.array([[scale, 0, 127.5 - scale * center[0]], [0, scale, 127.5 - scale * center[1]]])
        return cv2.cvtColor(cv2.warpAffine(image, move, (255, 255)), cv2.COLOR_BGR2GRAY)

    def update(self, image: np.ndarray) -> Track:
        now = self.window(image, self.box)
        moved = self.flow.calc(self.before, now, None)
        step = np.median(moved[64:192, 64:192].reshape(-1, 2), axis=0) * max(self.box[2:] - self.box[:2]) * 2 / 255
        self.box = self.box + np.tile(step, 2).astype(np.float32)
        self.before = self.window(image, self.box)
        return Track(self.box, 0.9, "tracking")


def load(stand_in: bool, threads: int | None) -> object:
    if stand_in:
        return FlowTracker()
    from visionkit.tasks import load_tracker

    return load_tracker(threads=threads or network_threads(encoding=True))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds (of all threads) of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


class Case:
    """One clip with its frames in memory and each stage as a function of nothing."""

    def __init__(self, clip: Path, xyxy: tuple[float, ...], tracker: object, folder: Path, frames: int | None) -> None:
        self.clip, self.xyxy, self.tracker, self.folder = clip, xyxy, tracker, folder
        self.end_s = None
        with open_source(clip) as source:
            self.info = source.info
            self.frames: list[Frame] = list(source)
        if frames is not None and frames < len(self.frames):
            self.end_s = self.frames[frames].pts_ms / 1000
            del self.frames[frames:]
        self.tracks = self.track()

    def decode(self) -> None:
        with open_source(self.clip, end_s=self.end_s) as source:
            for _ in source:
                pass

    def track(self) -> list[Track]:
        self.tracker.init(self.frames[0].image, np.array(self.xyxy, np.float32))
        return [self.tracker.update(frame.image) for frame in self.frames[1:]]

    def draw(self) -> None:
        drawer = TrackDrawer()
        for frame, track in zip(self.frames[1:], self.tracks, strict=True):
            drawer(frame.image, track)

    def encode(self) -> None:
        options = {"size_hw": self.info.size_hw, "fps": self.info.fps, "overwrite": True}
        audio = self.clip if self.info.has_audio else None
        with VideoWriter(self.folder / "alone.mp4", audio_from=audio, **options) as writer:
            for frame in self.frames:
                writer.write(frame.image, frame.pts_ms, frame.duration_ms)

    def whole(self) -> dict[str, float]:
        drawer = TrackDrawer()
        result = run(
            self.clip,
            [TrackStage(self.tracker, self.xyxy)],
            reading=Reading(end_s=self.end_s),
            writing=Writing(out=self.folder / "run", overwrite=True),
            draw=lambda item: drawer(item.frame.image, item.results["track"]),
            progress=False,
        )
        return {**result.seconds, "wall": result.seconds["flow"] + result.seconds["finish"]}


def measure(case: Case, repeats: int) -> float:
    """Print the table of one clip; returns the ratio of wall to bound."""
    names = ["decode", "track", "draw", "encode"]
    alone: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    runs: list[dict[str, float]] = []
    case.whole()  # the first run pays for caches and imports
    for _ in range(repeats):
        for name in names:
            alone[name].append(timed(getattr(case, name)))
        runs.append(case.whole())
    cores = len(os.sched_getaffinity(0))
    wall = {name: statistics.median(w for w, _ in alone[name]) for name in names}
    cpu = {name: statistics.median(c for _, c in alone[name]) for name in names}
    count = len(case.frames)
    print(f"\n{case.clip.name}: {count} frames of {case.info.size_hw[1]} x {case.info.size_hw[0]}")
    print(f"  {'':8} {'alone s':>9} {'ms/frame':>9} {'CPU s':>8}   {'in the run s':>12}")
    for name in names:
        inside = statistics.median(r[name] for r in runs)
        print(f"  {name:8} {wall[name]:9.3f} {1000 * wall[name] / count:9.2f} {cpu[name]:8.3f}   {inside:12.3f}")
    slowest, spread = max(wall.values()), sum(cpu.values()) / cores
    bound, whole = max(slowest, spread), statistics.median(r["wall"] for r in runs)
    busy = statistics.median(r["cpu"] for r in runs)
    print(f"  one after another {sum(wall.values()):.3f} s; CPU of a run {busy:.3f} s")
    print(f"  bound = max(slowest {slowest:.3f}, CPU / {cores} cores {spread:.3f}) = {bound:.3f} s")
    low, *_, high = sorted(r["wall"] / bound for r in runs)
    verdict = f"{'within' if whole / bound <= BAR else 'ABOVE'} {BAR}"
    print(
        f"  wall {whole:.3f} s ({count / whole:.0f} fps), ratio {whole / bound:.2f} [{low:.2f}, {high:.2f}]: {verdict}"
    )
    return whole / bound


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", metavar="CLIP BOX")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--threads", type=int, help="threads for the network; as `visionkit track` takes")
    parser.add_argument("--stand-in", action="store_true")
    args = parser.parse_args()
    cases = [(VIDEOS / name, box) for name, box in CLIPS]
    if args.clips:
        boxes = [tuple(float(v) for v in box.split(",")) for box in args.clips[1::2]]
        cases = [(Path(c), (x, y, x + w, y + h)) for c, (x, y, w, h) in zip(args.clips[::2], boxes, strict=True)]
    print(f"load average {os.getloadavg()[0]:.1f} at the start, {len(os.sched_getaffinity(0))} cores")
    with tempfile.TemporaryDirectory() as folder:
        tracker = load(args.stand_in, args.threads)
        ratios = [measure(Case(clip, box, tracker, Path(folder), args.frames), args.repeats) for clip, box in cases]
    raise SystemExit(0 if max(ratios) <= BAR else 1)


if __name__ == "__main__":
    main()
