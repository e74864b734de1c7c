"""Small networks with one of everything, their normalisations trained, for the tests of rounding."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

SIZE = (16, 24)


def images(count: int = 8, size_hw: tuple[int, int] = SIZE, channels: int = 3) -> np.ndarray:
    """float32 (count, H, W, channels)."""
    return np.random.default_rng(0).normal(size=(count, *size_hw, channels)).astype(np.float32)


def settled(model: keras.Model, inputs: np.ndarray) -> keras.Model:
    """The model, its normalisations with factors and addends of their own and the statistics of the inputs."""
    random = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.gamma.assign(random.uniform(0.5, 1.5, layer.gamma.shape) * random.choice([-1, 1], layer.gamma.shape))
            layer.beta.assign(random.normal(size=layer.beta.shape) * 0.3)
            layer.momentum = 0.5
    for _ in range(8):
        model(inputs, training=True)
    return model


def everything() -> keras.Model:
    """Every kind of layer that has an eight-bit form, (B, 16, 24, 3) -> (B, 5)."""
    keras.utils.set_random_seed(2)
    image = keras.Input((*SIZE, 3), name="image")
    x = layers.ZeroPadding2D(1, name="pad")(image)
    x = layers.Conv2D(8, 3, use_bias=False, name="stem")(x)
    x = layers.ReLU(name="stem.relu")(layers.BatchNormalization(name="stem.norm")(x))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="deep")(x)
    y = layers.BatchNormalization(name="deep.norm")(y)
    y = layers.Activation("hard_swish", name="deep.swish")(y)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="gate.pool")(y)
    gate = layers.Conv2D(8, 1, name="gate.fc")(gate)
    gate = layers.Activation("hard_sigmoid", name="gate.sigmoid")(gate)
    y = layers.Multiply(name="gate")([y, gate])
    x = layers.ReLU(name="sum.relu")(layers.Add(name="sum")([x, y]))
    down = layers.MaxPooling2D(2, name="down")(x)
    down = layers.Conv2D(8, 3, padding="same", dilation_rate=2, activation="relu", name="dilated")(down)
    up = layers.Conv2DTranspose(8, 2, strides=2, use_bias=False, name="up")(down)
    up = layers.ReLU(6.0, name="up.relu6")(layers.BatchNormalization(name="up.norm")(up))
    wide = layers.UpSampling2D(2, interpolation="bilinear", name="wide")(down)
    x = layers.Concatenate(name="join")([x, up, wide])
    x = layers.AveragePooling2D(2, name="mean")(x)
    x = layers.Conv2D(6, 1, name="last")(layers.BatchNormalization(name="lone")(x))
    x = layers.Multiply(name="swish")([x, layers.Activation("sigmoid", name="swish.sigmoid")(x)])
    x = layers.Dropout(0.2, name="drop")(layers.GlobalAveragePooling2D(name="pool")(x))
    x = layers.Dense(12, use_bias=False, name="fc")(x)
    x = layers.LeakyReLU(name="leaky")(layers.BatchNormalization(name="fc.norm")(x))
    x = layers.Dense(10, activation="silu", name="fc1")(x)
    x = layers.Dense(9, activation="tanh", name="fc2")(x)
    return settled(keras.Model(image, layers.Dense(5, name="logits")(x), name="everything"), images())
