"""How stages share the machine: the cores that a network gets, and how fast threads hand over the interpreter."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

__all__ = ["available_cores", "network_threads", "quick_handover"]

HANDOVER_S = 0.0002


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def network_threads(*, encoding: bool) -> int:
    """Threads for a network: half of the cores beside an encoder, else all of them.

    A runtime's threads wait for each other by spinning. Beside a decoder and an encoder, two of them on two cores cost
    more than they give (light tracker, 768 x 432, LiteRT: 107 frames a second with one thread, 100 to 113 with two, and
    a tenth more CPU time); without an encoder two are a quarter faster.

    Args:
        encoding: whether the run writes a video.
    """
    cores = available_cores()
    return max(1, cores // 2) if encoding else cores


class _Handover:
    """How many runs are inside `quick_handover`, and what the interval was before the first."""

    lock = threading.Lock()
    runs = 0
    before = 0.0


@contextlib.contextmanager
def quick_handover() -> Iterator[None]:
    """Within, a thread that waits for the interpreter gets it after 0.2 ms instead of Python's 5.

    The stage that a run waits for is in native code most of the time; each return from there may wait a whole interval
    behind a stage that has time. Measured on car-detection.mp4, two cores: 188 frames a second with 5 ms, 202 with 0.2.
    The interval is the process's; it is put back when the last run has left.
    """
    with _Handover.lock:
        if _Handover.runs == 0:
            _Handover.before = sys.getswitchinterval()
            sys.setswitchinterval(min(HANDOVER_S, _Handover.before))
        _Handover.runs += 1
    try:
        yield
    finally:
        with _Handover.lock:
            _Handover.runs -= 1
            if _Handover.runs == 0:
                sys.setswitchinterval(_Handover.before)
