"""One run of the command line in a process of its own, and the checks that every fault row shares."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import av

from visionkit.io import read_results

ROOT = Path(__file__).resolve().parents[2]
BOX = "2,2,20,16"
DEADLINE_S = 30.0
COMPLETE = {0, 4}


@dataclass
class Outcome:
    """What a process left behind."""

    code: int
    stdout: bytes
    stderr: str
    seconds: float
    out: Path
    group: int
    before: dict[str, str]
    after: dict[str, str]
    rows: list[dict] = field(default_factory=list)
    manifest: dict = field(default_factory=dict)

    @property
    def slugs(self) -> list[str]:
        return re.findall(r"^visionkit: error\[([a-z0-9-]+)\]: ", self.stderr, re.MULTILINE)


def snapshot(folder: Path) -> dict[str, str]:
    """Every path below a folder with the digest of what it holds (a link: where it leads)."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            content = "-> " + os.fsdecode(path.readlink())
        elif path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            content = "folder" if path.is_dir() else "special"
        found[os.fsdecode(os.fsencode(path.relative_to(folder)))] = content
    return found


def command(*args: object) -> list[object]:
    return [sys.executable, "-m", "tests.cli.still", *args]


def surroundings(**extra: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **extra}


def track(
    source: object,
    *args: object,
    folder: Path,
    out: str = "out",
    box: str = BOX,
    timeout_s: float = DEADLINE_S,
    preexec=None,
    **env: str,
) -> Outcome:
    """Run `visionkit track SOURCE --box … --out OUT` inside `folder`."""
    before = snapshot(folder)
    begin = time.monotonic()
    process = subprocess.Popen(
        command("track", "--box", box, "--out", out, *args, "--", source),
        cwd=folder,
        env=surroundings(**env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=preexec,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        raise AssertionError(f"still running after {timeout_s} s: {stderr.decode(errors='replace')}") from None
    seconds = time.monotonic() - begin
    text = stderr.decode("utf-8", "backslashreplace")
    target = folder / out
    return Outcome(process.returncode, stdout, text, seconds, target, process.pid, before, snapshot(folder))


def check(outcome: Outcome, code: int, slug: str | None = None, *, video: bool = True) -> Outcome:
    """The common oracle (a) to (f); (g) is the timeout of `track`. Fills `rows` and `manifest` of a finished run."""
    assert outcome.code == code, outcome.stderr  # (a)
    assert "Traceback" not in outcome.stderr  # (b)
    assert outcome.slugs == ([] if slug is None else [slug]), outcome.stderr
    assert "TENSORFLOW WAS IMPORTED" not in outcome.stderr
    assert not alive(outcome.group), "a child process outlived the run"  # (e)
    assert not list(outcome.out.parent.glob("*.part")), "a staging folder or its lock was left"
    inside = f"{outcome.out.name}/"
    others = {name: d for name, d in outcome.after.items() if not (name + "/").startswith(inside)}
    unchanged = {name: d for name, d in outcome.before.items() if not (name + "/").startswith(inside)}
    assert others == unchanged, "something outside of the output folder changed"  # (d)
    if code not in COMPLETE:
        assert outcome.after == outcome.before, "a failed run left something under a final name"  # (c)
        return outcome
    outcome.rows = list(read_results(outcome.out / "results.jsonl"))
    outcome.manifest = json.loads((outcome.out / "run.json").read_text("utf-8"))  # (f)
    counts = outcome.manifest["counts"]
    assert counts["decoded"] + counts["damaged"] + counts["skipped"] + counts["dropped"] == counts["seen"]
    assert counts["rows"] == len(outcome.rows) == counts["decoded"] + counts["damaged"]
    assert outcome.manifest["status"] == ("complete" if code == 0 else "damaged")
    if code == 4:
        assert outcome.stderr.count("visionkit: warning: ") >= 1
    if video:
        assert len(frame_times_ms(outcome.out / "annotated.mp4")) == len(outcome.rows)
    return outcome


def alive(group: int) -> bool:
    """Whether a process of the group still runs."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def frame_times_ms(path: Path) -> list[float]:
    """Presentation times of every frame that really decodes."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [float(frame.pts * stream.time_base * 1000) for frame in container.decode(stream)]
