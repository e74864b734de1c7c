"""The proof of tests/nets/test_parity.py on references that lie in the repository, so that it runs everywhere.

`references/make.py` made them with torchvision: ten classes, two odd sizes, weights that follow from their names.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.nets.synthetic import Reference, normalized
from tests.weights.torch_files import write_checkpoint
from visionkit import nets
from visionkit.runtime import compile_model
from visionkit.weights.torch_zip import read_checkpoint
from visionkit.weights.torchvision import load_torchvision

FOLDER = Path(__file__).parent / "references"
NETWORKS = sorted(path.stem for path in FOLDER.glob("*.json"))
TOLERANCE = 1e-4  # of the logits' standard deviation
HEAVY = {"alexnet"}  # 228 MB take long to convert; test_parity.py does it


def test_there_are_references() -> None:
    assert len(NETWORKS) >= 3


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_torchvisions(name: str, tmp_path: Path) -> None:
    reference = Reference.read(FOLDER, name)
    write_checkpoint(tmp_path / "checkpoint.pth", reference.state())
    state = read_checkpoint(tmp_path / "checkpoint.pth")
    for place, (images, logits) in enumerate(reference.cases()):
        model = getattr(nets, name)(classes=reference.facts["classes"], size_hw=images.shape[1:3])
        load_torchvision(model, name, state)
        x = normalized(images)
        found = {"keras": np.asarray(model(x, training=False))}
        if name not in HEAVY and place == 0:  # a conversion takes seconds
            with compile_model(model, runtime="litert", batch=len(x)) as runner:
                found["litert"] = runner(image=x)["logits"]
        for runtime, values in found.items():
            error = float(np.abs(values - logits).max() / logits.std())
            assert error < TOLERANCE, f"{runtime}: {error:.1e} of the standard deviation at {images.shape[1:3]}"
