"""Cards of small classifiers with a spatial transformer, whose theta is set by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

SIZE_HW, VIEW_HW = (40, 56), (24, 30)
LABELS = ("blue", "green", "red")


def write_transformer_card(
    folder: Path, theta: Sequence[float], *, transform: str = "affine", resize: str = "stretch", sway: float = 0.0
) -> Path:
    """Write `folder/card.toml` and its weights; the transformer's theta is `theta`, whatever it sees.

    Args:
        folder: is made.
        theta: of `transform`.
        resize: of the card's input rule.
        sway: spread of the last layer's kernel, so that theta depends on the image.
    """
    from visionkit.runtime.quiet import import_keras

    keras = import_keras()
    from visionkit import nets

    keras.utils.set_random_seed(5)
    args = {
        "classifier": "resnet",
        "depths": [1],
        "width": 8,
        "stem": "small",
        "transform": transform,
        "view_hw": list(VIEW_HW),
        "localisation": "dense",
    }
    model = nets.stn_classifier(**args, classes=len(LABELS), size_hw=SIZE_HW)
    kernel, bias = model.get_layer("theta").get_weights()
    generator = keras.random.SeedGenerator(0)
    noise = keras.ops.convert_to_numpy(keras.random.normal(kernel.shape, seed=generator))
    model.get_layer("theta").set_weights([sway * noise, bias * 0 + list(theta)])
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "tiny.weights.h5"
    model.save_weights(weights)
    lines = ['task = "classify"', 'network = "stn_classifier"', 'licence = "Apache-2.0"']
    lines += [f"labels = {json.dumps(LABELS)}", "[args]", 'classifier = "resnet"', f'transform = "{transform}"']
    lines += [f"view_hw = {list(VIEW_HW)}", 'localisation = "dense"']
    lines += ["depths = [1]", "width = 8", 'stem = "small"']
    lines += ["[input]", f"size_hw = {list(SIZE_HW)}", f'resize = "{resize}"', 'preset = "torch"']
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    lines += ["[[weights]]", 'file = "tiny.weights.h5"', f'sha256 = "{sha256}"', 'format = "visionkit"']
    (folder / "card.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
