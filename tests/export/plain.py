"""Exported models run by the plain runtimes, each in a process that has neither VisionKit nor Keras of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

SAVED_MODEL = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.modules["keras"] = None  # as if it were not installed
import numpy as np, tensorflow as tf
function = tf.saved_model.load(sys.argv[1]).signatures[sys.argv[2]]
call = lambda feed: {k: v.numpy() for k, v in function(**{k: tf.constant(v) for k, v in feed.items()}).items()}
"""
LITERT = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
call = lambda feed: Interpreter(sys.argv[1]).get_signature_runner(sys.argv[2])(**feed)
"""
REST = """
answers, feeds = {}, dict(np.load(sys.argv[3]))
for place in sorted({int(key.split("/")[0]) for key in feeds}):
    feed = {key.split("/", 1)[1]: feeds[key] for key in feeds if int(key.split("/")[0]) == place}
    answers.update({f"{place}/{name}": value for name, value in call(feed).items()})
np.savez(sys.argv[4], **answers)
print("IMPORTED", sorted({name.split(".")[0] for name in sys.modules} & {"visionkit", "numba", "tensorflow"}))
"""


def alone(model: Path, feeds: list[dict[str, np.ndarray]], tmp_path: Path, signature: str = "serving_default"):
    """What TensorFlow alone says of a SavedModel, or ai-edge-litert alone of a `.tflite`, to each feed."""
    lite = model.suffix == ".tflite"
    np.savez(tmp_path / "in.npz", **{f"{i}/{k}": v for i, feed in enumerate(feeds) for k, v in feed.items()})
    script = (LITERT if lite else SAVED_MODEL) + REST
    places = [str(tmp_path / name) for name in ("in.npz", "out.npz")]
    command = [sys.executable, "-I", "-c", script, str(model), signature, *places]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert f"IMPORTED {[] if lite else ['tensorflow']}" in run.stdout
    answers: list[dict[str, np.ndarray]] = [{} for _ in feeds]
    with np.load(tmp_path / "out.npz") as found:
        for key in found.files:
            place, name = key.split("/", 1)
            answers[int(place)][name] = found[key]
    return answers


def served(model: Path, images: list[np.ndarray], tmp_path: Path):
    """What `serving_default` says of images uint8 (H, W, 3) BGR, without the batch's axis."""
    feeds = [{"image": np.ascontiguousarray(image[None, ..., ::-1])} for image in images]
    return [{name: value[0] for name, value in answer.items()} for answer in alone(model, feeds, tmp_path)]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 (H, W, 3) BGR: regions of colours, a disc, waves and noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    labels = (x > width * 0.55 + 5 * np.sin(y / 9)).astype(int)
    labels[(x - width * 0.3) ** 2 + (y - height * 0.5) ** 2 < (height * 0.25) ** 2] = 2
    colours = np.array([[60, 80, 200], [70, 190, 60], [200, 60, 70]])[labels] + 40 * np.sin(x / 5 + y / 7)[..., None]
    return np.clip(colours + random.normal(0, 8, colours.shape), 0, 255).astype(np.uint8)
