"""Small networks as float `.tflite` files with one signature, and inputs for them."""

from __future__ import annotations

import numpy as np

from visionkit.runtime.quiet import import_keras

SIZE_HW = (24, 32)
CLASSES = 5
INPUT = "input_0"


def residual_net(seed: int = 0):
    """Convolution, hard swish, a residual depthwise block, nearest upsampling, a dense layer: 7 thousand weights."""
    keras = import_keras()
    layers = keras.layers
    keras.utils.set_random_seed(seed)
    image = keras.Input((*SIZE_HW, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(name="stem.bn")(x)
    x = layers.Activation("hard_silu", name="stem.act")(x)
    y = layers.DepthwiseConv2D(3, padding="same", name="block.depth")(x)
    y = layers.ReLU(max_value=6.0, name="block.act")(y)
    y = layers.Conv2D(16, 1, name="block.point")(y)
    x = layers.Add(name="block.add")([x, y])
    x = layers.UpSampling2D(2, name="up")(x)
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="last")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(CLASSES, name="logits")(x))


def as_tflite(model, precision: str = "float32") -> bytes:
    """The model at batch 1, its inputs `input_0` …, its outputs `output_0` …, the signature `serving_default`."""
    from visionkit.runtime.programs import KerasProgram

    return KerasProgram(model, 1).artifact(".tflite", precision)


def inputs_for(count: int, size_hw: tuple[int, int] = SIZE_HW, seed: int = 0) -> list[np.ndarray]:
    """Smooth random inputs float32 (1, h, w, 3) in -1 to 1, no two of the same brightness."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        coarse = random.uniform(-1, 1, (4, 4, 3)) * random.uniform(0.3, 1) + random.uniform(-0.3, 0.3)
        fine = np.kron(coarse, np.ones((size_hw[0] // 4, size_hw[1] // 4, 1)))
        noisy = fine + random.normal(0, 0.05, fine.shape)
        found.append(np.clip(noisy, -1, 1)[None].astype(np.float32))
    return found


def fed(inputs: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    return [{INPUT: array} for array in inputs]


def answers(content: bytes, inputs: list[np.ndarray], output: str = "output_0") -> np.ndarray:
    """The output (N, …) of a file with one signature."""
    from visionkit.runtime.litert import open_litert
    from visionkit.runtime.steps import float_face

    with float_face(open_litert(content, threads=1)) as runner:
        (name,) = runner.inputs
        return np.concatenate([runner(**{name: array})[output] for array in inputs])


def decibels(expected: np.ndarray, found: np.ndarray) -> float:
    """Signal to noise."""
    noise = np.square(expected.astype(np.float64) - found).mean()
    return float(10 * np.log10(np.square(expected, dtype=np.float64).mean() / max(noise, 1e-30)))
