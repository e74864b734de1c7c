"""`run.json`: what a run read, with what, what came of it, and what of its surroundings can change the result."""

from __future__ import annotations

import hashlib
import os
import platform
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.pipeline.threads import available_cores

if TYPE_CHECKING:
    from visionkit.io import MediaInfo, ReadReport

__all__ = ["Digest", "counts_of", "environment", "source_fields"]

# Variables that change how frames are decoded or a network is run. Not all of `TF_`: Terraform keeps secrets there.
_PREFIXES = (
    *("OPENCV_", "AV_", "KERAS_", "XLA_", "CUDA_", "OMP_", "MKL_", "ONEDNN_", "DNNL_", "ORT_", "OPENVINO_"),
    *("TF_ENABLE_", "TF_DISABLE_", "TF_FORCE_", "TF_XLA_", "TF_DETERMINISTIC_", "TF_CUDNN_", "TF_NUM_", "TF_GPU_"),
)
_CHUNK = 1 << 20


class Digest:
    """The SHA-256 of a file, computed in a thread beside the run (hashing lets other threads work).

    Args:
        path: the file; None, or something that is no regular file, has no digest.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path if path is not None and path.is_file() else None
        self._result: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="digest", daemon=True)
        self._thread.start()

    def result(self) -> str | None:
        """Hexadecimal digest, waiting for it; None where there is none."""
        self._thread.join()
        return self._result

    def cancel(self) -> None:
        """Stop early."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        if self._path is None:
            return
        digest = hashlib.sha256()
        try:
            with self._path.open("rb") as file:
                while not self._stop.is_set() and (chunk := file.read(_CHUNK)):
                    digest.update(chunk)
        except OSError:
            return  # gone or unreadable by now: the run itself tells
        if not self._stop.is_set():
            self._result = digest.hexdigest()


def counts_of(report: ReadReport, *, rows: int, failed: int) -> dict[str, int]:
    """Frames by what became of them: `decoded + damaged + skipped + dropped = seen`.

    Skipped are pictures of a video, and images of a folder, that gave no frame. `rows` were written, `failed` of them
    without a result because the model failed.
    """
    skipped = report.skipped + len(report.failures)
    counts = {"decoded": report.decoded, "damaged": report.damaged, "skipped": skipped, "dropped": 0}
    return {**counts, "seen": sum(counts.values()), "rows": rows, "failed": failed}


def source_fields(info: MediaInfo, report: ReadReport, sha256: str | None) -> dict[str, Any]:
    """What the source is, said and gave."""
    return {
        "name": info.name,
        "kind": info.kind,
        "sha256": sha256,
        "bytes": info.size_bytes,
        "declared": report.declared,
        "decoded": report.frames,
        "ended_early": report.ended_early,
        "size_hw": info.size_hw,
        "fps": info.fps,
        "duration_ms": info.duration_ms,
        "codec": info.codec,
        "container": info.container,
        "rotation": info.rotation,
        "timing": info.timing,
        "backend": info.backend,
        "failures": report.failures,
    }


def environment(variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Platform, cores, and the variables that change decoding or inference (FFmpeg options, oneDNN, thread counts)."""
    variables = os.environ if variables is None else variables
    relevant = {name: value for name, value in sorted(variables.items()) if name.startswith(_PREFIXES)}
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cores": available_cores(),
        "variables": relevant,
    }
