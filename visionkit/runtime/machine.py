"""The machine a measurement holds for: its processor, the cores we may use, the versions that are installed."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
from pathlib import Path

import visionkit

__all__ = ["default_threads", "fingerprint", "versions"]

PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "onnxruntime", "openvino", "tf2onnx")


def default_threads() -> int:
    """The cores this process may use: its affinity, or the container's quota where that is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, container_cores()))


def container_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Whole cores that the control group lets us use, rounded up; a large number where it sets no limit."""
    try:
        limit, period = quota.read_text().split()
        return math.ceil(int(limit) / int(period))
    except (OSError, ValueError):  # no control group, or the word "max"
        return 1 << 16


def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            facts = dict(line.split(":", 1) for line in file.read(8192).splitlines() if ":" in line)
        for key, value in facts.items():
            if key.strip() in ("model name", "Model", "Hardware"):
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def fingerprint() -> dict[str, str]:
    """What the fastest runtime depends on besides the network: processor, system, visible GPUs, Keras backend."""
    return {
        "processor": processor(),
        "machine": platform.machine(),
        "system": platform.system(),
        "gpus": ",".join(sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))),
        "visible_gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "backend": os.environ.get("KERAS_BACKEND", ""),
    }


def versions() -> dict[str, str]:
    """Version of VisionKit and of each runtime and converter, "" for one that is not installed."""
    found = {"visionkit": visionkit.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = ""
    return found
