"""A call in a process of its own, with its time and its peak memory: hostile files are refused within bounds."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import json, sys, time
{setup}
begin = time.perf_counter()
slug = message = ""
try:
    {call}
except Exception as error:
    slug, message = getattr(error, "slug", type(error).__name__), str(error)
seconds = time.perf_counter() - begin
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
loaded = [name for name in ("tensorflow", "keras", "torch") if name in sys.modules]
print(json.dumps([slug, message, seconds, peak / 1024, loaded]))
"""
MAX_SECONDS, MAX_MIB = 2.0, 300.0


@dataclass
class Outcome:
    """How a call ended: slug and message of its error (empty without one), seconds, peak MiB of the whole process."""

    slug: str
    message: str
    seconds: float
    peak_mib: float

    def check(self, slug: str, *words: str) -> None:
        assert (self.slug, all(word in self.message for word in words)) == (slug, True), self
        assert self.seconds < MAX_SECONDS, self
        assert self.peak_mib < MAX_MIB, self


def measure(setup: str, call: str, *arguments: str | Path, cwd: Path) -> Outcome:
    """Run `call` after `setup` in a fresh interpreter, with `arguments` in `sys.argv[1:]`."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(setup=setup, call=call), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(cwd)},
    )
    assert done.returncode == 0, done.stderr
    slug, message, seconds, peak, loaded = json.loads(done.stdout.splitlines()[-1])
    assert loaded == []
    return Outcome(slug, message, seconds, peak)
