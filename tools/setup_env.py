"""Make the project's own virtual environment, or find it up to date: standard library only, any Python 3.11 to 3.13.

    python3.11 tools/setup_env.py --venv .venv --extras test,openvino

What setup.cfg asks for is installed, and VisionKit itself as an editable install. The two wheels of OpenCV both own the
folder `cv2/`, so exactly one is installed: opencv-python, or opencv-python-headless where the system libraries that
the first needs are missing (a bare server has no libGL) or where the headless one is there already.
`VISIONKIT_HIDE_LIBGL=1` plays such a server.
"""

from __future__ import annotations

import argparse
import configparser
import ctypes
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAMP = ".visionkit-installed"
DESKTOP, HEADLESS = "opencv-python", "opencv-python-headless"
# What opencv-python loads from the system; visionkit/opencv_check.py knows the same names, and a test compares them.
DESKTOP_LIBRARIES = ("libGL.so.1", "libgthread-2.0.so.0", "libglib-2.0.so.0", "libxcb.so.1", "libX11.so.6")


def missing_libraries(load: Callable[[str], object] = ctypes.CDLL) -> list[str]:
    """The system libraries that opencv-python needs and this machine cannot load."""
    if os.environ.get("VISIONKIT_HIDE_LIBGL") == "1":
        return ["libGL.so.1"]
    if not sys.platform.startswith("linux"):
        return []
    missing = []
    for name in DESKTOP_LIBRARIES:
        try:
            load(name)
        except OSError:
            missing.append(name)
    return missing


def requirements(setup_cfg: str, extras: list[str], headless: bool) -> list[str]:
    """What to install: the base and the extras of setup.cfg's text, with the headless wheel of OpenCV if asked."""
    config = configparser.ConfigParser()
    config.read_string(setup_cfg)
    blocks = [config["options"]["install_requires"]]
    blocks += [config["options.extras_require"][extra] for extra in extras]
    lines = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    return [re.sub(rf"^{DESKTOP}(?![\w-])", HEADLESS, line) if headless else line for line in lines]


def repair(installed: dict[str, str], headless: bool) -> list[list[str]]:
    """The pip commands that leave one wheel of OpenCV, if `installed` (name: version) holds both; else none."""
    if DESKTOP not in installed or HEADLESS not in installed:
        return []
    keep = HEADLESS if headless else DESKTOP
    pinned = f"{keep}=={installed[keep]}"
    # Taking one away takes files of the other with it, so the one that stays is laid anew.
    return [["uninstall", "-y", DESKTOP, HEADLESS], ["install", "--no-deps", pinned]]


def stamp_text(python: str, extras: list[str], missing: list[str]) -> str:
    """What the environment was made from; another text means: make it again."""
    digest = hashlib.sha256()
    for name in ("setup.cfg", "pyproject.toml", "tools/setup_env.py"):
        digest.update((ROOT / name).read_bytes())
    return f"{digest.hexdigest()} {python} {','.join(extras)} {','.join(missing) or 'desktop'} {ROOT}\n"


def venv_python(venv: Path) -> Path:
    """The interpreter of a virtual environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def installed_opencv(venv: Path) -> dict[str, str]:
    """Versions of the OpenCV wheels in the environment, by name."""
    code = (
        "import importlib.metadata as m\n"
        "for d in m.distributions():\n"
        "    n = (d.metadata['Name'] or '').lower().replace('_', '-')\n"
        f"    if n in ({DESKTOP!r}, {HEADLESS!r}): print(n, d.version)"
    )
    lines = subprocess.run([venv_python(venv), "-c", code], check=True, capture_output=True, text=True).stdout
    return dict(line.split() for line in lines.splitlines())


def create(venv: Path) -> None:
    """A new virtual environment with pip in it."""
    done = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(
            f"setup: `{sys.executable} -m venv {venv}` failed: {done.stdout.strip()} {done.stderr.strip()}\n"
            "On Debian and Ubuntu the module is a package of its own: apt-get install python3-venv"
        )


def install(venv: Path, extras: list[str], missing: list[str]) -> None:
    """Install everything; pip tells what it does."""

    def pip(*args: str) -> None:
        subprocess.run([venv_python(venv), "-m", "pip", "--disable-pip-version-check", *args], check=True)

    before = installed_opencv(venv)
    headless = bool(missing) or (HEADLESS in before and DESKTOP not in before)
    if missing:
        print(f"setup: no {', '.join(missing)} here, so {HEADLESS} is installed instead of {DESKTOP}", flush=True)
    wanted = requirements((ROOT / "setup.cfg").read_text(encoding="utf-8"), extras, headless)
    if headless and DESKTOP in before:  # the libraries went away: its files must be gone before the other lays its own
        pip("uninstall", "-y", DESKTOP, HEADLESS)
    pip("install", "-q", "--no-compile", *wanted)  # what is used is compiled when it is first imported
    for command in repair(installed_opencv(venv), headless):
        pip(*command)
    pip("install", "-q", "--no-deps", "-e", str(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--extras", default="test,openvino", help="extras of setup.cfg, separated by commas")
    options = parser.parse_args()
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        sys.exit(f"setup: VisionKit needs Python 3.11, 3.12 or 3.13; this is {sys.version.split()[0]}")
    venv, extras = options.venv, [extra for extra in options.extras.split(",") if extra]
    missing, stamp = missing_libraries(), venv / STAMP
    text = stamp_text(".".join(map(str, sys.version_info[:2])), extras, missing)
    if stamp.is_file() and stamp.read_text() == text:
        return
    print(f"setup: installing into {venv} (the first time takes a few minutes and 3 GB)", flush=True)
    stamp.unlink(missing_ok=True)
    if not venv_python(venv).exists():
        create(venv)
    try:
        install(venv, extras, missing)
    except subprocess.CalledProcessError as error:
        sys.exit(f"setup: pip ended with code {error.returncode}; what it said stands above")
    stamp.write_text(text)


if __name__ == "__main__":
    main()
