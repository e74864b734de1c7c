"""How many of the cores a network gets when other stages work beside it."""

from __future__ import annotations

import os

__all__ = ["available_cores", "network_threads"]


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
