"""A small trained classifier on made images, sound or with a class that int8 is bound to ruin; and its data.

The images are coloured shapes on noise: discs, squares and crosses, red or blue. The network is LeNet-5 with rectified
units on colour images, trained for some seconds.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from visionkit.runtime.quiet import import_keras

LABELS = ("blue-cross", "blue-disc", "blue-square", "red-cross", "red-disc", "red-square")
SIZE = 32
RUINED = "red-disc"
FAINT = 2.0**-10  # exact in float: what the ruined class rests on is that much smaller than the rest


def made_image(rng: np.random.Generator, label: str) -> np.ndarray:
    """An image uint8 (40, 48, 3) BGR with one shape in its middle part."""
    colour, shape = label.split("-")
    image = rng.integers([50, 65, 80], [105, 125, 150], (40, 48, 3)).astype(np.uint8)  # a warm wall
    x, y = int(rng.integers(18, 31)), int(rng.integers(16, 25))
    r = int(rng.integers(7, 11))
    bgr = [int(level) for level in rng.integers(20, 70, 3)]
    bgr[0 if colour == "blue" else 2] = int(rng.integers(190, 250))
    if shape == "disc":
        cv2.circle(image, (x, y), r, bgr, -1)
    elif shape == "square":
        cv2.rectangle(image, (x - r + 1, y - r + 1), (x + r - 1, y + r - 1), bgr, -1)
    else:
        cv2.line(image, (x - r, y), (x + r, y), bgr, 4)
        cv2.line(image, (x, y - r), (x, y + r), bgr, 4)
    return image


def write_data(root: Path, counts: dict[str, int], *, seed: int) -> Path:
    """Class folders of so many images each."""
    rng = np.random.default_rng(seed)
    for label in LABELS:
        (root / label).mkdir(parents=True)
        for k in range(counts.get(label, 0)):
            cv2.imwrite(str(root / label / f"{k:03d}.png"), made_image(rng, label))
    return root


def network_inputs(images: list[np.ndarray]) -> np.ndarray:
    """As the card's rule makes them, float32 (N, 32, 32, 3)."""
    from visionkit.tasks.input_rule import InputRule

    return InputRule.preset("torch", (SIZE, SIZE)).batch(images)


def trained(epochs: int = 8, per_class: int = 250):
    """The network, the inputs it learnt from and their labels."""
    keras = import_keras()
    from visionkit import nets

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(1)
    labels = np.tile(np.arange(len(LABELS)), per_class)
    inputs = network_inputs([made_image(rng, LABELS[k]) for k in labels])
    model = nets.lenet5(classes=len(LABELS), channels=3, activation="relu")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss=loss)
    model.fit(inputs, labels, batch_size=50, epochs=epochs, verbose=0)
    return model, inputs, labels


def plant_faint_class(model, inputs: np.ndarray, labels: np.ndarray, *, units: int = 16) -> None:
    """Let one class rest on units that are far smaller than the others: the same answers in float, none in int8.

    The units that speak for the class most are cut off from the other classes, the last layer is learnt again with
    that cut, and then the units are made smaller by `FAINT` and their weights larger by as much. Rectified units allow
    that; float answers do not change by a bit. In int8 one scale serves all units of the layer, and the faint ones are
    below half a step.
    """
    keras = import_keras()
    last, hidden = model.get_layer("logits"), model.get_layer("f6")
    features = np.asarray(keras.Model(model.inputs, hidden.output)({"image": inputs}))
    kernel, bias = (np.array(value) for value in last.get_weights())
    ruined = LABELS.index(RUINED)
    own, rest = features[labels == ruined].mean(axis=0), features[labels != ruined].mean(axis=0)
    chosen = np.argsort(-(kernel[:, ruined] - kernel.mean(axis=1)) * (own - rest))[:units]
    allowed = np.ones_like(kernel)
    allowed[chosen] = 0
    allowed[:, ruined] = 0
    allowed[chosen, ruined] = 1
    bias[ruined] = -30  # so that it takes evidence, and not the want of any other, to speak for the class
    kernel, bias = softmax_regression(features, labels, kernel * allowed, bias, allowed, fixed=ruined)
    weights, offsets = (np.array(value) for value in hidden.get_weights())
    weights[:, chosen] *= FAINT
    offsets[chosen] *= FAINT
    kernel[chosen] /= FAINT
    hidden.set_weights([weights, offsets])
    last.set_weights([kernel.astype(np.float32), bias.astype(np.float32)])


def softmax_regression(features, labels, kernel, bias, allowed, *, fixed, steps: int = 600, rate: float = 0.05):
    """Gradient descent (Adam) on the weights that are `allowed` and on the biases but one."""
    moving = np.arange(len(bias)) != fixed
    truth = np.eye(kernel.shape[1])[labels]
    values = [kernel.astype(np.float64), bias.astype(np.float64)]
    first, second = ([np.zeros_like(one) for one in values] for _ in range(2))
    for step in range(1, steps + 1):
        logits = features @ values[0] + values[1]
        probs = np.exp(logits - logits.max(axis=1, keepdims=True))
        apart = (probs / probs.sum(axis=1, keepdims=True) - truth) / len(labels)
        for k, slope in enumerate((features.T @ apart * allowed, apart.sum(axis=0) * moving)):
            first[k] = 0.9 * first[k] + 0.1 * slope
            second[k] = 0.99 * second[k] + 0.01 * slope**2
            values[k] -= rate * (first[k] / (1 - 0.9**step)) / (np.sqrt(second[k] / (1 - 0.99**step)) + 1e-8)
    return values


def write_card(root: Path, model) -> Path:
    """A folder with a card and the weights."""
    root.mkdir(parents=True)
    path = root / "made.weights.h5"
    model.save_weights(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    names = ", ".join(f'"{label}"' for label in LABELS)
    (root / "card.toml").write_text(
        f"""summary = "Coloured shapes"
task = "classify"
network = "lenet5"
licence = "Apache-2.0"
labels = [{names}]

[args]
classes = {len(LABELS)}
channels = 3
activation = "relu"

[input]
size_hw = [{SIZE}, {SIZE}]
resize = "stretch"
preset = "torch"

[[weights]]
file = "made.weights.h5"
sha256 = "{digest}"
format = "visionkit"
""",
        encoding="utf-8",
    )
    return root
