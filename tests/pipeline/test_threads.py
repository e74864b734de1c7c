"""Sharing the machine: the interpreter's switch interval is short during runs and as it was after the last."""

from __future__ import annotations

import sys

from visionkit.pipeline.threads import quick_handover


def test_the_switch_interval_is_put_back_after_the_last_run() -> None:
    before = sys.getswitchinterval()
    first, second = quick_handover(), quick_handover()
    first.__enter__()
    assert sys.getswitchinterval() < before
    second.__enter__()
    first.__exit__(None, None, None)
    assert sys.getswitchinterval() < before  # one run is still on
    second.__exit__(None, None, None)
    assert sys.getswitchinterval() == before
