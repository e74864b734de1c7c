"""The command line with a tracker that needs no model: `python -m tests.cli.still track clip.mp4 --box …`.

VISIONKIT_TEST_SLOW_MS makes every frame take that long; VISIONKIT_TEST_FAIL_AT makes one frame's model fail;
VISIONKIT_TEST_WITHOUT names encoders that this machine is to lack. On exit it reports on stderr when TensorFlow or
Keras was imported.
"""

from __future__ import annotations

import os
import sys
import time

import visionkit.cli.track as track_command
from visionkit.cli import main
from visionkit.errors import ModelError
from visionkit.io import encoders
from visionkit.structures import Track


class Still:
    """Says that the box has not moved."""

    def __init__(self, options):
        self.calls = 0
        self.slow_s = float(os.environ.get("VISIONKIT_TEST_SLOW_MS", "0")) / 1000
        self.fail_at = int(os.environ.get("VISIONKIT_TEST_FAIL_AT", "-1"))

    def init(self, image, xyxy):
        self.box = xyxy

    def update(self, image):
        self.calls += 1
        time.sleep(self.slow_s)
        if self.calls == self.fail_at:
            raise ModelError("model-failed", "made to fail")
        return Track(self.box, 0.75, "tracking")

    def describe(self):
        return {"name": "still", "sha256": None, "runtime": "none", "precision": "float32"}


def lack(names):
    """Let the named encoders be unknown to the library that should have them."""
    for encoder in encoders.ENCODERS:
        if encoder.name in names:
            object.__setattr__(encoder, "name", f"no_{encoder.name}"[:4] if encoder.backend == "opencv" else "nonsense")


if __name__ == "__main__":
    lack(os.environ.get("VISIONKIT_TEST_WITHOUT", "").split())
    track_command.load_model = Still
    try:
        main()
    finally:
        if {"tensorflow", "keras"} & set(sys.modules):
            print("TENSORFLOW WAS IMPORTED", file=sys.stderr)
