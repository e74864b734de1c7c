"""Helpers that build the wheel and install it into environments of their own, once a test run."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def workplace() -> Path:
    """A temporary folder that lives as long as the test run."""
    folder = Path(tempfile.mkdtemp(prefix="visionkit-installs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def call(*command: str | Path, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)


@functools.cache
def index_answers() -> bool:
    """Whether pip can fetch anything at all."""
    target = workplace() / "probe"
    done = call(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries", "0", "-d", target, "click")
    return done.returncode == 0


def need_index() -> None:
    if not index_answers():
        pytest.skip("needs a package index: pip could not download click")


@functools.cache
def source_copy() -> Path:
    """The project's files as a fresh clone has them (and those not yet committed), without anything built."""
    copy = workplace() / "source"
    listed = call("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    if listed.returncode:
        skipped = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info", "__pycache__")
        shutil.copytree(ROOT, copy, ignore=skipped)
        return copy
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    return copy


@functools.cache
def built_wheel() -> Path:
    """The project's wheel, built in isolation from a copy of its files."""
    target = workplace() / "wheel"
    done = call(sys.executable, "-m", "build", "--wheel", "--outdir", target, source_copy())
    if done.returncode:
        raise RuntimeError(f"the wheel could not be built:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    (wheel,) = target.glob("*.whl")
    return wheel


class Environment:
    """A virtual environment of its own; commands run in it, away from the checkout and from the caller's settings."""

    def __init__(self, name: str) -> None:
        self.folder = workplace() / name
        done = call(sys.executable, "-m", "venv", self.folder)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)

    def pip(self, *words: str | Path) -> None:
        done = call(self.folder / "bin" / "python", "-m", "pip", "--disable-pip-version-check", *words)
        if done.returncode:
            raise RuntimeError(f"pip {' '.join(map(str, words))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")

    def run(self, program: str, *words: str | Path, cwd: Path, timeout: float = 200, **env: str):
        """Run a program of the environment; nothing of the caller's Python reaches it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VISIONKIT"))}
        return call(self.folder / "bin" / program, *words, cwd=cwd, timeout=timeout, env=kept | env)


@functools.cache
def full_environment() -> Environment:
    """The wheel with all it depends on, as `pip install` gives it; on a server without libGL with the swap it needs."""
    from tests.test_setup_env import setup_env

    env = Environment("full")
    env.pip("install", "-q", "--no-compile", built_wheel())  # what is used is compiled when it is imported
    if setup_env.missing_libraries():
        env.pip("uninstall", "-q", "-y", "opencv-python")
        env.pip("install", "-q", "--no-deps", "opencv-python-headless>=5.0,<5.1")
    return env


@functools.cache
def edge_environment() -> Environment:
    """`requirements-edge.txt`, and the wheel without its dependencies."""
    env = Environment("edge")
    env.pip("install", "-q", "--no-compile", "-r", ROOT / "requirements-edge.txt")
    env.pip("install", "-q", "--no-deps", built_wheel())
    return env
