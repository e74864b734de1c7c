"""The dense CRF against pydensecrf: time, labels, distance to the exact mean field, memory.

    python benchmarks/dense_crf.py [--rounds 15] [--threads N] [--image FILE] [--only speed,small,memory,engines,video]

pydensecrf is no dependency of VisionKit: where it cannot be imported, pip installs the package pydensecrf2 into a
temporary folder, which is taken away at the end.

speed: 375 x 500 pixels, 21 labels, 10 iterations, Gaussian (3, 3) and bilateral (80, 13, 10); everything that an image
costs counts, lattices included. Both contenders take turns on the same arrays in one process; medians, and the median
of the ratios of neighbours in time. CPU seconds are given too: they tell what a busy machine hides.
small: 32 x 32 pixels, 3 labels, 5 settings, 1, 5 and 10 iterations against the sum over all pairs of pixels.
memory: the peak of a fresh process that does 1080 x 1920 pixels and 21 labels. engines: numba, SciPy, by threads.
video: a passing car (40 frames of car-detection.mp4) by the difference to the still background, three labels (road,
changed, bright), with noise of a network's stride as unary; right is what the CRF makes of the unary without noise.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from visionkit.crf import (
    CRFParams,
    FastMeanField,
    Flicker,
    VideoCRF,
    mean_field,
    mean_field_exact,
    unary_from_labels,
    unary_from_probs,
)

PICTURE = Path(__file__).resolve().parents[2] / "shared" / "data" / "segmentation" / "densecrf" / "im1.png"
CLIP = PICTURE.parents[2] / "video" / "car-detection.mp4"
SIZE_HW, LABELS, BAR = (375, 500), 21, 3.0
SETTINGS = [
    {},
    {"theta_alpha": 50, "theta_beta": 3, "bilateral_weight": 5},
    {"theta_alpha": 67, "theta_beta": 3, "bilateral_weight": 4, "theta_gamma": 1},
    {"theta_alpha": 30, "theta_beta": 6, "bilateral_weight": 4},
    {"theta_alpha": 10, "theta_beta": 20, "theta_gamma": 1, "gaussian_weight": 1},
]


def load_pydensecrf(folder: str) -> Any:
    """pydensecrf's module, installed into `folder` first if it must be."""
    try:
        return importlib.import_module("pydensecrf.densecrf")
    except ImportError:
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, "pydensecrf2"]
        subprocess.run(command, check=True)
        sys.path.append(folder)
        importlib.invalidate_caches()
        return importlib.import_module("pydensecrf.densecrf")


def by_pydensecrf(module: Any, unary: np.ndarray, image: np.ndarray, params: CRFParams) -> np.ndarray:
    height, width, labels = unary.shape
    crf = module.DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(-1, labels).T))
    words = params.to_pydensecrf()
    crf.addPairwiseGaussian(**words["gaussian"])
    crf.addPairwiseBilateral(rgbim=image, **words["bilateral"])
    result = np.array(crf.inference(words["inference"]["n_iterations"]))
    return result.reshape(labels, height, width).transpose(1, 2, 0)


def problem(size_hw: tuple[int, int], labels: int, picture: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Unary as of a network with stride 16, and an image: a photograph where there is one, else rendered."""
    height, width = size_hw
    rng = np.random.default_rng(0)
    image = cv2.imread(str(picture)) if picture and picture.is_file() else None
    if image is None:
        image = cv2.resize(
            rng.integers(0, 256, (12, 16, 3)).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
        )
        image = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    coarse = rng.normal(size=(height // 16, width // 16, labels)).astype(np.float32) * 3
    logits = np.stack(
        [cv2.resize(c, (width, height), interpolation=cv2.INTER_CUBIC) for c in np.moveaxis(coarse, 2, 0)], 2
    )
    logits -= logits.max(-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(-1, keepdims=True)
    return unary_from_probs(logits), image


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def speed(module: Any, picture: Path, rounds: int, threads: int | None) -> None:
    unary, image = problem(SIZE_HW, LABELS, picture)
    params = CRFParams(iterations=10)
    _, first, _ = timed(lambda: mean_field(unary, image, params, threads=threads))
    ours, theirs = [], []
    for _ in range(rounds):
        theirs.append(timed(lambda: by_pydensecrf(module, unary, image, params)))
        ours.append(timed(lambda: mean_field(unary, image, params, threads=threads)))
    name = picture.name if picture.is_file() else "rendered"
    print(f"speed {SIZE_HW[0]} x {SIZE_HW[1]} x {LABELS}, 10 iterations, {name}")
    print(f"  first call, compiled loops loaded or made: {first:.2f} s")
    for name, runs in (("pydensecrf", theirs), ("visionkit", ours)):
        wall, cpu = [run[1] for run in runs], [run[2] for run in runs]
        spent = f"wall median {statistics.median(wall):.3f} s [{min(wall):.3f}, {max(wall):.3f}]"
        print(f"  {name:10s} {spent}, CPU {statistics.median(cpu):.3f} s")
    ratios = [a[1] / b[1] for a, b in zip(theirs, ours, strict=True)]
    best = min(run[1] for run in theirs) / min(run[1] for run in ours)
    median = statistics.median(run[1] for run in theirs) / statistics.median(run[1] for run in ours)
    spread = f"pairs {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
    print(f"  times faster: medians {median:.2f}, {spread}, bests {best:.2f} (bar {BAR})")
    same = np.mean(ours[0][0].argmax(-1) == theirs[0][0].argmax(-1))
    print(f"  same labels: {100 * same:.2f} % (bar 99 %)")


def small(module: Any) -> None:
    print("small 32 x 32 x 3 against the exact sum: largest |dQ|, labels that agree; 1, 5, 10 iterations, 3 images")
    height = width = 32
    y, x = np.mgrid[:height, :width]
    truth = np.where((x - 21) ** 2 + (y - 11) ** 2 < 75, 1, np.where((y > 19) & (x < 18), 2, 0))
    for kernels in SETTINGS:
        found: dict[str, list[tuple[float, float]]] = {"pydensecrf": [], "lattice": [], "auto": []}
        for seed in range(3):
            rng = np.random.default_rng(seed)
            image = np.clip(rng.integers(30, 226, (3, 3))[truth] + rng.normal(0, 2, (32, 32, 3)), 0, 255).astype(
                np.uint8
            )
            unary = unary_from_labels(
                np.where(rng.random((32, 32)) < 0.25, rng.integers(0, 3, (32, 32)), truth), 3, 0.7
            )
            for iterations in (1, 5, 10):
                params = CRFParams(iterations=iterations, **kernels)
                right = mean_field_exact(unary, image, params)
                for name, q in (
                    ("pydensecrf", by_pydensecrf(module, unary, image, params)),
                    ("lattice", mean_field(unary, image, params, engine="numba")),
                    ("auto", mean_field(unary, image, params)),
                ):
                    found[name].append((np.abs(q - right).max(), np.mean(q.argmax(-1) == right.argmax(-1))))
        worst = "  ".join(
            f"{name} {max(d for d, _ in rows):.4f} {100 * min(s for _, s in rows):.2f} %"
            for name, rows in found.items()
        )
        print(f"  {kernels or 'defaults'}: {worst}")


def memory(size_hw: tuple[int, int] = (1080, 1920)) -> None:
    """In a process of its own, as the peak of a process never falls."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import dense_crf as b; import resource, time\n"
        f"u, i = b.noise_problem({size_hw})\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "t = time.perf_counter(); q = b.mean_field(u, i, b.CRFParams(iterations=10)); t = time.perf_counter() - t\n"
        "print(f'  peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB, of which inputs and "
        "libraries {before / 1024:.0f} MiB; {t:.1f} s')\n"
    )
    print(f"memory {size_hw[0]} x {size_hw[1]} x {LABELS}, 10 iterations (bar 1024 MiB)", flush=True)
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent)], check=True)


def noise_problem(size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Unary and photograph without large temporaries."""
    rng = np.random.default_rng(0)
    unary = rng.random((*size_hw, LABELS), np.float32)
    unary *= 3
    image = cv2.imread(str(PICTURE)) if PICTURE.is_file() else rng.integers(0, 256, (30, 40, 3)).astype(np.uint8)
    return unary, cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_CUBIC)


def engines(picture: Path, rounds: int) -> None:
    unary, image = problem(SIZE_HW, LABELS, picture)
    params = CRFParams(iterations=10)
    print("engines: lattice, then 10 iterations, medians")
    for engine, threads in (("numba", 1), ("numba", 2), ("scipy", None)):
        count = rounds if engine == "numba" else 2
        built = [timed(lambda: FastMeanField(image, params, threads=threads, engine=engine)) for _ in range(count)]  # noqa: B023
        field = built[-1][0]
        ran = [timed(lambda: field(unary)) for _ in range(count)]  # noqa: B023
        numbers = [statistics.median(run[i] for run in runs) for runs in (built, ran) for i in (1, 2)]
        wall, cpu = f"{numbers[0]:.3f} + {numbers[2]:.3f}", f"{numbers[1]:.3f} + {numbers[3]:.3f}"
        print(f"  {engine} threads={threads}: wall {wall} s, CPU {cpu} s")


def wavering(frames: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Unaries of each frame without and with noise."""
    still = np.median(np.stack(frames[::7]), axis=0)
    rng = np.random.default_rng(0)
    clean, noisy = [], []
    for frame in frames[60:100]:
        lit = np.clip(frame + np.median(still - frame, axis=(0, 1)), 0, 255).astype(np.float32)  # the exposure drifts
        change = cv2.GaussianBlur(np.abs(lit - still).max(-1).astype(np.float32), (0, 0), 2)
        bright = cv2.GaussianBlur(lit, (0, 0), 1).min(-1)
        parts = [np.zeros_like(change), np.clip((change - 30) / 10, -1.5, 1.5), np.clip((bright - 190) / 15, -2, 2)]
        logits = np.stack(parts, -1)
        coarse = rng.normal(size=(3, frame.shape[0] // 16, frame.shape[1] // 16)).astype(np.float32) * 1.5
        noise = np.stack([cv2.resize(part, frame.shape[1::-1]) for part in coarse], -1)
        clean.append(-logits)
        noisy.append(-(logits + noise))
    return clean, noisy


def video() -> None:
    if not CLIP.is_file():
        print(f"video: needs {CLIP.name}, which is not there")
        return
    capture = cv2.VideoCapture(str(CLIP))
    every = [capture.read()[1] for _ in range(100)]
    clean, noisy = wavering(every)
    frames = every[60:]
    truth = [mean_field(u, f).argmax(-1) for u, f in zip(clean, frames, strict=True)]
    print(f"video {CLIP.name}, {len(frames)} frames {frames[0].shape[:2]}, 3 labels: flicker index, labels right, time")
    two, runs = CRFParams(iterations=2), {"no CRF": lambda u, f: -u, "each frame, 5 iterations": mean_field}
    runs["each frame, 2 iterations"] = lambda u, f: mean_field(u, f, two)
    for memory in (0.25, 0.5, 1.0):
        runs[f"warm, 2 iterations, memory {memory}"] = VideoCRF(memory=memory)
    for name, call in runs.items():
        flicker, right, wall, cpu = Flicker(), [], [], []
        for frame, unary, labels in zip(frames, noisy, truth, strict=True):
            q, w, c = timed(lambda: call(unary, frame))  # noqa: B023
            found = q.argmax(-1)
            flicker(frame, found)
            right.append((found == labels).mean())
            wall.append(1e3 * w)
            cpu.append(1e3 * c)
        spent = f"{statistics.median(wall):.0f} ms, CPU {statistics.median(cpu):.0f} ms"
        print(f"  {name:34s} {flicker.mean:.4f}  {100 * np.mean(right):.2f} %  {spent}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--image", type=Path, default=PICTURE)
    parser.add_argument("--only", default="speed,small,memory,engines,video")
    options = parser.parse_args()
    chosen = options.only.split(",")
    with tempfile.TemporaryDirectory() as folder:
        if "memory" in chosen:
            memory()
        if {"speed", "small"} & set(chosen):
            module = load_pydensecrf(folder)
            if "speed" in chosen:
                speed(module, options.image, options.rounds, options.threads)
            if "small" in chosen:
                small(module)
        if "engines" in chosen:
            engines(options.image, options.rounds)
        if "video" in chosen:
            video()


if __name__ == "__main__":
    main()
