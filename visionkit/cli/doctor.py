"""`visionkit doctor`: what this machine has, found by trying and without loading TensorFlow."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from typing import Any

import click

from visionkit import __version__
from visionkit.cli.text import clean, emit, emit_json, examples

__all__ = ["command"]

PACKAGES = (
    "numpy",
    "tensorflow",
    "keras",
    "tf_keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "onnxruntime",
    "openvino",
    "av",
    "supervision",
    "scipy",
    "rich",
    "click",
)
OPENCV_WHEELS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


@click.command(epilog=examples("visionkit doctor", "visionkit doctor --json"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> int:
    """Tell what this machine has: versions, cores, the video codecs it really writes, models, cache.

    Exit code 1 means that something VisionKit needs is missing or broken; the lines marked `!` say what.
    """
    facts = examine()
    if as_json:
        emit_json(facts)
    else:
        for line in _lines(facts):
            emit(line)
    return 1 if facts["problems"] else 0


def examine() -> dict[str, Any]:
    """Everything `doctor` tells, as JSON can hold it."""
    problems: list[str] = []
    facts: dict[str, Any] = {
        "visionkit": __version__,
        "python": sys.version.split()[0],
        "system": platform.platform(),
        "cores": _cores(),
        "packages": {name: _version(name) for name in PACKAGES},
        "opencv": _opencv(problems),
        "libgl": _libgl(),
        "ffmpeg": _ffmpeg(),
        "encoders": _encoders(problems),
        "cache": _cache(),
        "models": _models(problems),
    }
    return facts | {"problems": problems}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cores() -> dict[str, Any]:
    from visionkit.runtime.machine import default_threads, processor

    return {"usable": default_threads(), "of": os.cpu_count(), "processor": processor()}


def _opencv(problems: list[str]) -> dict[str, Any]:
    """Version and wheel of OpenCV; two wheels in one environment overwrite each other's files."""
    from visionkit.opencv_check import explain

    wheels = {name: found for name in OPENCV_WHEELS if (found := _version(name)) is not None}
    if len(wheels) > 1:
        problems.append(
            f"{' and '.join(wheels)} are both installed and own the same files: uninstall both, then install one."
        )
    try:
        import cv2
    except ImportError as error:
        told = explain(error)
        problems.append(told.message if told else f"OpenCV cannot be loaded: {error}.")
        return {"version": None, "wheels": wheels}
    return {"version": cv2.__version__, "wheels": wheels}


def _libgl() -> bool:
    """Whether the system library is there that the desktop wheel of OpenCV needs."""
    import ctypes

    try:
        ctypes.CDLL("libGL.so.1")
    except OSError:
        return False
    return True


def _ffmpeg() -> dict[str, dict[str, str]]:
    """Versions of the FFmpeg libraries inside PyAV and OpenCV."""
    found: dict[str, dict[str, str]] = {}
    try:
        import av
    except ImportError:
        pass
    else:
        found["pyav"] = {name: ".".join(map(str, number)) for name, number in av.library_versions.items()}
    try:
        import cv2
    except ImportError:
        return found
    numbers = re.findall(r"^\s*(avcodec|avformat|avutil|swscale):\s+YES \(([\d.]+)\)", cv2.getBuildInformation(), re.M)
    found["opencv"] = {f"lib{name}": number for name, number in numbers}
    return found


def _encoders(problems: list[str]) -> list[dict[str, Any]]:
    """Every encoder and whether three frames could be written and read again."""
    try:
        from visionkit.io import available_encoders
    except ImportError as error:
        problems.append(f"Video encoders could not be tried: {error}.")
        return []
    try:
        found = available_encoders()
    except OSError as error:
        problems.append(f"Video encoders could not be tried, as no temporary folder can be written: {error.strerror}.")
        return []
    told = [
        {"codec": one.codec, "name": one.name, "backend": one.backend, "ok": one.ok, "reason": one.reason}
        for one in found
    ]
    if not any(one["ok"] for one in told):
        problems.append("No video encoder works: annotated videos cannot be written.")
    return told


def _cache() -> dict[str, Any]:
    from visionkit.resources import cache_dir

    place = cache_dir(create=False)
    return {"folder": None if place is None else str(place), "writable": cache_dir() is not None}


def _models(problems: list[str]) -> list[dict[str, str]]:
    """Every card with the state of its weights: ok, not fetched (from its address), missing, mismatch, none, broken."""
    from visionkit.errors import VisionkitError
    from visionkit.weights import card_names, load_card

    told = []
    for name in card_names():
        try:
            card = load_card(name)
            state = card.state()
            if state == "missing" and card.weights[0].url:
                state = "not fetched"
        except VisionkitError as error:
            state = "broken"
            problems.append(error.message)
        told.append({"name": name, "weights": state})
        if state in ("mismatch", "missing"):
            problems.append(f"The weights of {name} are not what its card says: install VisionKit again.")
    return told


def _lines(facts: dict[str, Any]) -> list[str]:
    cores, opencv, cache = facts["cores"], facts["opencv"], facts["cache"]
    wheels = ", ".join(f"{name} {version}" for name, version in opencv["wheels"].items()) or "no wheel"
    lines = [
        f"visionkit      {facts['visionkit']}",
        f"python         {facts['python']} on {facts['system']}",
        f"cores          {cores['usable']} usable of {cores['of']}: {cores['processor']}",
        f"opencv         {opencv['version'] or 'cannot be loaded'} ({wheels})",
        f"libGL          {'there' if facts['libgl'] else 'not there: opencv-python-headless is the wheel to have'}",
    ]
    for name, libraries in facts["ffmpeg"].items():
        numbers = ", ".join(f"{library} {version}" for library, version in libraries.items())
        lines.append(f"ffmpeg         in {name}: {numbers}")
    lines.append(
        f"cache          {cache['folder'] or 'none'}{'' if cache['writable'] else ' (not writable: not used)'}"
    )
    lines += ["", "packages"]
    lines += [f"  {name:<30} {version or '-'}" for name, version in facts["packages"].items()]
    lines += ["", "video encoders, tried by writing three frames"]
    for one in facts["encoders"]:
        name = f"{one['name']} ({one['backend']})"
        lines.append(f"  {one['codec']:<6} {name:<22} {'ok' if one['ok'] else '- ' + one['reason']}")
    lines += ["", "models"]
    here = [one for one in facts["models"] if one["weights"] != "not fetched"]
    absent = [one["name"] for one in facts["models"] if one["weights"] == "not fetched"]
    lines += [f"  {one['name']:<30} weights {one['weights']}" for one in here] or ["  none"]
    lines += [f"  {len(absent)} not fetched: `visionkit models list` names them"] if absent else []
    lines += [f"! {clean(problem)}" for problem in facts["problems"]]
    return lines
