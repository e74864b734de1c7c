"""The small network that the tests of the runtimes share."""

from __future__ import annotations

from typing import Any

BATCH = 2


def make_net(seed: int = 3) -> Any:
    """Two inputs and three outputs whose alphabetical order is neither their declared order nor that of their sizes."""
    from visionkit.runtime.quiet import import_keras

    keras = import_keras()
    keras.utils.set_random_seed(seed)
    image = keras.Input((5, 7, 3), name="zebra")
    extra = keras.Input((4,), name="apple")
    features = keras.layers.Conv2D(4, 3, activation="relu", bias_initializer="random_normal", name="trunk")(image)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    joined = keras.layers.Concatenate(name="join")([pooled, extra])
    scores = keras.layers.Dense(3, name="dense")(joined)
    flags = keras.layers.Dense(2, activation="sigmoid", name="flagger")(joined)
    return keras.Model([image, extra], {"scores": scores, "map": features, "flags": flags})
