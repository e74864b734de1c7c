"""Every command of the command line, one row each, in the order of the help page.

A module is imported when its command is used, and holds it under the name `command`. So the help page and every
mistake in typing cost no import of what the commands need.
"""

from __future__ import annotations

__all__ = ["COMMANDS"]

COMMANDS: dict[str, tuple[str, str]] = {
    # name: (module, one line for the help page)
    "classify": ("visionkit.cli.classify", "Say what is in images or in a video, with probabilities."),
    "segment": ("visionkit.cli.segment", "Say what every pixel of images or of a video belongs to."),
    "detect": ("visionkit.cli.detect", "Find objects in images or in a video, number and count them."),
    "track": ("visionkit.cli.track", "Follow one object through a video or a folder of images."),
    "rectify": ("visionkit.cli.rectify", "Straighten a slanted region of images or of a video."),
    "run": ("visionkit.cli.run", "Send images or videos through the stages of a recipe."),
    "count": ("visionkit.cli.count", "Count at lines and zones from stored results, without running the model."),
    "demo": ("visionkit.cli.demo", "Render a clip with known boxes and follow its object."),
    "train": ("visionkit.cli.train", "Train a model on your own material."),
    "eval": ("visionkit.cli.eval", "Measure a model on annotated data."),
    "export": ("visionkit.cli.export", "Write a model as a SavedModel, .tflite, .keras, .onnx or .xml, tried first."),
    "verify": ("visionkit.cli.verify", "Check an exported model again, or compare it with another."),
    "quantize": ("visionkit.cli.quantize", "Make a model smaller and faster, and judge it on your own data."),
    "models": ("visionkit.cli.models", "List the model cards, show one, fetch or import its weights."),
    "inspect": ("visionkit.cli.inspect", "Tell what a model is made of, or what a video or a folder holds."),
    "doctor": ("visionkit.cli.doctor", "Tell what this machine has: versions, cores, codecs, models."),
}
