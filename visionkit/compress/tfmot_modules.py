"""The only place where tensorflow-model-optimization and tf_keras are imported.

Importing tensorflow-model-optimization would turn `tf.keras` into tf_keras for the whole process, and every child of
it: `load_tfmot` pins the name first and takes the environment variable back.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from visionkit.errors import ModelError
from visionkit.runtime.quiet import import_keras, import_tensorflow, quiet

__all__ = ["load_tfmot"]

LEGACY = "TF_USE_LEGACY_KERAS"


@functools.cache
def load_tfmot() -> tuple[Any, Any]:
    """tensorflow-model-optimization and tf_keras, with `tf.keras` and the environment as they were.

    Raises:
        ModelError: `tfmot-missing`.
    """
    import_keras()
    tf = import_tensorflow()
    getattr(tf, "keras").layers  # noqa: B009, B018 - the name is pinned to Keras 3 by being looked at
    before = os.environ.get(LEGACY)
    try:
        with quiet():
            import tensorflow_model_optimization as tfmot
            import tf_keras
    except ImportError as error:
        raise ModelError(
            "tfmot-missing", f"this needs tensorflow-model-optimization and tf_keras: pip install visionkit ({error})"
        ) from error
    finally:
        if before is None:
            os.environ.pop(LEGACY, None)
        else:
            os.environ[LEGACY] = before
    return tfmot, tf_keras
