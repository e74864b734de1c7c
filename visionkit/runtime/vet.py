"""Tries a `.tflite` of unknown origin in a child process: a damaged one can crash or hang whoever runs it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from visionkit.errors import ModelError
from visionkit.runtime.cache import put
from visionkit.runtime.machine import versions

__all__ = ["vet_tflite"]

TIMEOUT_S = 15.0
MEMORY_BYTES = 8 << 30


def vet_tflite(
    path: Path,
    content: bytes,
    label: str,
    cache: Path | None,
    timeout_s: float = TIMEOUT_S,
    signature: str | None = None,
) -> None:
    """Returns when a child process opened the model and ran it once; remembers that, by sha256, in the cache.

    With `signature`, that one is run.

    A model that is merely refused also passes: the caller meets that refusal itself, with its reason.

    Raises:
        ModelError: `model-crashed` or `model-timeout`.
    """
    digest = hashlib.sha256(content).hexdigest()
    of_what = "" if signature is None else f"-{hashlib.sha256(signature.encode()).hexdigest()[:16]}"
    mark = None if cache is None else cache / "vetted" / f"{digest}{of_what}-{versions()['ai-edge-litert']}"
    if mark is not None and mark.exists():
        return
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}  # noqa: PTH109
    command = [sys.executable, "-m", "visionkit.runtime.vet", os.fspath(path.absolute()), digest]
    command += [] if signature is None else [signature]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            "model-timeout",
            f"{label} did not answer one call within {timeout_s:g} s in a trial process; "
            "if it is just slow, say that you trust it (--trust-model)",
        ) from error
    except OSError:  # no second process to be had here
        return
    if done.returncode < 0:
        raise ModelError("model-crashed", f"{label} killed the process that tried it (signal {-done.returncode})")
    if mark is not None and done.returncode == 0:
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            put(mark, b"")
        except OSError:
            return


def main(arguments: Sequence[str]) -> int:
    """The child: 0 when the model of this path and sha256 ran, 1 when it was refused."""
    limit_memory()
    from visionkit.errors import VisionkitError
    from visionkit.runtime.base import Signature
    from visionkit.runtime.litert import open_litert
    from visionkit.runtime.measure import probe_inputs

    path, digest, *signature = arguments
    content = Path(path).read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        return 1
    try:
        with open_litert(content, threads=1, key=next(iter(signature), None)) as runner:
            runner(**probe_inputs(Signature(tuple(runner.inputs.values()), ())))
    except (VisionkitError, RuntimeError, ValueError, MemoryError):
        return 1
    return 0


def limit_memory() -> None:
    try:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
