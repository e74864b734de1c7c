"""Every example of a help page parses, and those that take seconds are run as a user pastes them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import cv2
import numpy as np
import pytest

from visionkit.cli import cli
from visionkit.cli.shell import run
from visionkit.resources import models_dir

ROOT = Path(__file__).resolve().parents[2]


def commands(command: click.Command, ctx: click.Context) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            found = command.get_command(ctx, name)
            if found is not None:
                yield from commands(found, click.Context(found, parent=ctx, info_name=name))


def examples() -> list[str]:
    pages = [command.epilog or "" for command in commands(cli, click.Context(cli, info_name="visionkit"))]
    return sorted({line for page in pages for line in re.findall(r"^  (visionkit .*)$", page, re.MULTILINE)})


# A download and what was downloaded are what no test may need; test_fetch.py and test_importing.py stand in.
FETCHED = ("visionkit models fetch", "visionkit models import")
QUICK = [
    line
    for line in examples()
    if line.split()[1] in ("models", "inspect", "doctor", "track") and not line.startswith(FETCHED)
]


@pytest.mark.parametrize("line", examples())
def test_example_parses(line, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(click.Command, "invoke", lambda self, ctx: 0)
    words = shlex.split(line.split("|")[0].split(">")[0])
    assert run(words[1:]) == 0, capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the sources that the examples name, and `visionkit` on its path."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "frames").mkdir()
    writer = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 2.0, (480, 320))
    scene = np.random.default_rng(3).integers(0, 255, (320, 480, 3), dtype=np.uint8)
    for index in range(12):
        image = cv2.GaussianBlur(scene, (0, 0), 5)
        cv2.rectangle(image, (300 + index, 120), (380 + index, 180), (20, 30, 220), -1)
        writer.write(image)
        cv2.imwrite(str(folder / "frames" / f"{index:03}.jpg"), image)
    writer.release()
    (folder / "clip.avi").rename(folder / "clip.mp4")  # what a file is, its content says
    if (models_dir() / "siambox_light").is_dir():  # what `visionkit train` leaves is a folder with a card
        shutil.copytree(models_dir() / "siambox_light", folder / "runs" / "my_tracker")
    script = folder / "bin" / "visionkit"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m visionkit "$@"\n')
    script.chmod(0o755)
    return folder


# VGG-16 is 134 million weights drawn at random; of the others a sibling is tried at each run
HEAVY = ("vgg", "inspect resnet50", "track frames/")


@pytest.mark.parametrize(
    "line", [pytest.param(line, marks=[pytest.mark.slow] * any(word in line for word in HEAVY)) for line in QUICK]
)
def test_example_works_when_pasted(line, folder):
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=folder,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    # 141: `head` had enough, and the run ended because of it.
    assert done.returncode in ((0, 141) if "| head" in line else (0,)), done.stderr
    assert done.stdout or done.stderr
