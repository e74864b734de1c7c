"""Keeps what native libraries print off the user's terminal while we import, convert and open."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import IO, Any

from visionkit.errors import UsageError
from visionkit.missing import need

__all__ = ["import_keras", "import_tensorflow", "quiet"]

LOG = logging.getLogger(__name__)
NOISY_LOGGERS = ("absl", "tensorflow", "tf2onnx", "onnx", "openvino")
BACKENDS = ("tensorflow", "jax", "torch", "openvino")  # of Keras
STDERR = 2
_lock = threading.RLock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within, standard error of native code, Python warnings and chatty loggers are silent; then all is as before.

    What was caught goes to our own log at level DEBUG. Standard output is left alone: results may be flowing there.
    """
    with _lock, warnings.catch_warnings(), silent_loggers(), caught_stderr():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def silent_loggers() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def caught_stderr() -> Iterator[None]:
    """Native code writes to the descriptor, so it is the descriptor that has to be turned away."""
    try:
        saved = os.dup(STDERR)
    except OSError:  # closed: there is no terminal to keep clean
        yield
        return
    try:
        with open_catcher() as catcher:
            flush_stderr()
            os.dup2(catcher.fileno(), STDERR)
            try:
                yield
            finally:
                flush_stderr()
                os.dup2(saved, STDERR)
                tell(catcher)
    finally:
        os.close(saved)


def open_catcher() -> IO[Any]:
    try:
        return tempfile.TemporaryFile()
    except OSError:  # no temporary folder
        return open(os.devnull, "w+b")  # noqa: PTH123


def flush_stderr() -> None:
    with contextlib.suppress(Exception):  # sys.stderr may be anything, or None
        sys.stderr.flush()


def tell(catcher: IO[Any]) -> None:
    if LOG.isEnabledFor(logging.DEBUG):
        catcher.seek(0)
        text = catcher.read().decode(errors="replace").strip()
        if text:
            LOG.debug("caught: %s", text)


@contextlib.contextmanager
def default_environment(**values: str) -> Iterator[None]:
    """Within, the variables that were not set have these values; TensorFlow reads them once, while it is imported."""
    added = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def import_tensorflow() -> ModuleType:
    """TensorFlow, imported and its devices found without a word. Raises UsageError `package-missing`."""
    if "tensorflow" in sys.modules:
        import tensorflow as tf

        return tf
    need("A model that is not exported to .tflite", "tensorflow")
    with quiet(), default_environment(TF_CPP_MIN_LOG_LEVEL="2"):
        import tensorflow as tf

        wake_devices(tf)
    return tf


def wake_devices(tf: ModuleType) -> None:
    """Has TensorFlow look for devices now, while nobody hears what it says about those that are not there."""
    tf.config.list_physical_devices()
    tf.constant(0.0)


def import_keras() -> ModuleType:
    """Keras on the backend that the user chose, imported without a word. Raises UsageError `package-missing`."""
    if "keras" in sys.modules:
        import keras

        return keras
    need("A model that is not exported to .tflite", "keras")
    with quiet(), default_environment(TF_CPP_MIN_LOG_LEVEL="2"):
        try:
            import keras
        except ModuleNotFoundError as error:
            if error.name not in BACKENDS:
                raise
            raise UsageError(
                "package-missing",
                f"Keras is told to run on {error.name} (by KERAS_BACKEND or its keras.json), which is not installed "
                f"here: pip install {error.name}, or set KERAS_BACKEND=tensorflow.",
            ) from error

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            wake_devices(tf)
    return keras
